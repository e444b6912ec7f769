"""Where photos, logs and assets are kept: a local folder or S3, by key. What is put is durable before ``put`` returns."""

import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from api.errors import StorageAway
from api.settings import Settings
from engine.workspace import flush

CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 4 << 20
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
# Short, for a request waits: what is away for longer is asked again by the client or, for a job, after a pause.
RETRY = {"max_retries": 4, "retry_timeout": timedelta(seconds=15), "backoff": {"init_backoff": timedelta(seconds=0.1)}}
CONNECT_TIMEOUT = "3s"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str


@dataclass(frozen=True)
class Storage:
    """An object store; ``root`` is its folder when it is local. Every method raises ``StorageAway`` when the store does not answer."""

    store: Any
    root: Path | None

    def put(self, key: str, source: Path, *, move: bool = False) -> None:
        """Store a file under ``key``, whole or not at all; with ``move`` the source is gone afterwards."""
        if self.root is None:
            with answered():
                obstore.put(self.store, checked(key), source, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        else:
            put_local(self.root / checked(key), source, move=move)
        if move:
            source.unlink(missing_ok=True)

    def fetch(self, key: str, target: Path) -> None:
        """Bring an object to a path: a hard link where possible (treat it as read-only), else a copy."""
        target.unlink(missing_ok=True)
        if self.root is not None:
            try:
                os.link(self.root / checked(key), target)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without links
                shutil.copyfile(self.root / key, target)
            return
        aside = target.with_name(f".{target.name}.part")
        try:
            with aside.open("wb") as out:
                out.writelines(self.read(key))
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes ``start`` to ``stop`` (exclusive; None for the end) in pieces.

        Raises at once, not at the first piece: ``FileNotFoundError`` for no such key.
        """
        checked(key)
        if stop is not None and stop <= start:
            return iter(())
        if self.root is not None:
            options = {"range": (start, stop)} if stop is not None else ({"range": {"offset": start}} if start else None)
            return map(bytes, obstore.get(self.store, key, options=options).stream(min_chunk_size=CHUNK_BYTES))
        # A request a block: one for all would run out of time when the reader is slow.
        blocks = self._blocks(key, start, self.size(key) if stop is None else stop)
        return itertools.chain([next(blocks, b"")], blocks)

    def _blocks(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, BLOCK_BYTES):
            with answered():
                block = bytes(obstore.get_range(self.store, key, start=first, end=min(first + BLOCK_BYTES, stop)))
            yield block

    def size(self, key: str) -> int:
        """Return an object's size in bytes; ``FileNotFoundError`` when there is none."""
        with answered():
            return cast("int", obstore.head(self.store, checked(key))["size"])

    def delete_prefix(self, prefix: str) -> None:
        """Delete every object whose key lies below ``prefix``."""
        with answered():
            for listed in obstore.list(self.store, prefix=checked(prefix)):
                paths = [entry["path"] for entry in listed]
                if paths:
                    obstore.delete(self.store, paths)

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens when there is none."""
        with answered(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self.store, checked(key))

    def entries(self, prefix: str) -> Iterator["Entry"]:
        """Yield every object whose key lies below ``prefix``."""
        with answered():
            for listed in obstore.list(self.store, prefix=checked(prefix)):
                for entry in listed:
                    tag = (entry["e_tag"] or "").strip('"')
                    yield Entry(entry["path"], entry["size"], entry["last_modified"], tag)

    def signed_put(self, key: str, lasts_s: float) -> str:
        """Return a URL that takes the bytes of an object by PUT, from whoever has it, for a while; not for a local folder."""
        assert self.root is None
        return cast("str", obstore.sign(self.store, "PUT", checked(key), timedelta(seconds=lasts_s)))

    def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield the key of every object below ``prefix`` and when it was last written."""
        with answered():
            for listed in obstore.list(self.store, prefix=checked(prefix)):
                yield from ((entry["path"], entry["last_modified"]) for entry in listed)

    def check(self) -> None:
        """Ask whether the store answers and its bucket is there; ``StorageAway`` or ``OSError`` when not."""
        with answered():
            next(iter(obstore.list(self.store, prefix="ready")), None)


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn the store's own errors, after its library has tried again, into one that a client and a job may wait out."""
    try:
        yield
    except BaseError as error:
        log.warning("storage: %s", str(error).partition("\n")[0])
        raise StorageAway(
            "capacity.storage", "Storage away", "the storage of the files does not answer", "Try again in a minute; nothing was lost."
        ) from error


def open_storage(settings: Settings) -> Storage:
    """Open the storage of the settings; a local folder is made."""
    url = settings.storage_url or (settings.data_dir.resolve() / "storage").as_uri()
    if not url.startswith("file://"):
        options = settings.storage_options
        # Plain http is refused unless asked for; an endpoint that says http:// asks.
        plain = any(value.startswith("http://") for value in options.values())
        client = {"connect_timeout": CONNECT_TIMEOUT, **({"allow_http": True} if plain else {})}
        return Storage(from_url(url, config=options or None, client_options=client, retry_config=RETRY), None)
    root = Path(url.removeprefix("file://"))
    root.mkdir(parents=True, exist_ok=True)
    return Storage(LocalStore(root, automatic_cleanup=True), root)


def checked(key: str) -> str:
    """Return the key; a key that could leave the store is a programmer's mistake."""
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is no storage key")
    return key


def put_local(target: Path, source: Path, *, move: bool) -> None:
    """Place a file durably: flushed aside, renamed, the folder flushed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = source
    if not move or source.stat().st_dev != target.parent.stat().st_dev:
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        shutil.copyfile(source, aside)
    flush(aside)
    aside.replace(target)
    flush(target.parent)
