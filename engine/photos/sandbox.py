"""Work on strangers' files in children: one that crashes its decoder, or keeps it busy without end, costs itself and nothing else.

Each child is a fork of this process with limits on processor time and memory of its own. It takes one task after another over a pipe, says
how many megapixels the task holds before it decodes them, waits until there is room for them, and sends back the result.
"""

import contextlib
import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar, cast

from engine.errors import CapacityError

Task = TypeVar("Task")
Result = TypeVar("Result")
Ask = Callable[[float], None]

# A crash may be chance (memory ran out elsewhere): a task gets so many tries, the last ones alone decide.
TRIES = 2
_TICK_S = 1.0
_SLOWER = 10.0  # a busy machine gives a child a tenth of a processor at least


@dataclass(frozen=True)
class Limits:
    """What one task may take, and all together: 10^6 pixels at a time, seconds of processor time, and bytes beyond what a fork begins with.

    A photo of 12 megapixels decodes in a tenth of a second to two; what needs ten times as long was made to.
    """

    megapixels_at_a_time: float
    memory_bytes: int
    cpu_s: float = 20.0
    cpu_s_per_megapixel: float = 1.0

    def seconds(self, megapixels: float) -> float:
        """Return the processor time that a task of so many megapixels may take."""
        return self.cpu_s + self.cpu_s_per_megapixel * megapixels


@dataclass(frozen=True)
class Broken:
    """A task without a result: ``too_costly`` when it ran over a limit, else it crashed; ``how`` in words."""

    too_costly: bool
    how: str


