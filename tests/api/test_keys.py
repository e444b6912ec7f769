"""Keys over HTTP: what opens, what does not any more, what is kept of them."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from api.db import now
from api.models import ApiKey
from tests.api.conftest import is_problem
from tests.services import until


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer", "auth.no_key"),
        ("Basic c2s6c2s=", "auth.no_key"),
        ("Bearer sk_abcdefgh", "auth.unknown_key"),
        ("Bearer sk_abcdefgh_" + "x" * 43, "auth.unknown_key"),
        ("Bearer " + "x" * 5000, "auth.unknown_key"),
        ("Bearer sk_abcdefgh_" + "é" * 43, "auth.unknown_key"),
    ],
)
def test_what_is_no_key_opens_nothing(house, header, code):
    answer = house.client.get("/v1/jobs", headers={"Authorization": header.encode()})
    is_problem(answer, 401, code)


def test_a_key_whose_secret_is_another_opens_nothing(house):
    key = house.key()["Authorization"]
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    is_problem(house.client.get("/v1/jobs", headers={"Authorization": other}), 401, "auth.unknown_key")
    is_problem(house.client.get("/v1/jobs", headers={"Authorization": key[:-1]}), 401, "auth.unknown_key")
    assert house.client.get("/v1/jobs", headers={"authorization": key.replace("Bearer", "bearer ")}).status_code == 200


def test_a_revoked_key_and_an_expired_one_open_nothing_and_say_why(house):
    key_id, header = house.made()
    assert house.client.get("/v1/jobs", headers=header).status_code == 200
    assert house.client.delete(f"/v1/api-keys/{key_id}", headers=house.key()).status_code == 204
    assert "revoked" in is_problem(house.client.get("/v1/jobs", headers=header), 401, "auth.key_ended")["detail"]
    key_id, header = house.made(lasts_s=3600)
    assert house.client.get("/v1/jobs", headers=header).status_code == 200
    with house.db.writing() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=now(session) - timedelta(seconds=1)))
    assert "expired" in is_problem(house.client.get("/v1/jobs", headers=header), 401, "auth.key_ended")["detail"]


def test_a_key_is_shown_once_and_only_its_hash_is_kept(house):
    body = {"name": "robot", "scopes": ["jobs:read"], "quotas": {"jobs_per_day": 3}, "expires_in_s": 60}
    answer = house.client.post("/v1/api-keys", json=body, headers=house.key())
    assert answer.status_code == 201
    made = answer.json()
    assert re.fullmatch(r"sk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}", made["key"])
    assert made["key"].startswith(f"sk_{made['prefix']}_")
    again = house.client.get(answer.headers["location"], headers=house.key()).json()
    assert again == {name: value for name, value in made.items() if name != "key"}
    assert again["quotas"]["jobs_per_day"] == 3
    assert house.client.get("/v1/jobs", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 200
    listed = house.client.get("/v1/api-keys", headers=house.key()).text
    with house.db.reading() as session:
        rows = str(session.execute(text("SELECT * FROM api_key")).all())
    assert made["prefix"] in listed
    assert made["prefix"] in rows
    for secret in (made["key"], made["key"][12:]):
        assert secret not in listed
        assert secret not in rows


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "a\nb"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "quotas": {"jobs_per_day": -1}},
        {"name": "x", "quotas": {"cake": 1}},
        {"name": "x", "expires_in_s": 0},
        {"name": "x", "expires_in_s": 1e300},
        {"name": "\u200b"},
    ],
)
def test_a_key_that_cannot_be_is_refused(house, body):
    answer = house.client.post("/v1/api-keys", json=body, headers=house.key())
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"].startswith("input.")


def test_the_use_of_a_key_is_noted(house):
    key_id, header = house.made()
    house.client.get("/v1/jobs", headers=header)
    until(lambda: house.client.get(f"/v1/api-keys/{key_id}", headers=house.key()).json()["used_at"], 5)
