"""Alembic's entry: runs migrations on the connection that ``api.db.migrate`` brings, inside its transaction."""

from alembic import context
from sqlalchemy import Connection, text

from api.models import Base

LOCK = 7_236_114_205  # any number that nothing else locks by


def run(connection: Connection) -> None:
    """Run on one connection; on Postgres others that migrate wait, on SQLite the transaction itself excludes them."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True, render_as_batch=True)
    context.run_migrations()


run(context.config.attributes["connection"])
