"""Photos: received files become rows, once per content, under names that are safe as file names."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import now
from api.errors import TooLarge
from api.models import Capture, Photo, new_id
from api.services import intake, videos
from api.services.inspect import PhotoInfo, PhotoLimits, companion_name, inspect_companion, inspect_photo
from api.settings import Settings
from engine.containers import container_of
from engine.errors import InputError, SplatError

MAX_NAME_BYTES = 120
# Names that the first stage passes over (engine.photos.sources): a photo that bears one gets its format's extension behind it.
NOT_TAKEN = ("thumbs.db", "desktop.ini", "transforms_test.json", "transforms_val.json")
FORBIDDEN = re.compile(r'[<>:"|?*%\x00-\x1f\x7f]')


@dataclass(frozen=True)
class Received:
    """A file that has arrived: where it lies, what it was called, its content's hash; ``error`` when it was cut off as too large."""

    name: str
    path: Path
    size_bytes: int
    sha256: str
    error: SplatError | None = None


@dataclass(frozen=True)
class Examined:
    """A received file with what its header says, or why it is refused."""

    received: Received
    name: str
    info: PhotoInfo | None
    error: SplatError | None
    is_companion: bool = False  # a mask or poses: kept with the photos, and none
    storage_key: str | None = None  # where its bytes are, once they are there


