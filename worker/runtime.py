"""What a worker's process opens once: settings, database, storage, and the flag that says it should end."""

import mmap
from dataclasses import dataclass, field

from api.db import Database, open_database
from api.settings import Settings
from api.storage import Storage, open_storage
from api.tracing import NoTracer, Tracer, open_tracer


class StopFlag:
    """A flag in memory that a process shares with those it forks; setting it is safe in a signal handler."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Ask all to stop."""
        self._shared[0] = 1

    def is_set(self) -> bool:
        """Tell whether to stop."""
        return self._shared[0] == 1


@dataclass(frozen=True)
class Runtime:
    """What running a stage needs."""

    settings: Settings
    db: Database
    storage: Storage
    stop: StopFlag
    tracer: Tracer = field(default_factory=NoTracer)


def open_runtime(settings: Settings, stop: StopFlag) -> Runtime:
    """Open database and storage; do so after the fork, connections do not survive it."""
    return Runtime(settings, open_database(settings), open_storage(settings), stop, open_tracer(settings, "worker"))
