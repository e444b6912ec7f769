"""Writers of one process take turns at a SQLite file, in the order they came.

SQLite lets one write at a time. Those who wait sleep and look again, for ever longer, so that whoever comes new is faster: under load a few
wait until their time is over. Within a process the next in line is woken instead. Other processes still look for gaps, so there are some.
"""

import sqlite3
import threading
import time
from collections import deque
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

BUSY_TIMEOUT_MS = 10_000
# SQLite's sleep grows to 0.1 s: a process that waits for this one finds a tenth of the time free.
UNBROKEN_S, GAP_S = 0.1, 0.01
READ_ONLY = "splatworks_read_only"  # the execution option of transactions that only read
HELD = "splatworks_turn"


class Turns:
    """Lets one in at a time, in the order they came. Whoever gives the turn back may be another thread than took it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_taken = False
        self._unbroken_since = 0.0

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, timeout_s: float) -> bool:
        """Wait for the turn; tell whether it came in time."""
        with self._guard:
            if not self._is_taken:
                self._is_taken, self._unbroken_since = True, time.monotonic()
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if not mine.acquire(timeout=max(0.0, timeout_s)):
            with self._guard:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    return False  # else it came just now
        self._leave_a_gap()
        return True

    def give(self) -> None:
        """Let the next one in."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def _leave_a_gap(self) -> None:
        if time.monotonic() - self._unbroken_since > UNBROKEN_S:
            time.sleep(GAP_S)
            self._unbroken_since = time.monotonic()


def take_turns(engine: Engine) -> None:
    """Make all writing transactions of an engine on SQLite wait for each other, at most as long as SQLite itself would have them wait."""
    turns = Turns()
    event.listen(engine, "begin", partial(_begin_in_turn, turns))
    event.listen(engine, "checkin", partial(_give_back, turns))


def begin(connection: Connection) -> None:
    """Begin a transaction; one that may write takes SQLite's lock at once, or waits for it."""
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READ_ONLY, False) else "BEGIN IMMEDIATE")


def _begin_in_turn(turns: Turns, connection: Connection) -> None:
    if connection.get_execution_options().get(READ_ONLY, False):
        begin(connection)
        return
    began = time.monotonic()
    info = connection.connection.info
    # Given back with the connection, which ends every transaction, committed or broken; until then a second one has the turn still.
    if not info.get(HELD, False) and not turns.take(BUSY_TIMEOUT_MS / 1000):
        raise OperationalError("BEGIN IMMEDIATE", None, sqlite3.OperationalError("database is locked"))
    info[HELD] = True
    left_ms = BUSY_TIMEOUT_MS - round(1000 * (time.monotonic() - began))
    _set_busy_timeout(connection, max(1, left_ms))
    try:
        begin(connection)
    finally:
        _set_busy_timeout(connection, BUSY_TIMEOUT_MS)


def _set_busy_timeout(connection: Connection, timeout_ms: int) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout={timeout_ms}").close()


def _give_back(turns: Turns, _connection: Any, record: Any) -> None:
    if record.info.pop(HELD, False):
        turns.give()
