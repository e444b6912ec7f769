"""The service on this machine that a command talks to when it names no server."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cli import address
from cli.process import Child
from engine.errors import CapacityError

START_S = 120.0
END_S = 40.0
TICK_S = 0.1


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[str]:
    """Yield the URL of the service on ``data_dir``: the one that runs, or one that is started now and ended after."""
    found = address.read(data_dir)
    if found is not None and _answers(found.url):
        yield found.url
        return
    with _temporary(data_dir) as url:
        yield url


def find(data_dir: Path) -> str:
    """Return the URL of the service that runs on ``data_dir``; ``CapacityError`` when none does."""
    found = address.read(data_dir)
    if found is None or not _answers(found.url):
        detail = f"no splatworks serve runs on {data_dir}"
        raise CapacityError("capacity.not_running", "Not running", detail, "Start `splatworks serve`, or name a server with --server URL.")
    return found.url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@dataclass
class _Log:
    """The lines of a service that nobody watches; the last few are shown when it does not start."""

    path: Path
    lines: list[str] = field(default_factory=list)

    def write(self, _name: str, line: str) -> None:
        """Append one line to the file."""
        self.lines.append(line)
        del self.lines[:-200]
        with self.path.open("a") as handle:
            handle.write(f"{line}\n")


@contextlib.contextmanager
def _temporary(data_dir: Path) -> Iterator[str]:
    data_dir.mkdir(parents=True, exist_ok=True)
    log = _Log(data_dir / "serve.log")
    command = [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(data_dir)]
    child = Child("serve", command, dict(os.environ))
    child.start(log.write)
    try:
        yield _wait(child, data_dir, log)
    finally:
        child.ask_to_stop()
        child.end(time.monotonic() + END_S)


def _wait(child: Child, data_dir: Path, log: _Log) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.is_running():
        found = address.read(data_dir)
        if found is not None and found.pid == child.pid:
            return found.url
        time.sleep(TICK_S)
    tail = "\n".join(log.lines[-12:])
    raise CapacityError(
        "capacity.cannot_start", "The local service did not start", tail or "it said nothing", f"The whole log is {log.path}."
    )
