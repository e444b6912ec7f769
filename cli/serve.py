"""``splatworks serve``: broker, api, worker and dispatcher on one machine, started, watched and ended together."""

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import httpx

from api.db import open_database
from api.services.keys import check_guarded
from api.settings import Settings
from cli import address, broker, claims, tables
from cli.process import Child
from engine.errors import CapacityError
from kernels._lib import LibraryMissingError, library_path

DRAIN_S = 20.0
BROKER_END_S = 5.0
READY_S = 90.0
TICK_S = 0.1
EARLY_FAILURES = 3
GPU_WORKER = "worker-gpu"
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
    with claims.only_one(settings.data_dir), claims.runtime_folder(settings.data_dir) as runtime, claims.listen(settings) as listener:
        service = Service(settings, listener)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, service.on_signal)
        service.write_line("serve", f"starting; everything is kept in {settings.data_dir}")
        tables.bring_up_to_date(settings)
        _check_key(settings)
        broker_child, broker_url = _broker(settings, runtime)
        try:
            if broker_child is not None:
                broker_child.start(service.write_line)
                broker.wait_until_answers(runtime / "broker.sock")
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
        missing = _missing(service.url)
        ready = not missing
        if ready:
            address.announce(service.settings.data_dir, service.url)
            service.write_line("serve", f"Splatworks is ready at {service.url}")
        else:
            _check_start(tended, give_up_at, missing)


def _check_key(settings: Settings) -> None:
    """Raise ``InputError`` when other machines would reach the service and nobody has a key to it."""
    if settings.keys_required:
        db = open_database(settings)
        try:
            with db.reading() as session:
                check_guarded(session, settings)
        finally:
            db.close()


def _check_start(children: list[Child], give_up_at: float, missing: str) -> None:
    """Raise when the service will not become ready: something ends again and again, or takes too long."""
    for child in children:
        if child.failures >= EARLY_FAILURES and not child.name.startswith(GPU_WORKER):  # without its card the CPU does the work
            detail = f"{child.name} ended {child.failures} times before the service was ready"
            raise CapacityError("capacity.cannot_start", "Cannot start", detail, "Its log lines are above.")
    if time.monotonic() > give_up_at:
        raise CapacityError(
            "capacity.slow_start", "Cannot start", f"not ready after {READY_S:g} s: {missing}", "The log lines above say more."
        )


def _missing(url: str) -> str:
    """Return what the service still waits for, in the api's words; empty when it is ready."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=2.0, trust_env=False)
        return "" if answer.is_success else str(answer.json()["detail"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return f"the api does not answer ({error})"


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
    gpus = _gpus(settings.device)
    host, port = service.listener.getsockname()[:2]
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "SPLATWORKS_DATA_DIR": str(settings.data_dir),
        "SPLATWORKS_BROKER_URL": broker_url,
        "SPLATWORKS_HOST": str(host),
        "SPLATWORKS_PORT": str(port),
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
        # Beside GPU workers it keeps off their cards; without any it trains too, on what the settings say.
        Child("worker", _worker("cpu"), {**env, "SPLATWORKS_DEVICE": "cpu"} if gpus else env),
        *(Child(f"{GPU_WORKER}{gpu}", _worker("gpu"), {**env, **_card(gpu)}) for gpu in gpus),
        Child("dispatcher", [python, "-m", "worker.dispatcher"], env),
    ]


def _card(gpu: str) -> dict[str, str]:
    """Return the environment of a worker that sees one card only, counted as the cards' own tools count them."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu, "SPLATWORKS_DEVICE": "cuda"}


def _gpus(device: str) -> list[str]:
    """Return the cards that get a worker: each visible one, or the one that ``device`` names; none on ``cpu`` or without CUDA kernels."""
    visible = _visible_gpus()
    if device == "auto":
        return visible if _has_cuda_kernels() else []
    if device == "cuda":
        return visible or ["0"]  # asked for: where no card is, the stage says so
    if device.startswith("cuda:"):
        index = int(device.removeprefix("cuda:"))
        return [visible[index] if index < len(visible) else str(index)]
    return []


def _has_cuda_kernels() -> bool:
    try:
        library_path("cuda")
    except LibraryMissingError:
        return False
    return True


def _visible_gpus() -> list[str]:
    """Return the NVIDIA cards as CUDA counts them: all there are, or those that CUDA_VISIBLE_DEVICES leaves."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [card.strip() for card in chosen.split(",") if card.strip() not in ("", "-1")]
    return [str(index) for index, _node in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _worker(queues: str) -> list[str]:
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker", "-c", "1", "-Q", queues]
    return [*celery, "-n", f"{queues.replace(',', '-')}-{os.getpid()}@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
