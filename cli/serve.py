"""``splatworks serve``: broker, api, worker and dispatcher on one machine, started, watched and ended together."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import httpx
from sqlalchemy.exc import OperationalError

from api.db import migrate
from api.settings import Settings
from cli import address, broker
from cli.process import Child
from engine.errors import CapacityError, InputError

DRAIN_S = 20.0
BROKER_END_S = 5.0
READY_S = 90.0
TICK_S = 0.1
EARLY_FAILURES = 3
LOOPBACK_FOR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass
class Service:
    """The processes of one ``serve``, in the order they start; ``stopping`` is set by a signal."""

    settings: Settings
    listener: socket.socket
    children: list[Child] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    n_signals: int = 0
    _write_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host, port = self.listener.getsockname()[:2]
        host = LOOPBACK_FOR.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def write_line(self, name: str, line: str) -> None:
        """Write one line of a process's log, with time and name in front."""
        stamp = datetime.now(UTC).strftime("%H:%M:%S")
        with self._write_lock:
            sys.stderr.write(f"{stamp} {name:<10} | {line}\n")
            sys.stderr.flush()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Begin to end; a second signal stops waiting for what is under way."""
        self.n_signals += 1
        self.stopping.set()
        del number


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT. Raises ``SplatError`` when it cannot start; leaves no process behind."""
    with _only_one(settings.data_dir), _runtime_folder(settings.data_dir) as runtime, _listen(settings) as listener:
        service = Service(settings, listener)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, service.on_signal)
        broker_child, broker_url = _broker(settings, runtime)
        try:
            if broker_child is not None:
                broker_child.start(service.write_line)
                broker.wait_until_answers(runtime / "broker.sock")
            _migrate(settings)
            service.children = _children(service, broker_url)
            _watch(service, broker_child)
        finally:
            _end(service, broker_child)
            address.forget(settings.data_dir)


def _watch(service: Service, broker_child: Child | None) -> None:
    """Keep everything running; tell the address once the api is ready."""
    tended = [*([broker_child] if broker_child else []), *service.children]
    ready, give_up_at, ask_at = False, time.monotonic() + READY_S, 0.0
    while not service.stopping.wait(TICK_S):
        for child in tended:
            child.tend(service.write_line)
        if ready or time.monotonic() < ask_at:
            continue
        ask_at = time.monotonic() + 3 * TICK_S
        ready = _is_ready(service.url)
        if ready:
            address.announce(service.settings.data_dir, service.url)
            service.write_line("serve", f"Splatworks is ready at {service.url}")
        else:
            _check_start(tended, give_up_at)


def _migrate(settings: Settings) -> None:
    try:
        migrate(settings)
    except OperationalError as error:
        detail = str(error.orig).strip()
        raise CapacityError("capacity.database", "No database", detail, "Is the server of SPLATWORKS_DATABASE_URL running?") from error


def _check_start(children: list[Child], give_up_at: float) -> None:
    """Raise when the service will not become ready: something ends again and again, or takes too long."""
    for child in children:
        if child.failures >= EARLY_FAILURES:
            detail = f"{child.name} ended {child.failures} times before the service was ready"
            raise CapacityError("capacity.cannot_start", "Cannot start", detail, "Its log lines are above.")
    if time.monotonic() > give_up_at:
        raise CapacityError("capacity.slow_start", "Cannot start", f"not ready after {READY_S:g} s", "GET /readyz says what is missing.")


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _end(service: Service, broker_child: Child | None) -> None:
    """End everything within ``DRAIN_S`` + ``BROKER_END_S``: first those that take work, the broker last."""
    if service.children:
        service.write_line("serve", "ending; running stages write a checkpoint (Ctrl-C again: at once)")
    for child in service.children:
        child.ask_to_stop()
    deadline, patience = time.monotonic() + DRAIN_S, service.n_signals + 1
    while any(child.is_running() for child in service.children) and time.monotonic() < deadline and service.n_signals < patience:
        time.sleep(TICK_S / 2)
    for child in service.children:
        if not child.end(time.monotonic()):
            service.write_line("serve", f"{child.name} did not end in time and was killed; its job goes on at the next start")
    if broker_child is not None:
        broker_child.ask_to_stop()
        broker_child.end(time.monotonic() + BROKER_END_S)


def _broker(settings: Settings, runtime: Path) -> tuple[Child | None, str]:
    """Return the broker to run and its URL; nothing to run when the settings name one."""
    if settings.broker_url:
        return None, settings.broker_url
    socket_path = runtime / "broker.sock"
    command = broker.command(broker.find_server(), socket_path, settings.data_dir / "broker")
    return Child("broker", command, dict(os.environ)), broker.url(socket_path)


def _children(service: Service, broker_url: str) -> list[Child]:
    """Return the api, the workers and the dispatcher of this machine."""
    settings, python = service.settings, sys.executable
    gpus = sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    host, port = service.listener.getsockname()[:2]
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "SPLATWORKS_DATA_DIR": str(settings.data_dir),
        "SPLATWORKS_BROKER_URL": broker_url,
        "SPLATWORKS_HOST": str(host),
        "SPLATWORKS_PORT": str(port),
        "SPLATWORKS_TRAIN_QUEUE": "gpu" if gpus else settings.train_queue,
    }
    fd = service.listener.fileno()
    api = [
        python,
        "-m",
        "uvicorn",
        "api.app:create_app",
        "--factory",
        "--fd",
        str(fd),
        "--no-access-log",
        "--timeout-graceful-shutdown",
        "5",
    ]
    return [
        Child("api", api, env, pass_fds=(fd,)),
        # Without a GPU one worker hears both bells, so that no choice of queue leaves a job waiting for nobody.
        Child("worker", _worker("cpu" if gpus else "cpu,gpu"), env),
        *(Child(f"worker-gpu{gpu}", _worker("gpu"), {**env, "CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus),
        Child("dispatcher", [python, "-m", "worker.dispatcher"], env),
    ]


def _worker(queues: str) -> list[str]:
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker", "-c", "1", "-Q", queues]
    return [*celery, "-n", f"{queues.replace(',', '-')}-{os.getpid()}@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder. Raises ``InputError`` when another ``serve`` has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            running = address.read(data_dir)
            where = f" at {running.url} (process {running.pid})" if running else ""
            raise InputError(
                "input.already_running",
                "Already running",
                f"another splatworks serve{where} uses {data_dir}",
                "Use that one, stop it, or choose another --data-dir.",
            ) from error
        yield


@contextlib.contextmanager
def _runtime_folder(data_dir: Path) -> Iterator[Path]:
    """Yield a private folder with a short path for the broker's socket; what a killed ``serve`` left is removed."""
    note = data_dir / "runtime"
    if note.is_symlink():
        shutil.rmtree(note.readlink(), ignore_errors=True)
        note.unlink()
    folder = Path(tempfile.mkdtemp(prefix="splatworks-"))
    note.symlink_to(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    """Yield the api's listening socket: held here, so that a restarted api loses no connection and port 0 is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by the connections; small answers leave at once
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            detail = f"{settings.host}:{settings.port}: {error.strerror}"
            raise InputError("input.cannot_listen", "Cannot listen", detail, "Choose another --port; 0 takes a free one.") from error
        listener.listen(512)
        yield listener
