"""A storage and a database whose n-th call fails: before it is done, or done and nobody told."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.db import Database
from api.errors import StorageAway
from api.storage import Storage


@dataclass
class Trouble:
    """Counts calls and lets the ``fails_at``-th fail, once; ``happened`` says at what."""

    fails_at: int
    calls: list[str] = field(default_factory=list)
    happened: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_now(self, what: str) -> bool:
        """Count a call and tell whether it is to fail."""
        with self.lock:
            self.calls.append(what)
            if len(self.calls) != self.fails_at:
                return False
            self.happened = what
            return True


@dataclass(frozen=True)
class NaughtyStorage(Storage):
    """A storage that stops answering before or after it did what was asked."""

    trouble: Trouble = field(default_factory=lambda: Trouble(0))

    def put(self, key: str, *given: Any, **more: Any) -> None:
        """Store, or not."""
        self._around(f"put {key}", lambda: Storage.put(self, key, *given, **more))

    def fetch(self, key: str, *given: Any) -> None:
        """Bring, or not."""
        self._around(f"fetch {key}", lambda: Storage.fetch(self, key, *given))

    def size(self, key: str) -> int:
        """Measure, or not."""
        return self._around(f"size {key}", lambda: Storage.size(self, key))

    def delete(self, key: str) -> None:
        """Delete, or not."""
        self._around(f"delete {key}", lambda: Storage.delete(self, key))

    def delete_prefix(self, prefix: str) -> None:
        """Delete, or not."""
        self._around(f"delete_prefix {prefix}", lambda: Storage.delete_prefix(self, prefix))

    def written(self, prefix: str) -> Iterator[Any]:
        """List, or not."""
        return iter(self._around(f"written {prefix}", lambda: list(Storage.written(self, prefix))))

    def _around(self, what: str, action: Any) -> Any:
        if self.trouble.is_now(f"before {what}"):
            raise OSError(errno.EIO, f"naughty before {what}")
        done = action()
        if self.trouble.is_now(f"after {what}"):
            raise StorageAway("capacity.storage_away", "Storage away", f"naughty after {what}")
        return done


@dataclass(frozen=True)
class NaughtyDatabase(Database):
    """A database whose connection breaks at the beginning of a transaction, before its commit, or after it with nobody told."""

    trouble: Trouble = field(default_factory=lambda: Trouble(0))

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction, or none, or one that nobody knows of."""
        self._break("begin")
        with Database.writing(self) as session:
            yield session
            self._break("commit")
        self._break("committed")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads, or none."""
        self._break("read")
        with Database.reading(self) as session:
            yield session

    def _break(self, what: str) -> None:
        if self.trouble.is_now(what):
            raise OperationalError(f"naughty at {what}", None, Exception("the connection is gone"))
