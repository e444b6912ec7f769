"""The api over a real socket, on each stack; and sessions on its database."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.db import Database, open_database
from api.services import keys
from api.services.keys import NewKey
from tests.api.house import House
from tests.services import Installation, Stack, installed, stack_of


@pytest.fixture(scope="session", params=["embedded", "servers"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stack_of(request.param) as found:
        yield found


@pytest.fixture
def installation(stack: Stack, tmp_path: Path) -> Iterator[Installation]:
    with installed(stack, tmp_path / "data") as found:
        yield found


@pytest.fixture
def client(installation: Installation) -> Iterator[httpx.Client]:
    with installation.api() as found:
        yield found


@pytest.fixture
def db(installation: Installation) -> Iterator[Database]:
    found = open_database(installation.settings)
    yield found
    found.close()


@pytest.fixture
def capture(client: httpx.Client) -> str:
    return client.post("/v1/captures", json={"name": "a shelf"}).json()["id"]


@pytest.fixture(scope="module")
def house(stack, tmp_path_factory):
    with installed(stack, tmp_path_factory.mktemp("house") / "data", require_key=True, refusals_per_minute=10_000) as installation:
        db = open_database(installation.settings)
        with db.writing() as session:
            keys.create(session, NewKey("first"))
        with installation.api() as client:
            yield House(installation, client, db)
        db.close()


@pytest.fixture(autouse=True)
def no_cookies_left(request):
    yield
    if "house" in request.fixturenames:
        request.getfixturevalue("house").client.cookies.clear()


def is_problem(answer: httpx.Response, status: int, code: str) -> dict:
    """Check that an answer is a whole RFC 9457 problem and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) >= {"type", "title", "status", "detail", "instance", "code", "hint", "retryable", "errors"}
    assert body["status"] == status
    assert body["code"] == code
    assert body["detail"]
    assert body["hint"], "what to do about it"
    return body
