"""Uploads of the command line by tus, against a real service."""

import base64
import hashlib
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from cli.client import Client
from cli.uploads import PIECE_BYTES, Begun, File, send_all, speaks_tus
from tests.cli.conftest import run


@pytest.fixture
def client(served):
    with Client(served.url) as client:
        yield client


@pytest.fixture
def large(tmp_path) -> File:
    """A photo of more than one piece."""
    path = tmp_path / "large.png"
    noise = np.random.default_rng(1).integers(0, 255, (1800, 1800, 3), np.uint8)
    Image.fromarray(noise).save(path, compress_level=1)
    assert PIECE_BYTES < path.stat().st_size < 2 * PIECE_BYTES
    return file_of(path)


def file_of(path) -> File:
    return File(path, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def begin(served, capture: str, file: File, n_bytes: int) -> str:
    """Begin an upload as a command does that is killed after so many bytes; return where it is."""
    given = f"filename {base64.b64encode(file.name.encode()).decode()},capture_id {base64.b64encode(capture.encode()).decode()}"
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(file.path.stat().st_size), "Upload-Metadata": given}
    made = httpx.post(f"{served.url}/v1/uploads", headers=headers, trust_env=False)
    path = made.raise_for_status().headers["Location"]
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    content = file.path.read_bytes()[:n_bytes]
    httpx.patch(f"{served.url}{path}", headers=headers, content=content, trust_env=False).raise_for_status()
    return path


def test_an_upload_that_was_begun_is_gone_on_with_and_only_the_rest_is_sent(served, client, large, tmp_path):
    capture = client.post("/v1/captures", {})["id"]
    n_there, note = 1_000_000, tmp_path / "scene.uploads.json"
    note.write_text(json.dumps({f"{capture} {large.name} {large.sha256}": begin(served, capture, large, n_there)}))
    told: list[int] = []
    assert speaks_tus(client)
    assert send_all(client, capture, [large], Begun.read(note), told.append) == []
    assert told[0] == n_there
    assert sum(told) == large.path.stat().st_size
    (photo,) = client.get(f"/v1/captures/{capture}")["photos"]
    assert (photo["state"], photo["sha256"]) == ("accepted", large.sha256)
    assert json.loads(note.read_text()) == {}


@pytest.mark.parametrize("path", ["/v1/uploads/01234567-0000-7000-8000-000000000000", "/v1/uploads/nonsense"])
def test_an_upload_that_the_server_no_longer_knows_begins_anew_and_what_is_refused_is_named(client, large, tmp_path, path):
    capture, note, text = client.post("/v1/captures", {})["id"], tmp_path / "note.json", tmp_path / "text.jpg"
    text.write_text("no photo")
    note.write_text(json.dumps({f"{capture} {large.name} {large.sha256}": path}))
    ((name, why),) = send_all(client, capture, [large, file_of(text)], Begun.read(note), lambda _count: None)
    assert name == "text.jpg"
    assert "is no photo" in why
    assert [photo["name"] for photo in client.get(f"/v1/captures/{capture}")["photos"] if photo["state"] == "accepted"] == ["large.png"]


def test_a_damaged_note_is_no_note(tmp_path):
    (tmp_path / "note.json").write_text("[1, 2")
    assert Begun.read(tmp_path / "note.json").paths == {}
    assert Begun.read(tmp_path / "none.json").paths == {}


def test_an_ended_job_is_run_again_and_shared_until_its_links_are_ended(served, photos):
    files = [("files", (path.name, path.read_bytes())) for path in photos.glob("[0-9].jpg")]
    job = httpx.post(f"{served.url}/v1/jobs", files=files, headers={"Prefer": "wait=30"}, timeout=60, trust_env=False).json()
    at = ("--server", served.url)
    url = run("share", job["id"], "--expires", "2d", *at).stdout.strip()
    assert httpx.get(url, trust_env=False).status_code == 200
    assert run("share", job["id"], "--revoke", *at).stdout.strip() == "1 link ended"
    assert httpx.get(url, trust_env=False).status_code == 410
    again = run("retry", job["id"], "--from", "compress", *at)
    assert again.returncode == 0, again.stderr
    newest = served.get("/v1/jobs")["items"][0]
    assert newest["parent_id"] == job["id"]
    wrong = run("retry", job["id"], "--from", "paint", *at)
    assert (wrong.returncode, "Unknown stage" in wrong.stderr) == (1, True)
