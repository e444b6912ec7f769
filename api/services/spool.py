"""The file that an upload under way grows in, and the lock that lets one request at a time write it.

The lock is the kernel's (``flock``): it holds between threads and processes alike and goes with whoever dies. While a piece is
written whose checksum is not proven yet, a mark lies beside the file: whoever finds it throws away what the table does not know.
"""

import fcntl
import os
import threading
from pathlib import Path

from engine.workspace import flush

SUFFIX = ".upload"
MARK = ".unproven"


class Spool:
    """One upload's file, open and locked.

    Closing waits for a write that another thread is in the middle of: the number of a closed file soon means another one.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._open_handle: int | None = handle
        self._mark = path.with_suffix(MARK)
        self._turn = threading.Lock()

    @property
    def _handle(self) -> int:
        if self._open_handle is None:
            raise ValueError(f"{self.path.name} is closed")
        return self._open_handle

    @property
    def size_bytes(self) -> int:
        """Bytes that lie in the file."""
        return os.fstat(self._handle).st_size

    def append(self, block: bytes) -> None:
        """Write behind what is there; after ``OSError`` (a full disk) the part that fitted is in the file."""
        view = memoryview(block)
        with self._turn:
            while view:
                view = view[os.write(self._handle, view) :]

    def flush(self) -> None:
        """Wait until everything written is on the disk."""
        with self._turn:
            os.fsync(self._handle)

    def cut(self, size_bytes: int) -> None:
        """Throw away what lies behind ``size_bytes``."""
        with self._turn:
            os.ftruncate(self._handle, size_bytes)

    def mark_unproven(self) -> None:
        """Say, so that it outlives this process, that what is written from now on may have to go."""
        os.close(os.open(self._mark, os.O_CREAT | os.O_WRONLY, 0o600))
        flush(self.path.parent)

    def unmark(self) -> None:
        """Say that all that is in the file may stay."""
        self._mark.unlink(missing_ok=True)

    @property
    def is_unproven(self) -> bool:
        """Tell whether a piece broke off before its checksum was proven."""
        return self._mark.exists()

    def remove(self) -> None:
        """Remove the file; it stays open and locked until ``close``."""
        self.path.unlink(missing_ok=True)
        self.unmark()

    def close(self) -> None:
        """Let go of the lock."""
        with self._turn:
            if self._open_handle is not None:
                os.close(self._open_handle)
                self._open_handle = None


def spool_path(folder: Path, upload_id: str) -> Path:
    """Return where the file of an upload lies."""
    return folder / f"{upload_id}{SUFFIX}"


def try_open(path: Path) -> Spool | None:
    """Open and lock an upload's file, made if need be; None while somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_still_there(path, handle):
            return Spool(path, handle)
        os.close(handle)  # removed by the one who had it: that lock guards nothing


def _is_still_there(path: Path, handle: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def forget(path: Path) -> bool:
    """Remove an upload's file and its mark unless somebody writes it just now; return whether they are gone."""
    spool = try_open(path)
    if spool is None:
        return False
    spool.remove()
    spool.close()
    return True
