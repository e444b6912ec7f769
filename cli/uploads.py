"""Files to the server by tus 1.0.0: several at a time, and each goes on where it was when the line or the command broke."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cli.client import Client, OnBytes
from engine.errors import SplatError
from engine.workspace import write_json

AT_A_TIME = 3
PIECE_BYTES = 8 << 20
TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# The server knows another offset, or lets go of a broken request first: its word counts.
ASK_AGAIN = ("conflict.upload_offset", "conflict.upload_busy", "conflict.upload_taken_over", "conflict.upload_finished")
TUS = {"Tus-Resumable": "1.0.0"}
Found = TypeVar("Found")


@dataclass(frozen=True)
class File:
    """A file to send, the name it is sent under, and its SHA-256, which the server checks."""

    path: Path
    name: str
    sha256: str


@dataclass
class Begun:
    """The uploads that were begun and are not over, by what they carry; kept in a file, so that a later command finds them."""

    note: Path
    paths: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def read(cls, note: Path) -> "Begun":
        """Return what an earlier command noted; nothing where there is no note, or none that can be read."""
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(note.read_text())
            if isinstance(said, dict):
                return cls(note, {str(key): str(path) for key, path in said.items()})
        return cls(note)

    def put(self, key: str, path: str | None) -> None:
        """Note where an upload is, or with None that it is over."""
        with self._lock:
            if path is None:
                self.paths.pop(key, None)
            else:
                self.paths[key] = path
            write_json(self.note, self.paths)


def speaks_tus(client: Client) -> bool:
    """Tell whether a server takes uploads that can be gone on with."""
    try:
        return "Tus-Version" in client.ask("OPTIONS", "/v1/uploads", {}).headers
    except SplatError as error:
        if error.retryable:
            raise
        return False


def send_all(client: Client, capture_id: str, files: list[File], begun: Begun, on_bytes: OnBytes) -> list[tuple[str, str]]:
    """Send files into a capture; returns (name, why) of those that were refused. Raises the ``SplatError`` that ended it."""
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        reasons = list(pool.map(lambda file: Sending(client, capture_id, file, begun, on_bytes).run(), files))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C does not wait for files not begun
    return [(file.name, reason) for file, reason in zip(files, reasons, strict=True) if reason]


@dataclass
class Sending:
    """One file on its way."""

    client: Client
    capture_id: str
    file: File
    begun: Begun
    on_bytes: OnBytes
    told: int = 0
    failures: int = 0

    def run(self) -> str:
        """Send the file to its end; returns why it was refused, or nothing."""
        key = f"{self.capture_id} {self.file.name} {self.file.sha256}"
        path, offset = self._found(self.begun.paths.get(key))
        if path is None:
            path = patiently(self._create)
            self.begun.put(key, path)
        size = self.file.path.stat().st_size
        while offset < size:
            offset = self._send_on(path, offset)
        self._tell(size)
        upload = patiently(lambda: self.client.ask("GET", path, {}).json())
        self.begun.put(key, None)
        return str(upload["error"]["detail"]) if upload["state"] == "refused" else ""

    def _found(self, path: str | None) -> tuple[str | None, int]:
        """Return an upload that was begun earlier with its offset; None when there is none, or the server knows it no more."""
        if path is None:
            return None, 0
        try:
            offset = patiently(lambda: self._offset(path))
        except SplatError as error:
            if error.retryable:
                raise
            return None, 0
        self._tell(offset)
        return path, offset

    def _create(self) -> str:
        given = {"filename": self.file.name, "capture_id": self.capture_id, "sha256": self.file.sha256}
        metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in given.items())
        headers = {**TUS, "Upload-Length": str(self.file.path.stat().st_size), "Upload-Metadata": metadata}
        return str(self.client.ask("POST", "/v1/uploads", headers).headers["Location"])

    def _offset(self, path: str) -> int:
        return int(self.client.ask("HEAD", path, TUS).headers["Upload-Offset"])

    def _send_on(self, path: str, offset: int) -> int:
        """Send the next piece and return the new offset; after a break the server says how much of it arrived."""
        try:
            offset = self._send_piece(path, offset)
        except SplatError as error:
            if not error.retryable and error.code not in ASK_AGAIN:
                raise
            arrived = patiently(lambda: self._offset(path))
            self.failures = 0 if arrived > offset else self.failures + 1
            if self.failures == TRIES:
                raise
            time.sleep(pause_s(self.failures))
            offset = arrived
        self._tell(offset)
        return offset

    def _send_piece(self, path: str, offset: int) -> int:
        with self.file.path.open("rb") as handle:
            handle.seek(offset)
            piece = handle.read(PIECE_BYTES)
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return int(self.client.ask("PATCH", path, headers, piece).headers["Upload-Offset"])

    def _tell(self, offset: int) -> None:
        self.on_bytes(offset - self.told)
        self.told = offset


def patiently(work: Callable[[], Found]) -> Found:
    """Return what ``work`` returns, tried again for some minutes while the line or the server is down."""
    for attempt in range(TRIES):
        try:
            return work()
        except SplatError as error:
            if not error.retryable or attempt == TRIES - 1:
                raise
        time.sleep(pause_s(attempt))
    raise AssertionError("the loop returns or raises")


def pause_s(attempt: int) -> float:
    """Return how long to wait after so many failures in a row, seconds."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)
