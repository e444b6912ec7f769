"""What a client can make the service write: where it lies, under what names, and as what it is served back."""

import asyncio
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.services.inspect import PhotoLimits
from api.services.photos import Received, examine
from api.storage import open_storage
from engine.workspace import Workspace
from tests.api.conftest import is_problem
from tests.photos import encoded, form
from tests.services import Installation
from worker.files import fetch

LIMITS = PhotoLimits(min_side_px=1, max_megapixels=100, max_bytes=1 << 28)
HOSTILE = (
    "../../../etc/cron.d/x.jpg",
    "/etc/passwd.jpg",
    "..\\..\\windows\\x.jpg",
    "C:\\x.jpg",
    "~/.ssh/authorized_keys.jpg",
    "a\x00b.jpg",
    ".bashrc",
    "..",
    "%2e%2e%2fx.jpg",
    "masks/..",
    "masks/../../x.png",
    "../masks/a.jpg.png",
    "masks/.hidden.png",
    "masks/a\x00.png",
    "sparse/0/../../cameras.bin",
    "a/sparse/0/cameras.bin",
    "/transforms.json",
    "con.jpg",
    "x" * 2000 + ".jpg",
    "\u202egpj.exe",
    "<script>alert(1)</script>.jpg",
)
WORDS = st.lists(
    st.sampled_from(["..", ".", "", "masks", "sparse", "0", "cameras.bin", "transforms.json", "a.jpg", "\x00", "~", "C:"]), max_size=6
)
NAMES = st.one_of(st.text(max_size=40), WORDS.map("/".join), WORDS.map("\\".join))


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a"
    path.write_bytes(encoded(1, "PNG", 40, 30))
    return path


@settings(max_examples=200, deadline=None)
@given(name=NAMES)
def test_no_name_leads_out_of_the_folder_that_a_job_works_in(photo, name):
    (examined,) = examine([Received(name, photo, photo.stat().st_size, "0" * 64, None)], LIMITS)
    parts = examined.name.split("/")
    assert len(parts) == 1 or (len(parts) == 2 and parts[0] in ("masks", "sparse"))
    assert all(part not in ("", ".", "..") for part in parts)
    assert not any(char in examined.name for char in "\\\x00\n\r")
    assert all(len(part.encode()) <= 255 for part in parts)
    assert not Path(examined.name).is_absolute()


def everything_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_hostile_names_reach_the_disk_only_where_they_may(client, capture, installation: Installation, tmp_path):
    pictures = [encoded(number, "JPEG", 660, 440) for number in range(len(HOSTILE))]
    sent = [(name.encode("utf-8", "replace").decode(), data) for name, data in zip(HOSTILE, pictures, strict=True)]
    answer = client.post(f"/v1/captures/{capture}/photos", files=form(*sent))
    assert answer.status_code == 201, answer.text
    kept = [each for each in client.get(f"/v1/captures/{capture}").json()["photos"] if each["state"] != "rejected"]
    assert len(kept) >= 10

    # Outside the data folder nothing; inside, names of ours alone, and no link to anywhere.
    data = installation.settings.data_dir
    assert everything_under(tmp_path) == everything_under(data)
    stored = everything_under(data / "storage") if (data / "storage").exists() else everything_under(data)
    assert not any(path.is_symlink() for path in everything_under(data))
    for path in stored:
        assert all(char.isalnum() or char in "-._" for char in path.relative_to(data).as_posix().replace("/", "")), path

    # And as the worker lays them out for the engine.
    workspace = Workspace.at(tmp_path / "work")
    with_keys = keys_of(installation, capture)
    fetch(open_storage(installation.settings), workspace, with_keys)
    laid = everything_under(workspace.root)
    assert len(laid) == len(with_keys) == len(kept)
    for path in laid:
        assert not path.is_symlink()
        assert path.resolve().is_relative_to(workspace.photos.resolve())
        assert path.stat().st_mode & 0o111 == 0


def keys_of(installation: Installation, capture: str) -> list[tuple[str, str, int]]:
    from api.db import open_database
    from api.services import photos

    db = open_database(installation.settings)
    with db.reading() as session:
        found = [(row.name, row.storage_key or "", row.size_bytes) for row in photos.given(session, capture, 10**6)]
    db.close()
    return found


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "evil.jpg", "data.xhtml"])
def test_active_content_is_refused_whatever_it_is_called(client, capture, name):
    page = b"<html><script>alert(document.cookie)</script></html>" + b" " * 600
    answer = client.post(f"/v1/captures/{capture}/photos", files=form(("a.jpg", encoded(1)), (name, page)))
    (refused,) = [each for each in answer.json()["photos"] if each["state"] == "rejected"]
    assert refused["error"]["code"] == "input.unsupported_type"


def test_a_log_is_served_as_text_and_nothing_else(client, capture, installation):
    assert client.post(f"/v1/captures/{capture}/photos", files=form(*((f"{n}.jpg", encoded(n)) for n in range(3)))).status_code == 201
    job = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    installation.settings.logs.mkdir(parents=True, exist_ok=True)
    (installation.settings.logs / f"{job}.log").write_text("<script>alert(1)</script>\n")
    answer = client.get(f"/v1/jobs/{job}/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


PRIVATE = ("/v1/jobs", "/v1/captures", "/v1/system", "/v1/session", "/v1/nope")


@pytest.mark.parametrize("path", [*PRIVATE, "/healthz", "/metrics", "/", "/nope", "/s/nope", "/static/nope.js"])
def test_every_answer_carries_what_keeps_a_browser_safe(client, path):
    answer = client.get(path)
    said = answer.headers
    assert said["x-content-type-options"] == "nosniff"
    assert said["referrer-policy"] == "no-referrer"
    assert said["x-frame-options"] in ("DENY", "SAMEORIGIN")
    assert said["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in said
    if path in PRIVATE:
        assert said["cache-control"] == "private, no-store"
        assert "default-src 'none'" in said["content-security-policy"]
        assert "frame-ancestors 'none'" in said["content-security-policy"]


def test_refusals_carry_the_same_headers(client):
    for answer in (
        client.get("/v1/jobs", headers={"Host": "evil.example"}),
        client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
        client.put("/v1/jobs"),
        client.get("/v1/jobs", headers={"Authorization": "Bearer sk_wrong"}),
    ):
        assert answer.status_code >= 400
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["x-request-id"]


def test_even_an_error_of_ours_carries_them(installation):
    app = create_app(installation.settings)
    app.add_api_route("/v1/broken", lambda: 1 // 0)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/v1/broken")

    answer = asyncio.run(ask())
    is_problem(answer, 500, "internal.error")
    assert "division" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
