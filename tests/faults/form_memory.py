"""``python -m tests.faults.form_memory --megabytes 300``: one large photo as a plain form to a real api process; what memory it took.

Ends with 1 when the process grew by more than ``--growth-mib``: bodies go to the disk as they come, and are never held.
"""

import argparse
import http.client
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.faults.tus_link import large_photo, peak_mib, start_api
from tests.services import Broker, Installation, Stack, install

HEAD = b'--b\r\nContent-Disposition: form-data; name="files"; filename="large.jpg"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
BLOCK_BYTES = 1 << 20


@dataclass
class Figures:
    """Memory that the api process had at most, before and after a form of so many megabytes."""

    megabytes: float
    before_mib: float = 0.0
    after_mib: float = 0.0
    sha256_equal: bool = False

    @property
    def growth_mib(self) -> float:
        """How much more it was after."""
        return self.after_mib - self.before_mib


def send_form(port: int, capture: str, source: Path) -> dict:
    """POST one file as a form, read from the disk block by block."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    size_bytes = len(HEAD) + source.stat().st_size + len(TAIL)
    connection.putrequest("POST", f"/v1/captures/{capture}/photos")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", str(size_bytes))
    connection.endheaders(HEAD)
    with source.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            connection.send(block)
    connection.send(TAIL)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert answer.status == 201, body
    return body


def run(figures: Figures, installation: Installation, folder: Path) -> Figures:
    """Send a small form, then the large one, and return what the process took."""
    port = start_api(installation)
    pid = installation.processes["api"].pid
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        capture = client.post("/v1/captures").json()["id"]
    for megabytes in (2.0, figures.megabytes):
        source = folder / f"{megabytes}.jpg"
        sha256 = large_photo(source, int(megabytes * 1e6), seed=int(megabytes))
        (photo,) = send_form(port, capture, source)["photos"]
        figures.sha256_equal = photo["sha256"] == sha256 and photo["state"] == "accepted"
        figures.before_mib, figures.after_mib = figures.after_mib, round(peak_mib(pid), 1)
    return figures


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--growth-mib", type=float, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Uploads ring no bell: no broker is there, and none is asked.
        installation = install(Stack("embedded", Broker("redis://127.0.0.1:9", [], None), None), root / "data", max_file_bytes=1 << 32)
        try:
            figures = run(Figures(asked.megabytes), installation, root)
        finally:
            installation.end_all()
    print(json.dumps({**asdict(figures), "growth_mib": round(figures.growth_mib, 1)}))
    return 0 if figures.sha256_equal and figures.growth_mib <= asked.growth_mib else 1


if __name__ == "__main__":
    sys.exit(main())
