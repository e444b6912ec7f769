"""What every refusal says of itself."""

import threading

import pytest
from sqlalchemy import text

from api import db as database
from tests.api.conftest import is_problem
from tests.services import until


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("PUT", "/v1/captures", "GET, POST"),
        ("PATCH", "/v1/jobs/0193a0f0-0000-7000-8000-000000000000", "GET, DELETE"),
        ("DELETE", "/", "GET, HEAD"),
        ("BREW", "/healthz", "GET"),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(client, method, address, allowed):
    answer = client.request(method, address)
    is_problem(answer, 405, "http.method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("address", "content", "status"),
    [("/nowhere", b"", 404), ("/v1/captures", b"[" * 100_000, 400), ("/v1/captures", b" " * (2 << 20), 413), ("/v1/jobs", b"{", 400)],
)
def test_what_no_route_of_ours_refuses_says_what_to_do_too(client, address, content, status):
    answer = client.post(address, content=content, headers={"Content-Type": "application/json"})
    is_problem(answer, status, answer.json()["code"])


@pytest.fixture
def one_connection(monkeypatch, installation):
    """An api whose pool holds one connection, for which nobody waits long."""
    for name, value in {"POOL_KEPT": 1, "POOL_MORE": 0, "POOL_WAIT_S": 0.2}.items():
        monkeypatch.setattr(database, name, value)
    with installation.api() as client:
        yield client


def test_no_free_connection_is_a_busy_database_for_routes_and_for_keys(one_connection, db):
    statuses = []

    def hold_the_connection() -> None:
        statuses.append(one_connection.post("/v1/captures").status_code)

    with db.writing() as session:  # another's transaction, which the request in the thread waits for with the api's only connection
        session.execute(text("SELECT 1" if db.engine.dialect.name == "sqlite" else "LOCK TABLE capture IN ACCESS EXCLUSIVE MODE"))
        waits = threading.Thread(target=hold_the_connection)
        waits.start()
        until(lambda: one_connection.get("/v1/jobs").status_code != 200, 5)
        for headers in ({}, {"Authorization": f"Bearer sk_abcdefgh_{'x' * 43}"}):
            answer = one_connection.get("/v1/jobs", headers=headers)
            found = is_problem(answer, 503, "capacity.database")
            assert found["retryable"]
            assert found["hint"]
            assert int(answer.headers["retry-after"]) > 0
    waits.join()
    assert statuses == [201]
    assert one_connection.get("/v1/jobs").status_code == 200
