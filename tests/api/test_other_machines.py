"""Where keys are needed: on which addresses, behind which proxies; and who may come in where they are not."""

import asyncio

import pytest

from api.app import create_app
from api.deps import SESSION_COOKIE
from api.services import keys
from api.services.keys import NewKey
from api.settings import Settings
from engine.errors import InputError
from tests.api.conftest import is_problem
from tests.services import installed


def test_where_no_key_is_needed_one_that_comes_still_counts(client, db):
    with db.writing() as session:
        _, key = keys.create(session, NewKey("reader", ("jobs:read",)))
    assert client.post("/v1/captures").status_code == 201
    is_problem(client.post("/v1/captures", headers={"Authorization": f"Bearer {key}"}), 403, "auth.scope")
    is_problem(client.get("/v1/jobs", headers={"Authorization": "Bearer sk_abcdefgh_x"}), 401, "auth.unknown_key")
    # A proxy's own words, and a cookie of some other service on this machine, are none of ours.
    for header in ({"Authorization": "Basic c2s6c2s="}, {"Authorization": "Bearer eyJhbGciOi"}, {"Cookie": f"{SESSION_COOKIE}=old"}):
        assert client.get("/v1/jobs", headers=header).status_code == 200
    assert client.get("/v1/session").json()["key_required"] is False
    is_problem(client.post("/v1/session"), 401, "auth.no_key")


def test_another_machine_is_refused_where_no_key_is_needed(client):
    is_problem(client.get("/v1/jobs", headers={"X-Forwarded-For": "203.0.113.5"}), 403, "request.foreign_machine")


def test_behind_something_that_guards_other_machines_need_no_key(stack, tmp_path):
    with installed(stack, tmp_path / "data", allow_remote=True) as installation, installation.api() as client:
        elsewhere = {"X-Forwarded-For": "203.0.113.5", "Host": "splats.example.org"}
        assert client.get("/v1/jobs", headers=elsewhere).status_code == 200


@pytest.mark.parametrize(
    ("given", "required"),
    [
        ({}, False),
        ({"host": "127.0.0.1"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.5.5.5"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"host": "example.org"}, True),
        ({"host": "0.0.0.0", "allow_remote": True}, False),
        ({"host": "0.0.0.0", "allow_remote": True, "require_key": True}, True),
        ({"require_key": True}, True),
    ],
)
def test_keys_are_needed_wherever_other_machines_can_come(given, required):
    assert Settings(**given).keys_required is required


def test_the_api_does_not_start_for_other_machines_before_there_is_a_key(installation, db):
    async def start(settings: Settings) -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    remote = installation.settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(InputError, match=r"SPLATWORKS_HOST is 0\.0\.0\.0") as refused:
        asyncio.run(start(remote))
    assert "splatworks keys create" in refused.value.hint
    asyncio.run(start(remote.model_copy(update={"allow_remote": True})))
    with db.writing() as session:
        row, _ = keys.create(session, NewKey("first"))
    asyncio.run(start(remote))
    with db.writing() as session:
        keys.revoke(session, row.id)
    with pytest.raises(InputError):
        asyncio.run(start(remote))
