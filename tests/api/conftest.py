"""The api over a real socket, on each stack; and sessions on its database."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.db import Database, open_database
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


def is_problem(answer: httpx.Response, status: int, code: str) -> dict:
    """Check that an answer is a whole RFC 9457 problem and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) >= {"type", "title", "status", "detail", "instance", "code", "hint", "retryable", "errors"}
    assert body["status"] == status
    assert body["code"] == code
    assert body["detail"]
    return body
