"""``python -m tests.faults.tus_link --megabytes 300 --cuts 20``: one large file by tus over a link that breaks, to a real api process.

Prints what was sent twice, how much memory the api took, and whether the photo is the file. Ends with 1 when it is not, or when any
break cost more than the piece that was on its way.
"""

import argparse
import hashlib
import http.client
import json
import random
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from api.storage import open_storage
from tests.api.tus_client import VERSION, begun
from tests.faults.link import BUFFER_BYTES, WAYS, Cut, Link
from tests.photos import encoded
from tests.services import Broker, Installation, Stack, free_port, install, until

BLOCK_BYTES = 64 << 10
QUIET_S = 1.5


@dataclass
class Figures:
    """What an upload over a breaking link cost."""

    megabytes: float
    cuts: int
    seed: int
    piece_bytes: int
    seconds: float = 0.0
    requests: int = 0
    sent_twice_bytes: int = 0
    worst_twice_bytes: int = 0
    api_peak_mib: float = 0.0
    sha256_equal: bool = False

    @property
    def is_good(self) -> bool:
        """Tell whether the file arrived, every cut was made, and none cost more than a piece."""
        return self.sha256_equal and self.worst_twice_bytes <= self.piece_bytes


def large_photo(path: Path, n_bytes: int, seed: int) -> str:
    """Write a photo of so many bytes, most of them behind its picture; return its sha256."""
    chance, found, head = random.Random(seed), hashlib.sha256(), encoded(1)
    with path.open("wb") as out:
        for block in (head, *_noise(chance, n_bytes - len(head))):
            out.write(block)
            found.update(block)
    return found.hexdigest()


def _noise(chance: random.Random, n_bytes: int) -> Iterator[bytes]:
    while n_bytes > 0:
        yield chance.randbytes(min(n_bytes, 1 << 20))
        n_bytes -= 1 << 20


def start_api(installation: Installation, name: str = "api") -> int:
    """Start an api process and return its port once it answers."""
    port = free_port()
    installation.start(name, "uvicorn", "api.app:create_app", "--factory", "--port", str(port), "--log-level", "warning")

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    until(answers, 60)
    return port


def peak_mib(pid: int) -> float:
    """Return the most memory that a process ever had resident."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def send_piece(port: int, url: str, data: memoryview, offset: int) -> int:
    """PATCH one piece; return how many of its bytes left this end, also when the link broke on the way."""
    connection, sent = http.client.HTTPConnection("127.0.0.1", port, timeout=QUIET_S), 0
    try:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        connection.putrequest("PATCH", url)
        headers = {
            **VERSION,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(data)),
        }
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        while sent < len(data):
            connection.send(data[sent : sent + BLOCK_BYTES])
            sent += len(data[sent : sent + BLOCK_BYTES])
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass  # the link broke: HEAD tells how far it came
    finally:
        connection.close()
    return sent


def ask_offset(port: int, url: str) -> int:
    """HEAD until the link lets it through."""

    def ask() -> tuple[int] | None:
        try:
            answer = httpx.head(f"http://127.0.0.1:{port}{url}", headers=VERSION, timeout=20, trust_env=False)
        except httpx.TransportError:
            return None
        return (int(answer.headers["upload-offset"]),) if answer.status_code == 200 else None

    return until(ask, 60)[0]


def send_all(figures: Figures, port: int, url: str, data: bytes) -> None:
    """Send a file piece by piece through whatever comes, always from where the service says it is."""
    offset = ask_offset(port, url)
    while offset < len(data):
        piece = memoryview(data)[offset : offset + figures.piece_bytes]
        sent = send_piece(port, url, piece, offset)
        reached = ask_offset(port, url)
        twice = sent - (reached - offset)
        assert twice >= 0, "the service says it has more than was sent"
        figures.requests += 1
        figures.sent_twice_bytes += twice
        figures.worst_twice_bytes = max(figures.worst_twice_bytes, twice)
        offset = reached


def cuts_of(figures: Figures) -> list[Cut]:
    """Return breaks at random places, each way in turn."""
    chance = random.Random(figures.seed)
    mean = figures.megabytes * 1e6 / (figures.cuts + 1)
    return [Cut(int(mean * chance.uniform(0.5, 1.0)), WAYS[n % len(WAYS)]) for n in range(figures.cuts)]


def run(figures: Figures, installation: Installation, folder: Path) -> Figures:
    """Upload one file over a breaking link and return the figures."""
    source = folder / "large.jpg"
    sha256 = large_photo(source, int(figures.megabytes * 1e6), figures.seed)
    port = start_api(installation)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        capture = client.post("/v1/captures").json()["id"]
        url = begun(client, capture, source.stat().st_size, sha256=sha256)
        link = Link(port, cuts_of(figures))
        began = time.monotonic()
        with link.open():
            send_all(figures, link.port, url, source.read_bytes())
        figures.seconds = round(time.monotonic() - began, 1)
        figures.cuts = link.n_cut
        (photo,) = client.get(f"/v1/captures/{capture}").json()["photos"]
        (key,) = installation.stored(f"captures/{capture}")
        stored = hashlib.sha256()
        for block in open_storage(installation.settings).read(key):
            stored.update(block)
        figures.sha256_equal = photo["sha256"] == sha256 == stored.hexdigest()
    figures.api_peak_mib = round(peak_mib(installation.processes["api"].pid), 1)
    return figures


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--piece-megabytes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    figures = Figures(asked.megabytes, asked.cuts, asked.seed, int(asked.piece_megabytes * 1e6))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Uploads ring no bell: no broker is there, and none is asked.
        installation = install(Stack("embedded", Broker("redis://127.0.0.1:9", [], None), None), root / "data", max_file_bytes=1 << 32)
        try:
            run(figures, installation, root)
        finally:
            installation.end_all()
    print(f"seed {figures.seed}", json.dumps(asdict(figures)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return 0 if figures.is_good and figures.cuts == asked.cuts else 1


if __name__ == "__main__":
    sys.exit(main())
