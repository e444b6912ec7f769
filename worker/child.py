"""A stage as a child process: in its own session, killable as a group, its end explained."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from engine.errors import CapacityError, InternalError, SplatError
from worker import launch
from worker.liveness import start_of

LOG_TAIL_BYTES = 8192
READ_BYTES = 65_536
MAX_LINE_BYTES = 4 << 20


class Child:
    """A running command: its lines of standard output, and its death. Standard error goes to ``log``. Start it from the main thread."""

    def __init__(self, command: Sequence[str], log: IO[bytes]) -> None:
        shim = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        self._oom_before = oom_kills()
        # A session of its own makes the child the leader of a group: its own children are killed with it.
        self._process = subprocess.Popen(
            [*shim, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        self._partial = bytearray()
        self.spoke_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def lines(self, tick_s: float) -> Iterator[str | None]:
        """Yield each line as it comes and None every ``tick_s`` of silence; ends when the child has closed its output."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(tick_s):
                    if self._process.poll() is not None:
                        return  # a grandchild may hold the pipe open
                    yield None
                    continue
                data = os.read(self._process.stdout.fileno(), READ_BYTES)
                if not data:
                    return
                self.spoke_at = time.monotonic()
                yield from self._split(data)

    def _split(self, data: bytes) -> Iterator[str]:
        self._partial += data
        *whole, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest[:MAX_LINE_BYTES])
        for line in whole:
            yield line.decode(errors="replace")

    def stop(self, grace_s: float) -> None:
        """Ask the stage to write a checkpoint and end; after ``grace_s`` kill its whole group."""
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the group and collect the child."""
        self._signal_group(signal.SIGKILL)
        self._process.wait()

    def close(self) -> int:
        """Wait for the child's end, kill what it left behind, and return its exit code (negative: the signal)."""
        code = self._process.wait()
        self._signal_group(signal.SIGKILL)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def explain(self, stage: str, code: int) -> SplatError:
        """Return the error of a child that ended with ``code`` without saying why."""
        if code == -signal.SIGKILL:
            if oom_kills() > self._oom_before:
                seen, kind = "the kernel killed it because memory ran out", "capacity.out_of_memory"
            else:
                seen, kind = "it was killed (SIGKILL), as the kernel does when memory runs out", "capacity.killed"
            return CapacityError(kind, "Out of memory", f"{stage}: {seen}", "Take a smaller preset, fewer photos or a larger machine.")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return InternalError(
            "internal.stage_crashed", "A stage broke", f"{stage} ended {how} and gave no reason", "The job's log has more."
        )


def note_group(path: Path, pid: int) -> None:
    """Note which process group works in a folder, for ``kill_left_behind``."""
    path.write_text(f"{pid} {start_of(pid)}")


def kill_left_behind(path: Path) -> None:
    """Kill the group that a lost worker's stage left: its leader died with the worker, but not what the leader had started.

    While a group lives its id is given to no other process. So the group is the one noted when no process has that id, or the one that
    has it (dead but not yet collected, or dying) is the one noted; when another process has it, nothing of the group is left.
    """
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError, PermissionError):
        pid, _, start = path.read_text().partition(" ")
        path.unlink()
        if start_of(int(pid)) in ("", start):
            os.killpg(int(pid), signal.SIGKILL)


def oom_kills() -> int:
    """Return how many processes of this control group the kernel has killed for memory; 0 where that is not told (cgroup v2)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        for line in (Path("/sys/fs/cgroup") / group / "memory.events").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def log_tail(path: Path) -> str:
    """Return the end of a log."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return handle.read().decode(errors="replace").replace("\0", "")
    except FileNotFoundError:
        return ""