def safe_name(name: str) -> str:
    """Return the last part of a client's file name, fit to be a file name anywhere: no path, control or reserved characters."""
    last = re.split(r"[/\\]", name)[-1]
    # Surrogates, private and unassigned characters go: not every file system or database holds them.
    kept = "".join(char for char in unicodedata.normalize("NFC", last) if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    kept = FORBIDDEN.sub("_", kept).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if not dot or len(suffix.encode()) > 10:
        stem, suffix = kept, ""
    room = MAX_NAME_BYTES - len(suffix.encode()) - 1
    stem = stem.encode()[:room].decode(errors="ignore").strip(" .") or "photo"
    return f"{stem}.{suffix}" if suffix else stem


def examine(files: list[Received], limits: PhotoLimits) -> list[Examined]:
    """Read the header of every file."""
    return [_examine(file, limits) for file in files]


def _examine(file: Received, limits: PhotoLimits) -> Examined:
    companion = companion_name(file.name)
    if companion is not None and file.error is None:
        return _examine_companion(file, companion, limits)
    name = safe_name(file.name)
    if file.error is not None:
        return Examined(file, name, None, file.error)
    try:
        info = _inspect(file, name, limits)
    except (InputError, TooLarge) as error:
        return Examined(file, name, None, error)
    if "." not in name or name.casefold() in NOT_TAKEN:
        name = f"{name}.{'jpg' if info.format == 'jpeg' else info.format}"
    return Examined(file, name, info, None)


def _inspect(file: Received, name: str, limits: PhotoLimits) -> PhotoInfo:
    container = container_of(file.path)
    if container is not None:
        return videos.inspect_video(file.path, name, container, limits)
    if file.size_bytes > limits.max_bytes:  # it was let in by a video's name
        raise intake.too_large(name, limits.max_bytes)
    return inspect_photo(file.path, name, limits)


def _examine_companion(file: Received, path: str, limits: PhotoLimits) -> Examined:
    folder, slash, last = path.rpartition("/")
    name = f"{folder}{slash}{safe_name(last)}"
    try:
        return Examined(file, name, inspect_companion(file.path, name, limits), None, is_companion=True)
    except InputError as error:
        return Examined(file, name, None, error)


def check_some(examined: list[Examined]) -> None:
    """Raise ``InputError`` when not one file can be used; its ``errors`` name each."""
    if not examined:
        raise InputError(
            "input.no_files",
            "No files",
            "the upload holds no files",
            "Send photos or a video as multipart/form-data, one part each: curl -F files=@IMG_1.jpg",
        )
    if any(each.error is None for each in examined):
        return
    errors = [{"pointer": f"/files/{n}", "name": each.name, **each.error.to_dict()} for n, each in enumerate(examined) if each.error]
    raise InputError(
        "input.no_usable_photos",
        "No usable photos",
        f"none of the {len(examined)} files can be used; the first: {errors[0]['detail']}",
        str(errors[0]["hint"]),
        {"errors": errors},
    )


@dataclass(frozen=True)
class Added:
    """What became of one file: its row, and whether the same content was there before."""

    photo: Photo
    is_duplicate: bool


def add(session: Session, settings: Settings, capture: Capture, examined: list[Examined]) -> list[Added]:
    """Write the rows of examined files into a locked capture; the same content again gives the row that is there.

    Raises ``TooLarge`` when the capture or its key's share cannot hold them.
    """
    rows = session.scalars(select(Photo).where(Photo.capture_id == capture.id)).all()
    known = {_identity(row.state == "companion", row.name, row.sha256): row for row in rows if row.state != "rejected"}
    _check_room(session, settings, capture, [each for each in examined if each.error or _identity_of(each) not in known])
    names = {row.name.casefold() for row in rows}
    seq = max((row.seq for row in rows), default=0)
    added = []
    for each in examined:
        found = None if each.error else known.get(_identity_of(each))
        if found is not None:
            added.append(Added(found, is_duplicate=True))
            continue
        seq += 1
        # A companion keeps its name, which says whose it is; the last of that name counts.
        photo = _row(session, capture, each, seq, each.name if each.is_companion else free_name(each.name, names))
        names.add(photo.name.casefold())
        if each.error is None:
            known[_identity_of(each)] = photo
        added.append(Added(photo, is_duplicate=False))
    session.flush()
    return added


def _identity_of(each: Examined) -> tuple[str, str]:
    return _identity(each.is_companion, each.name, each.received.sha256)


def _identity(is_companion: bool, name: str, sha256: str) -> tuple[str, str]:
    # Masks may well be equal: they are the same only under the same name.
    return (name if is_companion else "", sha256)


def _check_room(session: Session, settings: Settings, capture: Capture, fresh: list[Examined]) -> None:
    sizes = {_identity_of(each): each.received.size_bytes for each in fresh if each.error is None}
    n_rejected = sum(each.error is not None for each in fresh)
    intake.check_capture(session, settings, capture.id, intake.Load(len(sizes) + n_rejected, sum(sizes.values()), capture.key_id))


def _row(session: Session, capture: Capture, each: Examined, seq: int, name: str) -> Photo:
    values: dict[str, Any] = {"format": None, "width": None, "height": None, "storage_key": None, "error": None}
    if each.info is not None:
        values |= {"format": each.info.format, "width": each.info.width, "height": each.info.height}
    if each.error is None:
        values["storage_key"] = each.storage_key
    else:
        values["error"] = each.error.to_dict()
    photo = Photo(
        id=new_id(),
        capture_id=capture.id,
        seq=seq,
        name=name,
        state="rejected" if each.error else "companion" if each.is_companion else "accepted",
        size_bytes=each.received.size_bytes,
        sha256=each.received.sha256,
        created_at=now(session),
        **values,
    )
    session.add(photo)
    return photo


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, numbered when another photo has it already (also when only the case differs)."""
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if dot else (name, "")
    candidate, n = name, 1
    while candidate.casefold() in taken:
        n += 1
        candidate = f"{stem}-{n}{suffix}"
    return candidate


def accepted(session: Session, capture_id: str, until_seq: int | None = None) -> list[Photo]:
    """Return the usable photos of a capture, up to the sequence number ``until_seq``."""
    query = select(Photo).where(Photo.capture_id == capture_id, Photo.state == "accepted").order_by(Photo.seq)
    return list(session.scalars(query.where(Photo.seq <= until_seq) if until_seq is not None else query))


def rejected(session: Session, capture_id: str, until_seq: int) -> list[Photo]:
    """Return the files of a capture that were refused, up to a sequence number."""
    query = select(Photo).where(Photo.capture_id == capture_id, Photo.state == "rejected", Photo.seq <= until_seq)
    return list(session.scalars(query.order_by(Photo.seq)))


def given(session: Session, capture_id: str, until_seq: int | None = None) -> list[Photo]:
    """Return the usable photos and what came with them, up to a sequence number; of companions of one name only the last."""
    query = select(Photo).where(Photo.capture_id == capture_id, Photo.state.in_(("accepted", "companion"))).order_by(Photo.seq)
    rows = session.scalars(query.where(Photo.seq <= until_seq) if until_seq is not None else query)
    return list({row.name: row for row in rows}.values())
