"""A run of many parts within one limit of time: each a process group with a limit of its own, what it said kept in a file."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CUT_SHORT = 124  # as timeout(1) says it
NOT_STARTED = -1
MISSING = 127
GRACE_S = 3.0


@dataclass(frozen=True)
class Part:
    """One command of the run. It is not started with less than ``least_s`` left, and ended after ``limit_s``."""

    name: str
    title: str
    command: tuple[str, ...]
    limit_s: float
    least_s: float = 5.0
    environment: dict[str, str] = field(default_factory=dict)
    is_needed: bool = False  # a run that did without it is not good


@dataclass(frozen=True)
class Outcome:
    """How a part ended: its exit status; 124 when cut short, -1 when never started, 127 when the program is not there."""

    part: Part
    status: int
    seconds: float
    log: Path

    @property
    def words(self) -> str:
        """The outcome in words."""
        return {0: "ok", CUT_SHORT: "cut short", NOT_STARTED: "no time left", MISSING: f"{self.part.command[0]} is not installed"}.get(
            self.status, f"FAILED ({self.status})"
        )


class Clock:
    """What is left of the time."""

    def __init__(self, total_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + total_s

    def left_s(self) -> float:
        """Return the seconds left; negative when the time is up."""
        return self._end - self._now()


def run_part(part: Part, clock: Clock, logs: Path) -> Outcome:
    """Run a part, within its limit and what is left."""
    log = logs / f"{part.name}.log"
    limit = min(part.limit_s, clock.left_s() - GRACE_S)
    if limit < part.least_s:
        return Outcome(part, NOT_STARTED, 0.0, log)
    if shutil.which(part.command[0]) is None:
        return Outcome(part, MISSING, 0.0, log)
    started = time.monotonic()
    process = start(part, log)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = CUT_SHORT
    finally:
        stop(process)
    return Outcome(part, status, time.monotonic() - started, log)


def start(part: Part, log: Path) -> subprocess.Popen[bytes]:
    """Start a part in a session of its own, so that all it starts can be ended with it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **part.environment}
        return subprocess.Popen(part.command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part's process and all that it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_S / 2)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def last_lines(log: Path, count: int) -> str:
    """Return the end of what a part said."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.is_file() else ""
