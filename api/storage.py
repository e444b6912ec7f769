"""Where photos, logs and assets are kept: a local folder or S3, by key. What is put is durable before ``put`` returns."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.store import LocalStore, from_url

from api.settings import Settings

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Storage:
    """An object store; ``root`` is its folder when it is local."""

    store: Any
    root: Path | None

    def put(self, key: str, source: Path, *, move: bool = False) -> None:
        """Store a file under ``key``, whole or not at all; with ``move`` the source is gone afterwards."""
        if self.root is None:
            obstore.put(self.store, checked(key), source)
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
        with aside.open("wb") as out:
            for chunk in self.read(key):
                out.write(chunk)
        aside.replace(target)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes ``start`` to ``stop`` (exclusive; None for the end) in pieces; ``FileNotFoundError`` for no such key."""
        if stop is not None and stop <= start:
            return
        options = {"range": (start, stop)} if stop is not None else ({"range": {"offset": start}} if start else None)
        for chunk in obstore.get(self.store, checked(key), options=options).stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    def size(self, key: str) -> int:
        """Return an object's size in bytes; ``FileNotFoundError`` when there is none."""
        return cast("int", obstore.head(self.store, checked(key))["size"])

    def delete_prefix(self, prefix: str) -> None:
        """Delete every object whose key lies below ``prefix``."""
        for listed in obstore.list(self.store, prefix=checked(prefix)):
            paths = [entry["path"] for entry in listed]
            if paths:
                obstore.delete(self.store, paths)


def open_storage(settings: Settings) -> Storage:
    """Open the storage of the settings; a local folder is made."""
    url = settings.storage_url or (settings.data_dir.resolve() / "storage").as_uri()
    if not url.startswith("file://"):
        options = settings.storage_options
        # Plain http is refused unless asked for; an endpoint that says http:// asks.
        plain = any(value.startswith("http://") for value in options.values())
        return Storage(from_url(url, config=options or None, client_options={"allow_http": True} if plain else None), None)
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


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
