"""Links to finished splats: what they open, for how long, and that they open nothing else."""

import hashlib
import json
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from api.db import now, open_database
from api.models import Share
from api.routes import viewer
from api.services import assets, jobs, shares
from api.services.assets import Stored
from api.storage import Storage, open_storage
from tests.api.conftest import is_problem
from tests.photos import upload
from tests.services import installed

CAMERAS = [{"id": 0, "img_name": "Anna at home.jpg", "name": "Anna at home.jpg", "width": 4, "height": 3, "position": [0, 0, 0], "fx": 1.0}]
FILES = {
    "scene.sog": b"a splat",
    "cameras.json": json.dumps(CAMERAS).encode(),
    "scene.ply": b"ply",
    "report.json": b"{}",
    "colmap.zip": b"PK",
}


@pytest.fixture
def finished(installation, client, db, capture) -> str:
    """A job that has succeeded, with its files in storage."""
    return finish(installation, client, db, capture)


def finish(installation, client, db, capture) -> str:
    upload(client, capture, 3)
    job_id = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    storage = open_storage(installation.settings)
    stored = []
    for name, content in FILES.items():
        path = installation.settings.data_dir / name
        path.write_bytes(content)
        storage.put(f"jobs/{job_id}/1/{name}", path)
        stored.append(Stored(name, f"jobs/{job_id}/1/{name}", hashlib.sha256(content).hexdigest(), len(content)))
    with db.writing() as session:
        assert jobs.move(session, job_id, "running", said={})
        assets.record(session, job_id, stored)
        assert jobs.move(session, job_id, "succeeded", said={})
    return job_id


