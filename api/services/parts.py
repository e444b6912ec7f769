"""Files that clients bring to the object store themselves, in parts, past the api; it signs the addresses and puts them together.

Each part is an object of its own: sent twice it is still one, any store that signs addresses will do, and what arrived is seen in a
listing. (S3's own multipart uploads need addresses that name an upload and a part, which the store's library does not sign.)
"""

from collections.abc import Iterable
from dataclasses import dataclass

from api.errors import Conflict
from api.models import Upload
from api.services.keeping import parts_prefix
from api.services.spool import Spool
from api.settings import Settings
from api.storage import Entry, Storage
from engine.errors import InputError

MAX_PARTS = 1000


@dataclass(frozen=True)
class Part:
    """A part of an upload: number from 1, bytes, the address to PUT it to, the etag of what has arrived, if it has."""

    number: int
    size_bytes: int
    key: str
    etag: str | None


def plan(settings: Settings, storage: Storage, length: int) -> dict[str, int]:
    """Return how a file of so many bytes is cut; ``Conflict`` when the storage is a folder, which takes no parts."""
    if storage.root is not None:
        raise Conflict(
            "conflict.no_parts",
            "No parts here",
            "the files of this installation lie in a folder, which signs no addresses",
            "Leave out mode, and send the file by tus or as a form.",
        )
    part_bytes = max(settings.part_bytes, -(-length // MAX_PARTS))
    return {"part_bytes": part_bytes, "n_parts": max(1, -(-length // part_bytes))}


def parts_of(storage: Storage, row: Upload) -> list[Part]:
    """Return the parts of an open upload and which of them have arrived."""
    assert row.parts is not None
    prefix, part_bytes, n_parts = prefix_of(row), row.parts["part_bytes"], row.parts["n_parts"]
    arrived: dict[str, Entry] = {entry.key: entry for entry in storage.entries(prefix)}
    found = []
    for number in range(1, n_parts + 1):
        key = f"{prefix}/{number}"
        entry = arrived.get(key)
        size_bytes = part_bytes if number < n_parts else row.length - part_bytes * (n_parts - 1)
        is_there = entry is not None and entry.size_bytes == size_bytes
        found.append(Part(number, size_bytes, key, entry.etag if entry is not None and is_there else None))
    return found


def prefix_of(row: Upload) -> str:
    """Return the folder in storage that an upload's parts come into."""
    return f"{parts_prefix(row.capture_id)}/{row.id}"


def check_whole(parts: Iterable[Part], etags: dict[int, str]) -> None:
    """Raise ``Conflict`` when a part has not arrived, ``InputError`` when one is not what the client says it sent."""
    missing = [part.number for part in parts if part.etag is None]
    if missing:
        raise Conflict(
            "conflict.parts_missing",
            "Parts missing",
            f"{len(missing)} parts have not arrived, or not whole; the first is number {missing[0]}",
            "PUT them to their addresses, then complete again.",
            {"missing": missing},
        )
    for part in parts:
        said = etags.get(part.number, "").strip().removeprefix("W/").strip('"')
        if said and said != part.etag:
            raise InputError(
                "input.part_changed",
                "Other part",
                f"part {part.number} is in storage with another etag than the request names",
                "PUT it again, then complete again.",
                {"number": part.number},
            )


def gather(storage: Storage, parts: Iterable[Part], spool: Spool) -> None:
    """Write all parts, in their order, into an empty file. Raises ``Conflict`` when one has gone meanwhile."""
    spool.cut(0)
    for part in parts:
        try:
            for block in storage.read(part.key):
                spool.append(block)
        except FileNotFoundError as error:
            raise Conflict("conflict.parts_missing", "Parts missing", f"part {part.number} has gone", "PUT it again.") from error


def discard(storage: Storage, row: Upload) -> None:
    """Remove the parts of an upload from storage."""
    if row.parts is not None:
        storage.delete_prefix(prefix_of(row))
