"""Uploads whose parts go to the object store past the api: against a real S3 server."""

import hashlib

import httpx
import pytest

from api.db import open_database
from api.storage import open_storage
from tests.api.conftest import is_problem
from tests.api.tus_client import VERSION, patch
from tests.photos import encoded
from tests.services import installed
from worker import leftovers

pytestmark = pytest.mark.parametrize("stack", ["servers"], indirect=True)
DATA = encoded(1) + bytes(range(256)) * 1000
PART_BYTES = 100_000


@pytest.fixture(scope="module")
def installation(stack, tmp_path_factory):
    with installed(stack, tmp_path_factory.mktemp("parts") / "data", part_bytes=PART_BYTES) as found:
        yield found


@pytest.fixture(scope="module")
def client(installation):
    with installation.api() as found:
        yield found


def begun(client, capture: str, data: bytes = DATA, **more) -> dict:
    wanted = {"capture_id": capture, "name": "a.jpg", "size_bytes": len(data), "mode": "parts", **more}
    answer = client.post("/v1/uploads", json=wanted)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    return answer.json()


def put(part: dict, data: bytes = DATA) -> dict:
    """Bring a part to the store, as anybody may who has its address."""
    start = (part["number"] - 1) * PART_BYTES
    answer = httpx.put(part["url"], content=data[start : start + part["size_bytes"]], trust_env=False)
    assert answer.status_code == 200, answer.text
    return {"number": part["number"], "etag": answer.headers["etag"]}


def test_parts_in_any_order_and_twice_become_one_photo(client, capture, installation):
    made = begun(client, capture, sha256=hashlib.sha256(DATA).hexdigest())
    assert [part["size_bytes"] for part in made["parts"]] == [100_000, 100_000, len(DATA) - 200_000]
    sent = [put(part) for part in (made["parts"][2], made["parts"][0], made["parts"][0])]
    url = made["links"]["self"]
    body = is_problem(client.post(f"{url}/complete", json={"parts": sent[:2]}), 409, "conflict.parts_missing")
    assert body["data"]["missing"] == [2]
    now = client.get(url).json()["parts"]
    assert [part["has_arrived"] for part in now] == [True, False, True]
    sent.append(put(now[1]))
    done = client.post(f"{url}/complete", json={"parts": sent}).json()
    assert (done["state"], done["photo"]["sha256"], done["parts"]) == ("done", hashlib.sha256(DATA).hexdigest(), None)
    assert client.post(f"{url}/complete").json() == done
    assert client.get(f"/v1/captures/{capture}").json()["photos"] == [done["photo"]]
    (kept,) = installation.stored(f"captures/{capture}")
    assert b"".join(open_storage(installation.settings).read(kept)) == DATA
    assert list(installation.settings.incoming.iterdir()) == []
    again = begun(client, capture)
    for part in again["parts"]:
        put(part)
    assert client.post(f"{again['links']['self']}/complete").json()["is_duplicate"]
    assert installation.stored(f"captures/{capture}") == {kept}


def test_a_part_that_is_not_what_was_sent_is_named(client, capture):
    made = begun(client, capture)
    sent = [put(part) for part in made["parts"]]
    put(made["parts"][1], bytes(len(DATA)))
    body = is_problem(client.post(f"{made['links']['self']}/complete", json={"parts": sent}), 422, "input.part_changed")
    assert body["data"]["number"] == 2
    put(made["parts"][1])
    assert client.post(f"{made['links']['self']}/complete", json={"parts": sent}).json()["state"] == "done"


def test_a_short_part_has_not_arrived(client, capture):
    made = begun(client, capture)
    for part in made["parts"]:
        put(part)
    assert httpx.put(made["parts"][0]["url"], content=b"short", trust_env=False).status_code == 200
    is_problem(client.post(f"{made['links']['self']}/complete"), 409, "conflict.parts_missing")


def test_what_is_no_photo_is_refused_and_nothing_of_it_stays(client, capture, installation):
    data = b"text " * 50
    made = begun(client, capture, data)
    put(made["parts"][0], data)
    done = client.post(f"{made['links']['self']}/complete").json()
    assert (done["state"], done["error"]["code"]) == ("refused", "input.unsupported_type")
    assert installation.stored(f"captures/{capture}") == set()


def test_an_ended_or_late_upload_takes_its_parts_along(client, capture, installation):
    ended, late = begun(client, capture), begun(client, capture)
    for made in (ended, late):
        put(made["parts"][0])
    assert client.delete(ended["links"]["self"]).status_code == 204
    assert len(installation.stored(f"captures/{capture}")) == 1
    db = open_database(installation.settings)
    with db.writing() as session:
        from datetime import timedelta

        from api.db import now
        from api.models import Upload

        session.get(Upload, late["id"]).expires_at = now(session) - timedelta(seconds=1)
    leftovers.expire_uploads(installation.settings, db, open_storage(installation.settings))
    db.close()
    assert installation.stored(f"captures/{capture}") == set()
    is_problem(client.get(late["links"]["self"]), 410, "gone.upload")
    is_problem(client.post(f"{late['links']['self']}/complete"), 410, "gone.upload")


def test_tus_and_parts_are_not_mixed(client, capture):
    url = begun(client, capture)["links"]["self"]
    is_problem(patch(client, url, 0, b"x"), 409, "conflict.upload_way")
    assert client.head(url, headers=VERSION).status_code == 409


def test_the_limits_are_those_of_every_upload(client, capture, installation):
    huge = {"capture_id": capture, "size_bytes": installation.settings.max_file_bytes + 1, "mode": "parts"}
    is_problem(client.post("/v1/uploads", json=huge), 413, "input.too_large")
    is_problem(client.post("/v1/uploads", json={**huge, "size_bytes": 1 << 62}), 422, "input.invalid_request")


def test_by_tus_a_file_lies_here_until_it_is_whole_and_then_in_the_store(client, capture, installation):
    url = client.post("/v1/uploads", json={"capture_id": capture, "name": "a.jpg", "size_bytes": len(DATA)}).json()["links"]["self"]
    assert patch(client, url, 0, DATA[:1000]).status_code == 204
    assert installation.stored(f"captures/{capture}") == set()
    assert len(list(installation.settings.incoming.iterdir())) == 1
    assert patch(client, url, 1000, DATA[1000:]).headers["upload-state"] == "done"
    assert len(installation.stored(f"captures/{capture}")) == 1
    assert list(installation.settings.incoming.iterdir()) == []
