"""Migrations up and down on each database, with rows in every table."""

import contextlib
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from api.db import check_schema, make_engine, migrate, open_database
from api.models import Base
from api.settings import Settings
from engine.errors import InputError

REVISIONS = ("0001", "0002", "0003")


@pytest.fixture
def settings(stack, tmp_path):
    found = Settings(database_url=stack.new_database() or f"sqlite:///{tmp_path}/x.db")
    migrate(found)
    yield found
    migrate(found)
    stack.give_back(found.database_url)


@pytest.fixture
def engine(settings):
    made = make_engine(settings, pooled=False)
    yield made
    made.dispose()


def tables_of(connection: sa.Connection) -> list[sa.Table]:
    """The tables as the database has them, parents first."""
    found = sa.MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def value_of(column: sa.Column, connection: sa.Connection) -> object:
    """Something that fits a column."""
    for key in column.foreign_keys:
        return connection.execute(sa.select(key.column)).scalars().first()
    kinds = ((sa.DateTime, datetime(2026, 11, 20, tzinfo=UTC)), (sa.JSON, {"ä": [1]}), (sa.Boolean, True), (sa.Integer, 7), (sa.Float, 1.5))
    return next((value for kind, value in kinds if isinstance(column.type, kind)), f"{column.name}")


def fill(connection: sa.Connection) -> None:
    """Put a row with every column set into each table that has none."""
    for table in tables_of(connection):
        if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0:
            connection.execute(table.insert().values({column.name: value_of(column, connection) for column in table.columns}))


def rows(connection: sa.Connection) -> dict[str, list[dict]]:
    """All that the tables hold."""
    return {table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in tables_of(connection)}


def test_migrations_make_the_tables_of_the_models(settings, engine):
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert {table.name for table in tables_of(connection)} == set(Base.metadata.tables)
    migrate(settings, "base")
    with engine.connect() as connection:
        assert tables_of(connection) == []
    migrate(settings)
    migrate(settings)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


@pytest.mark.parametrize("revision", REVISIONS[1:])
def test_a_step_up_and_down_keeps_every_row_of_before(settings, engine, revision):
    before = REVISIONS[REVISIONS.index(revision) - 1]
    while_at = {}
    migrate(settings, "base")
    migrate(settings, before)
    with engine.begin() as connection:
        fill(connection)
        while_at[before] = rows(connection)
    assert while_at[before]["job"]
    migrate(settings, revision)
    with engine.begin() as connection:
        found = rows(connection)
        for name, old in while_at[before].items():
            assert [{key: row[key] for key in old[0]} for row in found[name]] == old
        fill(connection)
        assert all(rows(connection).values()), "every table, the new ones too, holds a row on the way down"
    migrate(settings, "-1")
    with engine.connect() as connection:
        assert rows(connection) == while_at[before]
    migrate(settings, revision)
    migrate(settings, "base")
    with engine.connect() as connection:
        assert tables_of(connection) == []


def test_the_new_columns_of_old_rows_say_what_held_before(settings, engine):
    migrate(settings, "base")
    migrate(settings, "0001")
    with engine.begin() as connection:
        fill(connection)
    migrate(settings)
    with engine.connect() as connection:
        found = rows(connection)
    assert found["process"][0]["device"] == ""
    (job,) = found["job"]
    assert (job["priority"], job["expires_at"], job["key_id"], job["waits_for"], job["traceparent"]) == (0, None, None, None, None)
    assert found["job_stage"][0]["cache_key"] is None


def test_a_migration_that_fails_half_way_leaves_everything_as_it_was(settings, engine):
    migrate(settings, "base")
    migrate(settings, "0002")
    with engine.begin() as connection:
        fill(connection)
        before = rows(connection)
        connection.exec_driver_sql("CREATE TABLE webhook_delivery (id INTEGER)")  # in the way, late in the step
    with pytest.raises(sa.exc.DBAPIError, match="webhook_delivery"):
        migrate(settings)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_delivery")
        assert rows(connection) == before
    migrate(settings)


@pytest.mark.parametrize("stack", ["servers"], indirect=True)
def test_a_postgres_database_without_an_encoding_keeps_any_name(stack):
    stack._execute("postgres", "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    found = Settings(database_url=stack.postgres_url.format(name="ascii"))
    migrate(found)
    engine = make_engine(found, pooled=False)
    names = sa.table("capture", sa.column("name"))
    with engine.begin() as connection:
        connection.execute(sa.insert(Base.metadata.tables["capture"]).values(id="1", name="Zoë 写真", created_at=datetime.now(UTC)))
        assert connection.scalars(sa.select(names.c.name)).one() == "Zoë 写真"
    engine.dispose()


@pytest.mark.parametrize("revision", ["base", "-1"])
def test_a_process_says_that_the_tables_are_too_old_for_it(settings, revision):
    migrate(settings, revision)
    with (
        contextlib.closing(open_database(settings)) as db,
        pytest.raises(InputError, match=f"this version needs {REVISIONS[-1]}") as caught,
    ):
        check_schema(db)
    assert "splatworks migrate" in caught.value.hint


def test_tables_that_are_new_enough_are_let_be(settings, engine):
    with contextlib.closing(open_database(settings)) as db:
        check_schema(db)
        with engine.begin() as connection:  # as a version to come would leave them
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        check_schema(db)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :head"), {"head": REVISIONS[-1]})


@pytest.mark.parametrize(
    "command",
    [
        ["worker.dispatcher"],
        ["celery", "-A", "worker.app", "worker", "-Q", "cpu", "-c", "1"],
        ["uvicorn", "--factory", "api.app:create_app", "--port", "0"],
    ],
)
def test_no_process_starts_on_tables_that_are_not_there(settings, tmp_path, command):
    migrate(settings, "base")
    variables = {
        "SPLATWORKS_DATABASE_URL": settings.database,
        "SPLATWORKS_DATA_DIR": str(tmp_path),
        "SPLATWORKS_BROKER_URL": "redis://127.0.0.1:9/0",
    }
    ended = subprocess.run(
        [sys.executable, "-m", *command], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert f"is at revision none, and this version needs {REVISIONS[-1]}" in ended.stdout + ended.stderr