class _Child(Generic[Task, Result]):
    """A child process and what it works on."""

    def __init__(self, work: Callable[[Task, Ask], Result], limits: Limits, others: list["_Child[Task, Result]"]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, far = context.Pipe()
        # A fork holds the ends of its elder siblings' pipes as well: unless it closes them nobody's pipe ever ends.
        mine = [self.connection, *(other.connection for other in others)]
        self.process = context.Process(target=_serve, args=(far, mine, work, limits), daemon=True)
        self.process.start()
        far.close()
        self.index: int | None = None
        self.megapixels: float | None = None  # asked for, not yet granted
        self.held = 0.0
        self.overdue_at = float("inf")

    def give(self, index: int, task: Task, seconds: float) -> None:
        """Send a task."""
        self.index, self.megapixels, self.held = index, None, 0.0
        self.overdue_at = time.monotonic() + _SLOWER * seconds
        with contextlib.suppress(BrokenPipeError):  # dead already, as reading from it will show
            self.connection.send(task)

    def grant(self, seconds: float) -> None:
        """Let it decode what it asked to."""
        self.held, self.megapixels = self.megapixels or 0.0, None
        self.overdue_at = time.monotonic() + _SLOWER * seconds
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(True)

    def end(self) -> int:
        """Kill it; return its exit code, a signal as a negative number."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        return self.process.exitcode or 0


def run_all(
    tasks: list[Task],
    work: Callable[[Task, Ask], Result],
    limits: Limits,
    n_children: int,
    on_done: Callable[[int, Result | Broken], None],
    known: Mapping[int, Result] | None = None,
) -> list[Result | Broken]:
    """Return ``work(task, ask)`` of each task, in order, or why there is none; ``on_done(index, result)`` hears of each as it comes.

    ``known`` are results by index that need no work.

    ``work`` calls ``ask(megapixels)`` before it decodes. What it raises as ``OSError`` is raised here: the disk is full, not a file broken.
    Raises ``CapacityError`` capacity.killed when something outside kills a child twice over one task.
    """
    found: dict[int, Result | Broken] = dict(known or {})
    pool = _Pool(tasks, work, limits, [index for index in range(len(tasks)) if index not in found])
    try:
        pool.start(n_children)
        while len(found) < len(tasks):
            for index, result in pool.turn():
                found[index] = result
                on_done(index, result)
    finally:
        for child in pool.children:
            child.end()
    return [found[index] for index in range(len(tasks))]


class _Pool(Generic[Task, Result]):
    """The children and the tasks they have not begun."""

    def __init__(self, tasks: list[Task], work: Callable[[Task, Ask], Result], limits: Limits, left: list[int]) -> None:
        self.tasks, self.work, self.limits = tasks, work, limits
        self.left = deque(left)
        self.tries = [0] * len(tasks)
        self.children: list[_Child[Task, Result]] = []

    def start(self, n_children: int) -> None:
        for _ in range(min(n_children, len(self.left))):
            self._fork()

    def _fork(self) -> None:
        child = _Child(self.work, self.limits, self.children)
        self.children.append(child)
        self._give_next(child)

    def _give_next(self, child: _Child[Task, Result]) -> None:
        child.index, child.held, child.overdue_at = None, 0.0, float("inf")
        if self.left:
            index = self.left.popleft()
            self.tries[index] += 1
            child.give(index, self.tasks[index], self.limits.seconds(0.0))

    def turn(self) -> Iterator[tuple[int, Result | Broken]]:
        """Yield what has come in, or at least look again after a second."""
        busy = {child.connection: child for child in self.children if child.index is not None}
        for connection in wait(list(busy), _TICK_S):
            assert isinstance(connection, Connection)
            child = busy[connection]
            try:
                word, value = child.connection.recv()
            except (EOFError, ConnectionResetError):
                yield from self._replace(child, is_overdue=False)
                continue
            yield from self._heard(child, word, value)
        for child in [each for each in self.children if time.monotonic() > each.overdue_at]:
            yield from self._replace(child, is_overdue=True)
        self._grant()

    def _heard(
        self, child: _Child[Task, Result], word: str, value: Result | float | OSError | Broken
    ) -> Iterator[tuple[int, Result | Broken]]:
        if word == "ask":
            assert isinstance(value, float)
            child.megapixels = value
            child.overdue_at = float("inf")
        elif word == "error":
            assert isinstance(value, OSError)
            raise value
        else:
            index = child.index
            assert index is not None
            self._give_next(child)
            yield index, cast("Result | Broken", value)

    def _grant(self) -> None:
        held = sum(child.held for child in self.children)
        for child in self.children:
            if child.megapixels is not None and (held == 0.0 or held + child.megapixels <= self.limits.megapixels_at_a_time):
                held += child.megapixels
                child.grant(self.limits.seconds(child.megapixels))

    def _replace(self, child: _Child[Task, Result], *, is_overdue: bool) -> Iterator[tuple[int, Result | Broken]]:
        """Take a child away that died or does not come to an end, and say what that means for its task."""
        index, seconds = child.index, self.limits.seconds(child.held)
        assert index is not None
        self.children.remove(child)
        if not is_overdue:
            child.process.join()  # its own end, not ours, is to be told
        code = child.end()
        broken = Broken(True, f"it takes more than {seconds:.0f} s to decode") if is_overdue else _explain(code, seconds)
        if broken.too_costly or self.tries[index] >= TRIES:
            if code == -signal.SIGKILL and not is_overdue:
                raise CapacityError(
                    "capacity.killed",
                    "Out of memory",
                    f"decoding photo {index + 1} was killed twice, as the kernel does when memory runs out",
                    "Upload smaller photos, or take a larger machine.",
                )
            self._fork()
            yield index, broken
        else:
            self.left.appendleft(index)
            self._fork()


def _explain(code: int, seconds: float) -> Broken:
    if code == -signal.SIGXCPU:
        return Broken(True, f"it takes more than {seconds:.0f} s to decode")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Broken(False, f"its decoder crashed ({how})")


def _serve(connection: Connection, others: list[Connection], work: Callable[[Task, Ask], Result], limits: Limits) -> None:
    """Take tasks until the pipe ends. Runs in the child."""
    for other in others:
        other.close()
    for number in (signal.SIGTERM, signal.SIGINT):  # whoever stops the stage stops its children
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(limits.memory_bytes)

    def ask(megapixels: float) -> None:
        connection.send(("ask", float(megapixels)))
        connection.recv()
        _limit_seconds(limits.seconds(megapixels))

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            _limit_seconds(limits.seconds(0.0))
            try:
                answer: tuple[str, object] = ("done", work(task, ask))
            except OSError as error:
                answer = ("error", error)
            except MemoryError:
                answer = ("done", Broken(True, f"it takes more than {limits.memory_bytes >> 20} MiB to decode"))
            connection.send(answer)


def _limit_seconds(seconds: float) -> None:
    """Have the kernel end this process (SIGXCPU) after so much more processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _limit_memory(more_bytes: int) -> None:
    """Let this process take so many bytes more than it has now; where the system does not tell, there is no limit."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
