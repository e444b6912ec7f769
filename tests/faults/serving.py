"""``splatworks serve`` in a session of its own, as a user starts it, and everything that lives because of it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 120.0
DEAD_WITHIN_S = 10.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found], timeout_s: float, every_s: float = 0.05) -> Found:
    """Return the first true thing that ``look`` returns. Raises ``TimeoutError`` that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
    return found


@dataclass(frozen=True)
class Process:
    """A living process: its command line, its session, and when it started (seconds of ``time.time``)."""

    pid: int
    session: int
    started_at: float
    line: str


def process_of(folder: Path, boot_at: float) -> Process | None:
    """Return the process of a folder in /proc; None when it is gone, or dead and not yet collected."""
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    # Fields are counted after the name: 0 the state, 3 the session, 19 the start in ticks since the boot (proc(5)).
    return Process(int(folder.name), int(fields[3]), boot_at + int(fields[19]) / TICKS_PER_S, line)


def booted_at() -> float:
    """Return when the machine's clock of process starts began, in seconds of ``time.time``."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def processes_of(needle: str) -> list[Process]:
    """Return every living process that names ``needle`` in its command line, its environment or its working folder."""
    wanted, boot_at, found = needle.encode(), booted_at(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes() + bytes((folder / "cwd").readlink())
        except OSError:  # ended meanwhile, or not ours to look at
            continue
        if wanted in told and int(folder.name) != os.getpid() and (process := process_of(folder, boot_at)):
            found.append(process)
    return found


def living_in(sessions: set[int]) -> list[int]:
    """Return the ids of all living processes in these sessions."""
    found = [process_of(folder, 0.0) for folder in Path("/proc").glob("[0-9]*")]
    return [process.pid for process in found if process is not None and process.session in sessions]


@dataclass
class Serving:
    """One ``serve`` on a data folder, with ``env`` added to its environment; ``kill_everything`` leaves not one process of it."""

    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it has told its address."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPLATWORKS_")}
        command = [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(self.data_dir)]
        with self.data_dir.with_suffix(".log").open("ab") as log:
            env = {**kept, "PYTHONPATH": str(REPOSITORY), **self.env}
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        wait_for("the start of serve", self._is_announced, START_S)

    def _is_announced(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            tail = self.data_dir.with_suffix(".log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"serve ended with {self.process.returncode}: {tail}")
        announced = self._announced()
        return announced is not None and announced["pid"] == self.process.pid

    def _announced(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            announced: dict[str, Any] = json.loads((self.data_dir / "serve.json").read_text())
            return announced
        return None

    def client(self) -> httpx.Client:
        """Return a client of the service as it runs now."""
        announced = self._announced()
        assert announced is not None
        return httpx.Client(base_url=announced["url"], timeout=30.0, trust_env=False)

    def processes(self) -> list[Process]:
        """Return every process that lives because of this service, itself included."""
        return processes_of(str(self.data_dir))

    def engines(self, job_id: str) -> list[Process]:
        """Return the processes that work on a job's stage: the engine's, and all that it started in its session."""
        folder = str(self.data_dir / "work" / job_id)
        leaders = {process.session for process in self.processes() if folder in process.line}
        return [process for process in self.processes() if process.session in leaders]

    def kill_everything(self, chance: random.Random) -> int:
        """Kill -9 every process, in any order, until none is left; return how many were killed. Raises ``TimeoutError``."""
        killed: set[int] = set()

        def none_left() -> bool:
            found = self.processes()
            chance.shuffle(found)
            for process in found:
                killed.add(process.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            return not found

        wait_for("the death of every process", none_left, DEAD_WITHIN_S, 0.01)
        if self.process is not None:
            self.process.wait(DEAD_WITHIN_S)  # a zombie in /proc may have threads that still end
        self.process = None
        return len(killed)

    def stop(self) -> None:
        """End it as a user does, and kill what is left."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(40.0)
        self.kill_everything(random.Random(0))
