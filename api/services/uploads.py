"""Resumable uploads: who may write one, how much of it is safe, and what becomes of it at the last byte.

An upload is ``open``, then ``done`` (it is a photo), ``refused`` (its ``error`` says why), ``terminated`` or ``expired``. Each
request that takes it over raises ``fence``; the one before sees that, saves and lets go. Only who holds the lock of the file
(``spool``) writes the file or the offset. ``offset`` bytes are on the disk, whatever dies.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from api.db import Database, now
from api.errors import Conflict, Gone, Locked, NotFound
from api.models import Upload, new_id
from api.services import captures, intake, keeping, photos, tallies
from api.services.inspect import PhotoLimits
from api.services.intake import OPEN
from api.services.spool import Spool, spool_path
from api.settings import Settings
from api.storage import Storage
from engine.errors import InputError, SplatError
from engine.workspace import hash_file

GONE = ("terminated", "expired")
KEPT_DAYS = 30


@dataclass(frozen=True)
class Announced:
    """A file that is to come: into which capture, how long, what the client calls it; ``given`` is its metadata as it came.

    ``sha256`` is what the client says of its content, if it does; ``key_id`` whose share it uses.
    """

    capture_id: str
    name: str
    length: int
    given: str = ""
    sha256: str | None = None
    key_id: str | None = None


@dataclass(frozen=True)
class Ground:
    """What finishing an upload needs."""

    settings: Settings
    db: Database
    storage: Storage

    @property
    def limits(self) -> PhotoLimits:
        """What a photo must be."""
        return PhotoLimits(self.settings.min_side_px, self.settings.max_megapixels, self.settings.max_file_bytes)


@dataclass
class Held:
    """An open upload that this request alone may write: ``offset`` bytes of it are safe."""

    row: Upload
    fence: int
    spool: Spool
    offset: int


def create(session: Session, settings: Settings, wanted: Announced, parts: dict[str, int] | None = None) -> Upload:
    """Make an upload and reserve its room; ``TooLarge`` or ``NoSpace`` when it would not fit, before any byte is sent.

    ``parts`` is how it is cut when it comes in parts.
    """
    intake.check_file(settings, wanted.name, wanted.length)
    capture = captures.get(session, wanted.capture_id, lock=True)
    # Whose capture it is pays, as for the photo that comes of it.
    intake.check_capture(session, settings, capture.id, intake.Load(1, wanted.length, capture.key_id))
    settings.incoming.mkdir(parents=True, exist_ok=True)
    intake.check_disk(settings, wanted.length, intake.reserved_bytes(session))
    moment = now(session)
    row = Upload(
        id=new_id(),
        capture_id=wanted.capture_id,
        key_id=wanted.key_id,
        name=wanted.name,
        given=wanted.given,
        sha256=wanted.sha256,
        state=OPEN,
        length=wanted.length,
        offset=0,
        parts=parts,
        created_at=moment,
        expires_at=moment + timedelta(seconds=settings.upload_ttl_s),
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, upload_id: str, *, lock: bool = False) -> Upload:
    """Return an upload in whatever state, its row locked on request; ``NotFound`` when there is none."""
    query = select(Upload).where(Upload.id == upload_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound.named("upload", upload_id)
    return row


def check_there(row: Upload) -> None:
    """Raise ``Gone`` for an upload that was ended without a photo."""
    if row.state in GONE:
        why = "was not finished in time" if row.state == "expired" else "was ended"
        raise Gone("gone.upload", "Upload gone", f"the upload {row.id} {why}", "Begin a new one.")


def check_offset(row: Upload, offset: int, said: int) -> None:
    """Raise ``Conflict`` when a client would go on elsewhere than where the upload is."""
    if said != offset:
        raise Conflict(
            "conflict.upload_offset",
            "Other offset",
            f"the upload has {offset} of {row.length} bytes, the request begins at {said}",
            "Ask HEAD where to go on.",
            {"offset": offset},
        )


def take(session: Session, upload_id: str) -> Upload:
    """Take an open upload over from whoever writes it and return its row; one that has ended is returned as it is."""
    session.execute(update(Upload).where(Upload.id == upload_id, Upload.state == OPEN).values(fence=Upload.fence + 1))
    row = get(session, upload_id)
    check_there(row)
    return row


def is_mine(session: Session, held: Held) -> bool:
    """Tell whether no newer request has taken the upload over, and nobody ended it."""
    row = session.execute(select(Upload.fence, Upload.state).where(Upload.id == held.row.id)).one_or_none()
    return row is not None and row.fence == held.fence and row.state == OPEN


def taken_over(upload_id: str) -> Locked:
    """Return the error of a request whose upload a newer one has taken."""
    return Locked(
        "conflict.upload_taken_over",
        "Upload taken over",
        f"a newer request has taken over the upload {upload_id}",
        "Ask HEAD where to go on; what had arrived is kept.",
    )


def settle(db: Database, settings: Settings, held: Held) -> None:
    """Make file and row agree after whatever ended the writer before: what lies on the disk counts, never more than that.

    Bytes whose checksum was never proven go. Raises ``Locked`` when a newer request has taken the upload over.
    """
    known = held.row.offset
    if held.spool.is_unproven:
        held.spool.cut(min(known, held.spool.size_bytes))
    if held.spool.size_bytes > held.row.length:
        held.spool.cut(held.row.length)
    held.offset = known
    if held.spool.size_bytes != known and not save(db, settings, held):
        raise taken_over(held.row.id)
    held.spool.unmark()


def save(db: Database, settings: Settings, held: Held) -> bool:
    """Make what the file holds durable, then say so in the row; return whether the upload is still this request's.

    When the disk cannot make it durable, the file goes back to what is known to be.
    """
    try:
        held.spool.flush()
    except OSError:
        held.spool.cut(held.offset)
        raise
    size_bytes = held.spool.size_bytes
    with db.writing() as session:
        row = get(session, held.row.id, lock=True)
        if row.state != OPEN or row.fence != held.fence:
            return False
        row.offset = size_bytes
        row.expires_at = now(session) + timedelta(seconds=settings.upload_ttl_s)
        tallies.add(session, "upload_bytes_total", max(0, size_bytes - held.offset))
    held.row, held.offset = row, size_bytes
    return True


def finish(ground: Ground, held: Held) -> Upload:
    """Make a whole upload a photo of its capture, or refuse it by name; return its row, which says which.

    Done again when it breaks off anywhere: the file goes only after the commit.
    """
    received = photos.Received(held.row.name, held.spool.path, held.offset, hash_file(held.spool.path), None)
    if held.row.sha256 not in (None, received.sha256):
        received = photos.Received(held.row.name, held.spool.path, held.offset, received.sha256, other_content(held.row))
    examined = photos.examine([received], ground.limits)
    try:
        with keeping.kept(ground.storage, held.row.capture_id, examined) as kept:
            with ground.db.writing() as session:
                row, added = _accept(session, ground.settings, held.row.id, kept.examined)
            kept.settle(added)
    except SplatError as error:
        if not intake.is_refusal(error):
            raise
        with ground.db.writing() as session:
            row = _refuse(session, held.row.id, error)
    held.spool.remove()
    return row


def _accept(session: Session, settings: Settings, upload_id: str, examined: list[photos.Examined]) -> tuple[Upload, list[photos.Added]]:
    row = get(session, upload_id)
    capture = captures.get(session, row.capture_id, lock=True)
    session.refresh(row, with_for_update=True)
    check_there(row)
    if row.state != OPEN:
        return row, []
    # First the upload ends, and with it what it had reserved; the photo takes its place.
    _end(session, row, "refused" if examined[0].error else "done")
    session.flush()
    added = photos.add(session, settings, capture, examined)
    (only,) = added
    row.photo_id, row.is_duplicate, row.error = only.photo.id, only.is_duplicate, only.photo.error
    return row, added


def _refuse(session: Session, upload_id: str, error: SplatError) -> Upload:
    row = get(session, upload_id, lock=True)
    if row.state == OPEN:
        _end(session, row, "refused")
        row.error = error.to_dict()
    return row


def _end(session: Session, row: Upload, state: str) -> None:
    row.state, row.finished_at = state, now(session)


def other_content(row: Upload) -> InputError:
    """Return the error of a file whose content is not what its client said it would be."""
    return InputError(
        "input.other_content",
        "Other content",
        f"{row.name[:100]} arrived with another sha256 than the upload named",
        "Upload it again; it was changed or damaged on the way.",
    )


def terminate(session: Session, upload_id: str) -> Upload:
    """End an open upload without a photo; ``Conflict`` when it has become one. Its file goes afterwards."""
    row = get(session, upload_id, lock=True)
    check_there(row)
    if row.state != OPEN:
        raise Conflict(
            "conflict.upload_finished",
            "Upload finished",
            f"the upload {row.id} is {row.state}",
            "What it brought belongs to the capture now; delete that.",
        )
    row.fence += 1
    _end(session, row, "terminated")
    return row


def overdue(session: Session) -> list[Upload]:
    """Return the open uploads whose time is over."""
    return list(session.scalars(select(Upload).where(Upload.state == OPEN, Upload.expires_at < now(session))))


def expire(session: Session, upload_id: str) -> bool:
    """End an open upload whose time is over; return whether it was so still."""
    row = get(session, upload_id, lock=True)
    if row.state != OPEN or row.expires_at >= now(session):
        return False
    row.fence += 1
    _end(session, row, "expired")
    return True


def forget_old(session: Session) -> None:
    """Drop the rows of uploads that ended a month ago."""
    session.execute(delete(Upload).where(Upload.finished_at < now(session) - timedelta(days=KEPT_DAYS)))


def path_of(settings: Settings, upload_id: str) -> Path:
    """Return where the file of an upload lies."""
    return spool_path(settings.incoming, upload_id)