def share(client, job_id: str, **body) -> dict:
    answer = client.post(f"/v1/jobs/{job_id}/shares", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_link_is_shown_once_and_opens_the_viewer_and_its_files(client, finished, db):
    made = share(client, finished)
    assert made["url"] == f"{str(client.base_url).rstrip('/')}/s/{made['token']}"
    with db.reading() as session:
        row = session.scalars(select(Share)).one()
        assert made["token"] not in (row.id, row.sha256)
        assert row.expires_at - row.created_at == timedelta(days=7)
    listed = client.get(f"/v1/jobs/{finished}/shares")
    assert made["token"] not in listed.text
    assert [each["id"] for each in listed.json()["items"]] == [made["id"]]
    splat = client.get(f"/s/{made['token']}/assets/scene.sog")
    assert (splat.status_code, splat.content) == (200, FILES["scene.sog"])
    assert splat.headers["cache-control"] == "private, no-cache"
    assert client.get(f"/s/{made['token']}/assets/scene.sog", headers={"Range": "bytes=2-3"}).content == b"sp"
    assert client.head(f"/s/{made['token']}/assets/scene.sog").headers["content-length"] == "7"
    cameras = client.get(f"/s/{made['token']}/assets/cameras.json")
    assert cameras.json() == [{"width": 4, "height": 3, "position": [0, 0, 0], "fx": 1.0}]
    assert "Anna" not in cameras.text


def test_a_link_opens_nothing_else(client, finished):
    base = f"/s/{share(client, finished)['token']}"
    for name in ("scene.ply", "report.json", "colmap.zip", "log.txt", "%00", "scene.sog%00"):
        is_problem(client.get(f"{base}/assets/{name}"), 404, "not_found.asset")
    for path in ("/assets", "/v1/jobs", "/assets/scene.sog/more", f"/{finished}"):
        is_problem(client.get(base + path), 404, "http.not_found")
    is_problem(client.post(base), 405, "http.method_not_allowed")
    is_problem(client.delete(f"{base}/assets/scene.sog"), 405, "http.method_not_allowed")


@pytest.mark.parametrize("token", ["x", "a" * 43, "%00", "%ff", "a" * 5000, "' OR 1=1"])
def test_an_unknown_link_is_not_found(client, token):
    assert client.get(f"/s/{token}").status_code == 404
    assert client.get(f"/s/{token}/assets/scene.sog").status_code == 404


def test_a_revoked_an_expired_and_a_deleted_splats_link_are_gone(client, finished, db):
    revoked, expired, deleted = (share(client, finished, expires_in_s=3600) for _ in range(3))
    assert client.delete(f"/v1/jobs/{finished}/shares/{revoked['id']}").status_code == 204
    assert client.delete(f"/v1/jobs/{finished}/shares/{revoked['id']}").status_code == 204
    with db.writing() as session:
        session.execute(update(Share).where(Share.id == expired["id"]).values(expires_at=now(session) - timedelta(seconds=1)))
    for each, word in ((revoked, "revoked"), (expired, "expired")):
        for path in ("", "/assets/scene.sog"):
            body = is_problem(client.get(f"/s/{each['token']}{path}"), 410, "gone.share")
            assert word in body["detail"]
            assert finished not in body["detail"]
    assert client.get(f"/s/{deleted['token']}/assets/scene.sog").status_code == 200
    assert client.delete(f"/v1/jobs/{finished}").status_code == 204
    assert "deleted" in is_problem(client.get(f"/s/{deleted['token']}"), 410, "gone.share")["detail"]
    is_problem(client.get(f"/v1/jobs/{finished}/shares"), 410, "gone.job")


@pytest.mark.parametrize("name", ["scene.sog", "cameras.json"])
def test_a_job_deleted_between_the_question_and_its_bytes_is_gone_and_no_error_of_ours(client, finished, monkeypatch, name):
    token = share(client, finished)["token"]
    read = Storage.read

    def deleted_first(self, key, *span):
        client.delete(f"/v1/jobs/{finished}")
        self.delete_prefix(f"jobs/{finished}")  # as the dispatcher's sweep does
        return read(self, key, *span)

    monkeypatch.setattr(Storage, "read", deleted_first)
    is_problem(client.get(f"/s/{token}/assets/{name}"), 410, "gone.share")


def test_only_a_finished_job_is_shared_and_only_for_a_year(client, capture, finished):
    running = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    is_problem(client.post(f"/v1/jobs/{running}/shares"), 409, "conflict.not_ready")
    for seconds in (0, 59, 31_536_001, "x", 1e30):
        is_problem(client.post(f"/v1/jobs/{finished}/shares", json={"expires_in_s": seconds}), 422, "input.invalid_request")
    is_problem(client.delete(f"/v1/jobs/{finished}/shares/x"), 404, "not_found.share")
    other = share(client, finished)
    is_problem(client.delete(f"/v1/jobs/{running}/shares/{other['id']}"), 404, "not_found.share")
    is_problem(client.post("/v1/jobs/00000000-0000-7000-8000-000000000000/shares"), 404, "not_found.job")


def test_links_are_forgotten_a_month_after_their_end(client, finished, db):
    old, young = share(client, finished), share(client, finished)
    with db.writing() as session:
        session.execute(update(Share).where(Share.id == old["id"]).values(expires_at=now(session) - timedelta(days=31)))
        session.execute(update(Share).where(Share.id == young["id"]).values(expires_at=now(session) - timedelta(days=29)))
        shares.forget_old(session)
    assert [each["id"] for each in client.get(f"/v1/jobs/{finished}/shares").json()["items"]] == [young["id"]]


@pytest.mark.parametrize("embedded_in", ["'self'", "'none'", "https://blog.example"])
def test_the_page_may_be_framed_where_the_setting_says_and_the_url_begins_as_it_says(stack, tmp_path, monkeypatch, embedded_in):
    static = tmp_path / "static"
    static.mkdir()
    (static / "viewer.html").write_text("the viewer")
    monkeypatch.setattr(viewer, "STATIC", static)
    changes = {"share_embedded_in": embedded_in, "public_url": "https://splats.example/"}
    with installed(stack, tmp_path / "data", **changes) as installation, installation.api() as client:
        db = open_database(installation.settings)
        job_id = finish(installation, client, db, client.post("/v1/captures", json={}).json()["id"])
        db.close()
        made = share(client, job_id)
        assert made["url"] == f"https://splats.example/s/{made['token']}"
        page = client.get(f"/s/{made['token']}")
        assert page.text == "the viewer"
        policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
        assert policy["frame-ancestors"] == embedded_in
        assert policy["default-src"] == "'none'"
        framing = {"'self'": "SAMEORIGIN", "'none'": "DENY", "https://blog.example": None}
        assert page.headers.get("x-frame-options") == framing[embedded_in]
        assert (page.headers["x-robots-tag"], page.headers["referrer-policy"]) == ("noindex, nofollow", "no-referrer")
        assert client.get("/s/unknown").headers["content-type"] == "application/problem+json"
