"""One supervised child process: started so that it dies with us, logged line by line, started again when it ends by itself."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from worker import launch

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_AFTER_S = 60.0

WriteLine = Callable[[str, str], None]


@dataclass
class Child:
    """A command that should always be running. ``failures`` counts ends since it last ran steadily."""

    name: str
    command: list[str]
    env: dict[str, str]
    pass_fds: tuple[int, ...] = ()
    failures: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started_at: float = 0.0
    _start_after: float = 0.0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self, write_line: WriteLine) -> None:
        """Start the command in a session of its own. Call from the main thread: Linux ends the child when the calling *thread* ends."""
        launcher = [sys.executable, "-IS", launch.__file__, str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *self.command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which then ends the children in order
            pass_fds=self.pass_fds,
        )
        self._started_at = time.monotonic()
        assert self._process.stdout is not None
        pump = threading.Thread(target=_pump, args=(self.name, self._process.stdout, write_line), daemon=True)
        pump.start()

    def tend(self, write_line: WriteLine) -> None:
        """Start the command if it is not running and its pause is over; note it if it has just ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_after:
                self.start(write_line)
            return
        code = self._process.poll()
        if code is None:
            return
        if now - self._started_at > STEADY_AFTER_S:
            self.failures = 0
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self.failures)
        self.failures += 1
        self._start_after = now + delay_s
        self._kill_group()
        self._process = None
        write_line("serve", f"{self.name} ended {describe_exit(code)}; starting it again in {delay_s:g} s")

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process itself, which knows what to do with its own children."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def end(self, deadline: float) -> bool:
        """Wait until ``deadline`` (monotonic seconds), then kill the whole session. Return whether it ended by itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        self._kill_group()
        self._process.wait()
        self._process = None
        return ended

    def _kill_group(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """Return "with exit status 1" or "by signal 9 (SIGKILL)"."""
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit status {code}"


def _pump(name: str, stream: IO[bytes], write_line: WriteLine) -> None:
    with stream:
        for line in stream:
            write_line(name, line.decode(errors="replace").rstrip())
