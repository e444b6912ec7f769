"""The database: one writer's and one reader's transaction, and the schema brought up to date."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import func

from api.queue import Doorbell, send_collected
from api.services import tallies
from api.settings import Settings
from api.writers import BUSY_TIMEOUT_MS, READ_ONLY, begin, take_turns
from engine.errors import InputError

# Together more than the api's threads (40) and the sessions that its requests hold between them (16): nobody waits for a connection.
POOL_KEPT, POOL_MORE = 10, 48
POOL_WAIT_S = 10.0
MIN_IDLE_S = 10.0
# What is raised where the database is locked for long or away, or no connection to it comes free: nothing is wrong with the question.
UNANSWERED = (OperationalError, NoConnection)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Database:
    """Sessions on one database. Messages that a writing session collects leave through ``doorbell`` after its commit."""

    engine: Engine
    doorbell: Doorbell

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction, committed at the end; nothing is kept and no message leaves when the body raises."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session
            tallies.write(session)
            session.commit()
            send_collected(session, self.doorbell)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: on SQLite it neither waits for writers nor makes them wait."""
        with Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={READ_ONLY: True})
            yield session

    def close(self) -> None:
        """Close all connections; the doorbell is closed too."""
        self.doorbell.close()
        self.engine.dispose()


def open_database(settings: Settings, *, pooled: bool = True) -> Database:
    """Open the database of the settings; ``pooled=False`` keeps no connection between transactions (safe beside ``fork``)."""
    return Database(make_engine(settings, pooled=pooled), Doorbell(settings))


def make_engine(settings: Settings, *, pooled: bool = True) -> Engine:
    """Return the SQLAlchemy engine: Postgres as it is, SQLite with write-ahead log and honest transactions."""
    url = make_url(settings.database)
    kept = {"pool_size": POOL_KEPT, "max_overflow": POOL_MORE, "pool_timeout": POOL_WAIT_S}
    pool: dict[str, Any] = kept if pooled else {"poolclass": NullPool}
    if url.get_backend_name() != "sqlite":
        # The encoding: a database made without one (SQL_ASCII) would hand bytes where text is expected.
        arguments = {"connect_timeout": 5, "client_encoding": "utf8"}
        engine = create_engine(url, pool_pre_ping=pooled, connect_args=arguments, **pool)
        event.listen(engine, "connect", partial(_prepare_postgres, idle_s=max(MIN_IDLE_S, settings.lease_s)))
        return engine
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    if pooled:
        take_turns(engine)
    else:  # a lock that another thread held at a fork would stay shut
        event.listen(engine, "begin", begin)
    return engine


def _prepare_postgres(connection: Any, _record: Any, idle_s: float) -> None:
    # A worker that is stopped, or cut off, in the middle of a transaction would keep its job's row locked, and the job for ever.
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {int(idle_s * 1000)}")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # None hands BEGIN to us: Python's own late BEGIN lets two readers both decide to write, and one then fails.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def now(session: Session) -> datetime:
    """Return the time all leases are measured by: the database server's clock where there is one, else this machine's; UTC."""
    if session.get_bind().dialect.name == "postgresql":
        moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)
    return datetime.now(UTC)


def migrate(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to a revision, up or down: ``base`` drops all, ``-1`` is a step back. Processes wait for each other."""
    engine, config = make_engine(settings, pooled=False), _migrations()
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            move = command.downgrade if revision == "base" or revision.startswith("-") else command.upgrade
            move(config, revision)
    finally:
        engine.dispose()


def check_schema(db: Database) -> None:
    """Raise ``InputError`` where the tables are not there, or older than this version needs.

    Tables of a later version are let be: what is replaced machine by machine has to go on until its turn. A database that does not
    answer is not judged: whoever asks waits for it anyway.
    """
    try:
        with db.reading() as session:
            found = MigrationContext.configure(session.connection()).get_current_revision()
    except UNANSWERED as error:
        log.warning("the database does not answer: %s", error)
        return
    needed = ScriptDirectory.from_config(_migrations())
    known = {each.revision for each in needed.walk_revisions()}
    if found == needed.get_current_head() or (found is not None and found not in known):
        return
    where = db.engine.url.render_as_string(hide_password=True)
    detail = f"{where} is at revision {found or 'none'}, and this version needs {needed.get_current_head()}"
    hint = "Run `splatworks migrate` with the same settings once, then start this again."
    raise InputError("input.schema", "The database is not up to date", detail, hint)


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent.parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
