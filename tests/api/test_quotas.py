"""How often who may ask, and what a key may use up; over HTTP."""

import socket

import pytest
from starlette.requests import Request

from api.db import open_database
from api.door import address_of
from api.services import keys
from api.services.keys import NewKey, Quotas
from tests.api.conftest import is_problem
from tests.photos import encoded, form
from tests.services import installed


def quota_of(house, **quotas) -> dict[str, str]:
    return house.made(quotas=Quotas(**quotas))[1]


def test_a_key_that_asks_too_often_is_told_when_to_come_again(house):
    hasty, calm = quota_of(house, requests_per_minute=3), house.key()
    answers = [house.client.get("/v1/jobs", headers=hasty) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
    is_problem(answers[3], 429, "quota.requests_per_minute")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert house.client.get("/v1/jobs", headers=calm).status_code == 200


def test_shares_of_jobs_and_storage_are_kept_over_http(house):
    header = quota_of(house, jobs_per_day=1, storage_bytes=30_000_000)
    capture = house.client.post("/v1/captures", headers=header).json()["id"]
    photos = form(*((f"{n}.jpg", encoded(n)) for n in range(3)))
    assert house.client.post(f"/v1/captures/{capture}/photos", files=photos, headers=header).status_code == 201
    started = [house.client.post("/v1/jobs", json={"capture_id": capture}, headers=header) for _ in range(2)]
    assert started[0].status_code == 202, started[0].text
    is_problem(started[1], 429, "quota.jobs_per_day")
    assert int(started[1].headers["retry-after"]) > 80_000
    upload = {"Tus-Resumable": "1.0.0", "Upload-Length": "40000000", **header}
    is_problem(house.client.post(f"/v1/captures/{capture}/uploads", headers=upload), 413, "quota.storage_bytes")
    assert house.client.post(f"/v1/captures/{capture}/uploads", headers={**upload, "Upload-Length": "1000000"}).status_code == 201


def test_wrong_keys_cannot_be_tried_without_end_and_right_ones_still_open(stack, tmp_path):
    with installed(stack, tmp_path / "data", require_key=True, refusals_per_minute=3) as installation:
        db = open_database(installation.settings)
        with db.writing() as session:
            _, key = keys.create(session, NewKey("me"))
        db.close()
        with installation.api() as client:
            wrong = {"Authorization": f"Bearer {key[:-1]}"}
            assert [client.get("/v1/jobs", headers=wrong).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
            is_problem(client.get("/v1/jobs", headers=wrong), 429, "quota.refusals_per_minute")
            assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_broker_that_is_away_neither_holds_up_nor_fails_a_request(stack, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        away = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with installed(stack, tmp_path / "data", require_key=True, broker_url=away) as installation:
            db = open_database(installation.settings)
            with db.writing() as session:
                _, key = keys.create(session, NewKey("me", quotas=Quotas(requests_per_minute=5)))
            db.close()
            with installation.api() as client:
                client.timeout = 10
                answers = [client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_whoever_has_many_addresses_is_counted_once(host, counted):
    assert address_of(Request({"type": "http", "client": (host, 1), "headers": []})) == counted
