"""The real processes of one installation, each of which may be killed, stopped and started again at any moment."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.services import Broker, Installation, free_port, installed, stack_of, until

FAKE_ENGINE = Path(__file__).parents[2] / "worker" / "fake_engine.py"
STACKS = {"embedded": "embedded", "production": "servers"}
WORKERS = ("worker-1", "worker-2")
DISPATCHERS = ("dispatcher-1", "dispatcher-2")
NAMES = ("api", *WORKERS, *DISPATCHERS)
# Clocks as quick as a slow machine bears; garbage is swept at once, so that what is left over shows.
CLOCKS = {
    "heartbeat_s": 0.4,
    "lease_s": 4.0,
    "stall_s": 5.0,
    "term_grace_s": 1.0,
    "poll_s": 0.2,
    "resend_s": 2.0,
    "sweep_s": 1.0,
    "orphans_s": 1.0,
}
START_S = 1.5
# How often the fake engine misbehaves, and how long a stage of it takes.
MISCHIEF = {"seconds": [0.0, 0.5], "fail": 0.02, "hang": 0.005, "die": 0.01}


@dataclass
class Plant:
    """An installation with its processes by name."""

    installation: Installation
    port: int

    @property
    def url(self) -> str:
        """Where the api answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def broker(self) -> Broker:
        """The broker, which belongs to this plant alone."""
        return self.installation.stack.broker

    def start(self, name: str) -> None:
        """Start a process that does not run."""
        if name == "api":
            command = ("uvicorn", "api.app:create_app", "--factory", "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log")
            self.installation.start(name, *command, "--timeout-graceful-shutdown", "1")
        elif name in WORKERS:
            self.installation.start_worker(name)
        else:
            self.installation.start_dispatcher(name)

    def start_all(self) -> None:
        """Start what does not run, wake what sleeps, and wait until the service says it is ready."""
        with contextlib.suppress(ChildProcessError):
            if self.broker.process.poll() is not None:
                self.broker.start()
        for name in NAMES:
            process = self.installation.processes.get(name)
            if process is not None and process.poll() is None:
                for pid in self.family(name):
                    signal_group(pid, signal.SIGCONT)
                continue
            self.start(name)
        until(self.is_ready, 240, 0.2)

    def is_ready(self) -> bool:
        """Tell whether the api finds everything in order."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def pid(self, name: str) -> int | None:
        """Return the id of a running process."""
        process = self.installation.processes.get(name)
        return process.pid if process is not None and process.poll() is None else None

    def pool(self, worker: str) -> list[int]:
        """Return the processes in which a worker runs its tasks."""
        return children(self.pid(worker))

    def engines(self, worker: str) -> list[int]:
        """Return the stages that a worker runs now."""
        return [engine for child in self.pool(worker) for engine in children(child)]

    def family(self, worker: str) -> list[int]:
        """Return the leaders of a worker's process groups: its own and its stages'."""
        pid = self.pid(worker)
        return [*([pid] if pid else []), *self.engines(worker)]

    def wipe_broker(self) -> None:
        """Remove what a killed broker kept on disk."""
        folder = Path(self.broker.command[self.broker.command.index("--dir") + 1])
        for path in folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)


def measured_slowness() -> float:
    """Return how much longer than on two idle cores a process takes to start here and now, 1 to 10: leases and faults wait for it."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import celery, sqlalchemy, fastapi"], check=True)
    return round(min(10.0, max(1.0, (time.monotonic() - began) / START_S)), 1)


def children(pid: int | None) -> list[int]:
    """Return the child processes of a process; none of one that is gone."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@contextlib.contextmanager
def built(stack_name: str, folder: Path, seed: int, slowness: float, *, is_real: bool = False) -> Iterator[Plant]:
    """Build a plant in an empty folder, nothing running yet but its servers; in the end nothing of it runs."""
    control = folder / "control"
    control.mkdir(parents=True)
    (control / "chaos.json").write_text(json.dumps({"seed": seed, **MISCHIEF}))
    more = {} if is_real else {"engine_command": (sys.executable, str(FAKE_ENGINE), str(control))}
    if is_real:
        more = {"stall_s": 120.0, "term_grace_s": 5.0}
    clocks = {name: seconds * slowness for name, seconds in CLOCKS.items()}
    with stack_of(STACKS[stack_name]) as stack, installed(stack, folder / "data", **{**clocks, **more}) as installation:
        yield Plant(installation, free_port())
