"""The bytes of photos in storage: put there before their rows are written, each under a key of its own.

No two requests share a key, so that what one of them takes back, or the sweeper finds without a row, is never another's.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from api.errors import StorageAway
from api.models import new_id
from api.services.photos import Added, Examined
from api.storage import Storage
from engine.errors import SplatError

log = logging.getLogger(__name__)


@dataclass
class Kept:
    """Examined files, the usable ones with their ``storage_key``; ``used`` are the keys that rows name now."""

    examined: list[Examined] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def settle(self, added: list[Added]) -> list[Added]:
        """Note which keys rows name; call it after the commit."""
        self.used = {each.photo.storage_key for each in added if each.photo.storage_key is not None}
        return added

    @property
    def unused(self) -> list[str]:
        """Keys that no row names."""
        return [each.storage_key for each in self.examined if each.storage_key is not None and each.storage_key not in self.used]


@contextlib.contextmanager
def kept(storage: Storage, capture_id: str, examined: list[Examined]) -> Iterator[Kept]:
    """Put the usable files into storage while the block writes their rows; in the end what no row names is taken out again.

    The received files stay where they are: until the rows are committed they are what a second try is made from. When the block
    ends with an error that is not ours, its commit may have happened all the same: then nothing is removed, and the sweeper does it.
    """
    found = Kept()
    try:
        for each in examined:
            found.examined.append(_placed(storage, capture_id, each))
        yield found
    except SplatError:
        found.used = set()
        withdraw(storage, found.unused)
        raise
    withdraw(storage, found.unused)


def _placed(storage: Storage, capture_id: str, each: Examined) -> Examined:
    if each.error is not None:
        return each
    key = f"{photos_prefix(capture_id)}/{new_id()}"
    put_linked(storage, key, each.received.path)
    return replace(each, storage_key=key)


def put_linked(storage: Storage, key: str, path: Path) -> None:
    """Store a file under ``key`` and leave it where it is: on one file system a second name, else a copy."""
    link = path.with_name(f"{key.rpartition('/')[2]}.part")
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        storage.put(key, path)
        return
    try:
        # The sweeper goes by the age of files without rows: this one is new, also when its last byte came long ago.
        os.utime(link)
        storage.put(key, link, move=True)
    finally:
        link.unlink(missing_ok=True)


def withdraw(storage: Storage, keys: Iterable[str]) -> None:
    """Remove what no row names; what cannot be removed now, the sweeper finds."""
    for key in keys:
        try:
            storage.delete(key)
        except (OSError, StorageAway) as error:
            log.warning("%s is left to the sweeper: %s", key, error)


def photos_prefix(capture_id: str) -> str:
    """Return the folder of a capture's photos in storage."""
    return f"captures/{capture_id}/photos"


def parts_prefix(capture_id: str) -> str:
    """Return the folder of files that clients bring to the storage in parts."""
    return f"captures/{capture_id}/parts"
