"""Results of stages kept for later jobs: under which key, where they lie, which may go."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.db import now
from api.models import Capture, Job, Photo, StageCache, new_id
from api.services import standing, tallies
from api.settings import Settings
from engine.keys import photos_key, stage_keys
from engine.options import RunOptions

PREFIX = "cache"


@dataclass(frozen=True)
class Packed:
    """A stage's result that lies in storage, whole."""

    storage_key: str
    sha256: str
    size_bytes: int


def keys(photos: Iterable[Photo], options: RunOptions) -> dict[str, str]:
    """Return the key of each stage of a run over these photos: the one that the engine stamps its result with."""
    files = sorted(((photo.name, photo.sha256) for photo in photos), key=lambda file: PurePosixPath(file[0]))
    return stage_keys(photos_key(files), options)


def find(session: Session, job: Job, stage: str, key: str) -> StageCache | None:
    """Return what is kept of a stage; of those that the job wants run again only what was made since it was asked for."""
    query = select(StageCache).where(StageCache.key == key)
    if standing.is_forced(job, stage):
        query = query.where(StageCache.created_at >= job.created_at)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def note_use(session: Session, entry: StageCache) -> None:
    """Note that an entry was of use, so that it stays."""
    tallies.add(session, "stage_cache_hits_total", stage=entry.stage)
    session.execute(update(StageCache).where(StageCache.key == entry.key).values(used_at=now(session)))


def new_place(key: str) -> str:
    """Return a storage key that nobody else writes to: two workers may make the same result at once."""
    return f"{PREFIX}/{key}/{new_id()}/result.tar"


def record(session: Session, job: Job, stage: str, key: str, packed: Packed) -> str | None:
    """Write that a stage's result lies in storage; returns where an earlier one lay that nobody needs any more."""
    replaced = session.scalars(select(StageCache.storage_key).where(StageCache.key == key).with_for_update()).one_or_none()
    moment = now(session)
    values = {"stage": stage, "capture_id": job.capture_id, **asdict(packed), "created_at": moment, "used_at": moment}
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = dialect.insert(StageCache).values(key=key, **values)
    session.execute(row.on_conflict_do_update(index_elements=["key"], set_=values))
    return replaced


def forget(session: Session, entry: StageCache) -> bool:
    """Drop an entry that is damaged or may go; False when it has been replaced meanwhile."""
    result = session.execute(delete(StageCache).where(StageCache.key == entry.key, StageCache.storage_key == entry.storage_key))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def unwanted(session: Session, settings: Settings) -> list[StageCache]:
    """Return the entries that may go: of deleted captures, unused for too long, and the longest unused of more bytes than allowed."""
    oldest = now(session) - timedelta(days=settings.cache_days)
    gone = or_(Capture.deleted_at.is_not(None), StageCache.used_at < oldest)
    found = list(session.scalars(select(StageCache).join(Capture, Capture.id == StageCache.capture_id).where(gone)))
    total = session.scalar(select(func.coalesce(func.sum(StageCache.size_bytes), 0))) or 0
    surplus = int(total) - sum(entry.size_bytes for entry in found) - settings.cache_bytes
    if surplus <= 0:
        return found
    named = {entry.key for entry in found}
    for entry in session.scalars(select(StageCache).order_by(StageCache.used_at, StageCache.key)):
        if surplus <= 0:
            break
        if entry.key not in named:
            found.append(entry)
            surplus -= entry.size_bytes
    return found


def places(session: Session) -> set[str]:
    """Return the storage keys of all entries."""
    return set(session.scalars(select(StageCache.storage_key)))
