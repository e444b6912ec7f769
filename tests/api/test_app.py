"""What holds for every route: problems, ids, who may ask; and the committed description."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from api.app import create_app, document_text
from api.db import make_engine, migrate
from api.models import Base
from api.settings import Settings
from tests.api.conftest import is_problem
from tests.services import REPOSITORY


def test_unknown_routes_and_methods_are_problems(client):
    is_problem(client.get("/v1/nope"), 404, "http.not_found")
    answer = client.put("/v1/jobs")
    is_problem(answer, 405, "http.method_not_allowed")
    assert answer.headers["allow"]


def test_every_answer_carries_an_id_and_a_problem_the_same_one(client):
    answer = client.get("/v1/nope")
    assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert client.get("/healthz").headers["x-request-id"] != answer.headers["x-request-id"]


def test_an_error_of_ours_is_a_problem_without_its_words(installation, tmp_path):
    # A database without tables: what a forgotten migration looks like.
    installation.settings = installation.settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/empty.db"})
    with installation.api() as client:
        answer = client.get("/v1/jobs")
        body = is_problem(answer, 503, "capacity.database")
        assert "no such table" not in answer.text
        assert body["retryable"]
        assert answer.headers["retry-after"]


def test_a_foreign_host_or_web_page_is_refused(client):
    is_problem(client.get("/v1/jobs", headers={"Host": "evil.example"}), 403, "request.foreign_host")
    is_problem(client.post("/v1/captures", headers={"Origin": "http://evil.example"}), 403, "request.foreign_origin")
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.post("/v1/captures", headers={"Origin": own}).status_code == 201
    assert client.get("/healthz", headers={"Host": "[::1]:8000"}).status_code == 200
    for host in ("", "[", "]:", "localhost:x", "127.0.0.1.evil.example", "@localhost"):
        assert client.get("/healthz", headers={"Host": host}).status_code in (200, 400, 403), host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_listening_for_other_machines_needs_a_word(host, monkeypatch):
    with pytest.raises(ValidationError, match="SPLATWORKS_ALLOW_REMOTE=1"):
        Settings(host=host)
    monkeypatch.setenv("SPLATWORKS_ALLOW_REMOTE", "1")
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.5.5.5"])
def test_listening_on_loopback_needs_none(host):
    assert Settings(host=host).host == host


def test_system_options_and_presets_describe_the_installation(client, installation):
    system = client.get("/v1/system").json()
    assert system["database"] == ("postgresql" if installation.stack.postgres_url else "sqlite")
    assert system["limits"]["max_photos"] == installation.settings.max_photos
    names = [each["name"] for each in client.get("/v1/presets").json()["items"]]
    assert names == ["draft", "standard", "high"]
    schema = client.get("/v1/options").json()
    steps = schema["properties"]["train"]["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["default"]) == ("integer", 1, 3000)
    assert schema["properties"]["compress"]["properties"]["formats"]["items"]["enum"]


def test_readiness_says_what_is_missing(client):
    body = is_problem(client.get("/readyz"), 503, "capacity.not_ready")
    checks = body["data"]["checks"]
    assert (checks["database"], checks["broker"], checks["disk"]) == ("ok", "ok", "ok")
    assert "no worker" in checks["worker"]
    assert client.get("/healthz").json()["status"] == "ok"


def test_the_committed_description_is_that_of_the_code(tmp_path):
    committed = REPOSITORY / "docs" / "openapi.json"
    assert committed.read_text() == document_text(create_app(Settings(data_dir=tmp_path))), "run: python -m api.openapi docs/openapi.json"
    operations = [entry["operationId"] for path in json.loads(committed.read_text())["paths"].values() for entry in path.values()]
    assert len(operations) == len(set(operations)) >= 20


def test_the_api_process_loads_neither_torch_nor_numpy_nor_pillow():
    code = "import sys, api.app; print([m for m in ('torch', 'numpy', 'PIL', 'pycolmap') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_migration_that_names_devices_goes_up_and_down_and_keeps_the_rows(stack, tmp_path):
    settings = Settings(database_url=stack.new_database() or f"sqlite:///{tmp_path}/x.db")
    migrate(settings, "0002")
    engine = make_engine(settings)
    try:
        migrate(settings, "-1")
        with engine.begin() as connection:
            row = "INSERT INTO process (id, kind, host, pid, queues, seen_at) VALUES ('a', 'worker', 'h', 1, 'gpu', '2026-11-20 00:00:00')"
            connection.execute(text(row))
        migrate(settings, "0002")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT queues, device FROM process")).one() == ("gpu", "")
        migrate(settings, "-1")
        with engine.connect() as connection:
            assert "device" not in connection.execute(text("SELECT * FROM process")).mappings().one()
        migrate(settings)
    finally:
        engine.dispose()
    stack.give_back(settings.database_url)


def test_migrations_go_up_and_down_and_make_the_tables_of_the_models(stack, tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect

    settings = Settings(database_url=stack.new_database() or f"sqlite:///{tmp_path}/x.db")
    migrate(settings)
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        migrate(settings, "base")
        with engine.connect() as connection:
            assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
        migrate(settings)
        with engine.connect() as connection:
            assert set(inspect(connection).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    finally:
        engine.dispose()
    stack.give_back(settings.database_url)
