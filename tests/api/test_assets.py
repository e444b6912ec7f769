"""Downloads over HTTP: ranges, validators, dispositions."""

import hashlib

import pytest

from api.services import assets
from api.services.assets import Stored
from api.services.leases import Finished, Holder, claim, finish_stage
from api.storage import Storage, open_storage
from engine.options import STAGES
from tests.api.conftest import is_problem
from tests.photos import upload

DATA = bytes(range(256)) * 8000  # 2 MB: more than one chunk
NAME = "scene.ply"


@pytest.fixture
def url(client, capture, installation, db, tmp_path) -> str:
    """A succeeded job's file, made by the moves that a worker makes."""
    upload(client, capture, 3)
    job = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    source = tmp_path / "source"
    source.write_bytes(DATA)
    key = f"jobs/{job}/assets/1/{NAME}"
    open_storage(installation.settings).put(key, source)
    with db.writing() as session:
        held = claim(session, installation.settings, job, "cpu", Holder("here", 1, "s"))
    for stage in STAGES:
        with db.writing() as session:
            if stage == "compress":
                assets.record(session, job, [Stored(NAME, key, hashlib.sha256(DATA).hexdigest(), len(DATA))])
            held = finish_stage(session, installation.settings, held, Finished(1.0, is_skipped=False, stats={}), {})
    return f"/v1/jobs/{job}/assets/{NAME}"


def test_a_download_carries_size_tag_and_name(client, url):
    answer = client.get(url)
    assert answer.content == DATA
    assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-disposition"].startswith('attachment; filename="scene.ply"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in ("etag", "content-length")} == {
        name: answer.headers[name] for name in ("etag", "content-length")
    }


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, len(DATA)),
        ("bytes=-10", len(DATA) - 10, len(DATA)),
        ("bytes=10-99999999", 10, len(DATA)),
        ("bytes=1048570-1048590", 1048570, 1048591),
        (f"bytes=-{len(DATA) * 2}", 0, len(DATA)),
    ],
)
def test_a_range_is_the_bytes_asked_for(client, url, header, start, stop):
    answer = client.get(url, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == DATA[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", ["bytes=abc", "bytes=", "bytes=-", "items=0-1", "bytes=5-2", "bytes=0-1,5-6", "bytes=" + "9" * 99 + "-"])
def test_a_range_that_is_none_is_ignored(client, url, header):
    answer = client.get(url, headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", "bytes=-0"])
def test_a_range_outside_is_416_and_says_the_size(client, url, header):
    answer = client.get(url, headers={"Range": header})
    is_problem(answer, 416, "request.range")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_conditions_are_honoured(client, url):
    tag = client.head(url).headers["etag"]
    for value in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(url, headers={"If-None-Match": value})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(url, headers={"Range": "bytes=0-1", "If-Range": tag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200


def test_an_unknown_file_of_a_finished_job_is_404_and_names_those_there_are(client, url):
    assert NAME in is_problem(client.get(url + "x"), 404, "not_found.asset")["hint"]
    is_problem(client.get(url + "%00"), 404, "not_found.asset")
    listed = client.get(url.rpartition("/")[0]).json()["items"]
    assert [(each["name"], each["size_bytes"], each["url"]) for each in listed] == [(NAME, len(DATA), url)]


def test_a_job_deleted_between_the_question_and_its_bytes_is_gone_and_no_error_of_ours(client, url, monkeypatch):
    job, read = url.split("/")[3], Storage.read

    def deleted_first(self, key, *span):
        client.delete(f"/v1/jobs/{job}")
        self.delete_prefix(f"jobs/{job}")  # as the dispatcher's sweep does
        return read(self, key, *span)

    monkeypatch.setattr(Storage, "read", deleted_first)
    is_problem(client.get(url), 410, "gone.job")
