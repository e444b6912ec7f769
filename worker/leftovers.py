"""What uploads leave behind: ones that were never finished, files that nobody writes any more, bytes in storage that no row names."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from api.db import Database
from api.models import Photo, Upload
from api.services import intake, parts, spool, uploads
from api.settings import Settings
from api.storage import Storage

ORPHAN_AGE_S = 86_400.0
ORPHANS_EVERY_S = 6 * 3600.0
BATCH = 500


def sweep(settings: Settings, db: Database, storage: Storage) -> None:
    """Remove what uploads left behind."""
    expire_uploads(settings, db, storage)
    clear_spools(settings, db)
    clear_orphans_now_and_then(settings, db, storage)
    with db.writing() as session:
        uploads.forget_old(session)


def expire_uploads(settings: Settings, db: Database, storage: Storage) -> None:
    """End the uploads whose time is over and remove what came of them; one that somebody writes just now is left for the next round."""
    with db.reading() as session:
        late = uploads.overdue(session)
    for row in late:
        held = spool.try_open(uploads.path_of(settings, row.id))
        if held is None:
            continue
        try:
            with db.writing() as session:
                if not uploads.expire(session, row.id):
                    continue
            parts.discard(storage, row)
            held.remove()
        finally:
            held.close()


def clear_spools(settings: Settings, db: Database) -> None:
    """Remove the files of uploads that are over; of uploads that the table does not know only after a day."""
    unknown_before = time.time() - ORPHAN_AGE_S
    for path in settings.incoming.glob(f"*{spool.SUFFIX}"):
        with db.reading() as session:
            row = session.get(Upload, path.stem)
            is_over = row.state != intake.OPEN if row is not None else modified_s(path) < unknown_before
        if is_over:
            spool.forget(path)


def modified_s(path: Path) -> float:
    """Return when a file was last written, seconds since 1970; now, when it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def clear_orphans(db: Database, storage: Storage, age_s: float = ORPHAN_AGE_S) -> int:
    """Remove bytes in storage that were to become photos and did not, because a request or a process broke; return how many.

    They are a day old: no request puts its bytes there and then takes that long to write the row, and no two share a key.
    """
    oldest = datetime.now(UTC) - timedelta(seconds=age_s)
    n_removed = 0
    for keys in batches(key for key, written_at in storage.written("captures") if written_at < oldest):
        for key in sorted(set(keys) - named(db, keys)):
            storage.delete(key)
            n_removed += 1
    return n_removed


def batches(keys: Iterator[str]) -> Iterator[list[str]]:
    """Yield the keys of photos and of parts, so many at a time that one question to the database can name them."""
    batch: list[str] = []
    for key in keys:
        if key.split("/")[2:3] in (["photos"], ["parts"]):
            batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def named(db: Database, keys: list[str]) -> set[str]:
    """Return those of the keys that a photo or an open upload needs."""
    folders = {key.split("/")[3]: key for key in keys if "/parts/" in key}
    with db.reading() as session:
        needed = set(session.scalars(select(Photo.storage_key).where(Photo.storage_key.in_(keys))))
        opened = set(session.scalars(select(Upload.id).where(Upload.id.in_(folders), Upload.state == intake.OPEN)))
    return {key for key in keys if key in needed or ("/parts/" in key and key.split("/")[3] in opened)}


def clear_orphans_now_and_then(settings: Settings, db: Database, storage: Storage) -> None:
    """Look through the storage a few times a day: with many photos a listing is long. A file remembers when, over restarts."""
    mark = settings.data_dir / "orphans.looked"
    if mark.exists() and time.time() - modified_s(mark) < ORPHANS_EVERY_S:
        return
    mark.touch()
    clear_orphans(db, storage)
