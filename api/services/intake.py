"""What may come in: the limits of every way to upload, in one place. How photos look inside is ``inspect``'s to judge.

What is announced is reserved: an open upload's whole length counts for its capture, what it still lacks counts for the disk.
"""

import shutil
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from api.errors import NoSpace, TooLarge
from api.models import Photo, Upload
from api.services import limits, videos
from api.settings import Settings
from engine.errors import SplatError

OPEN = "open"


@dataclass(frozen=True)
class Load:
    """What is to come into a capture: files, their bytes, and the key whose share they use."""

    n_files: int
    size_bytes: int
    key_id: str | None = None


def check_capture(session: Session, settings: Settings, capture_id: str, load: Load) -> None:
    """Raise ``TooLarge`` when a capture, or a key's share, cannot hold so much more; call it with the capture locked."""
    kept = func.sum(Photo.size_bytes).filter(Photo.state != "rejected")
    n_kept, kept_bytes = _sums(session, select(func.max(Photo.seq), kept).where(Photo.capture_id == capture_id))
    waiting = and_(Upload.capture_id == capture_id, Upload.state == OPEN)
    n_open, open_bytes = _sums(session, select(func.count(), func.sum(Upload.length)).where(waiting))
    check_count(settings, n_kept + n_open + load.n_files)
    total = kept_bytes + open_bytes + load.size_bytes
    if total > settings.max_capture_bytes:
        raise TooLarge(
            "input.capture_too_large",
            "Capture too large",
            f"with these the capture would hold {total} bytes; at most {settings.max_capture_bytes} are taken",
            "Take every second photo, or raise the limit.",
        )
    limits.check_storage(session, load.key_id, load.size_bytes)


def check_count(settings: Settings, n_files: int) -> None:
    """Raise ``TooLarge`` when a capture, or one request, would hold so many files."""
    if n_files > settings.max_photos:
        raise TooLarge(
            "input.too_many_photos",
            "Too many photos",
            f"a capture holds at most {settings.max_photos} files",
            "Take every second photo, or raise the limit.",
        )


def check_file(settings: Settings, name: str, size_bytes: int) -> None:
    """Raise ``TooLarge`` when one file is announced, or grows, larger than allowed."""
    if size_bytes > (allowed := allowed_bytes(settings, name)):
        raise too_large(name, allowed)


def allowed_bytes(settings: Settings, name: str) -> int:
    """Return how large a file may be: before its bytes are there, its name says whether it is a photo or a video."""
    return settings.max_video_bytes if videos.is_called_video(name) else settings.max_file_bytes


def too_large(name: str, allowed_bytes: int) -> TooLarge:
    """Return the error of a file of more bytes than allowed."""
    hint = "Upload a smaller version. A video may be larger than a photo where its name ends as a video's does, such as .mp4."
    detail = f"{name[:100]} has more than {allowed_bytes} bytes"
    return TooLarge("input.too_large", "File too large", detail, hint, {"max_bytes": allowed_bytes})


def check_request(settings: Settings, size_bytes: int) -> None:
    """Raise ``TooLarge`` when one request brings more bytes than allowed."""
    if size_bytes > settings.max_request_bytes:
        raise TooLarge(
            "input.request_too_large", "Upload too large", f"one upload may have {settings.max_request_bytes} bytes", "Send it in several."
        )


def check_disk(settings: Settings, size_bytes: int, reserved_bytes: int = 0) -> None:
    """Raise ``NoSpace`` when so many more bytes would bring the free disk below its watermark, what others have reserved left out."""
    free = shutil.disk_usage(settings.incoming).free - reserved_bytes
    if free - size_bytes < settings.min_free_bytes:
        raise NoSpace(
            "capacity.disk",
            "Disk full",
            f"{max(0, free) >> 20} MiB are free, {settings.min_free_bytes >> 20} MiB of them are kept so; "
            f"the upload has {size_bytes >> 20} MiB more",
            "Free some space and send it again; what has arrived of a resumable upload is kept.",
        )


def reserved_bytes(session: Session) -> int:
    """Return the bytes that open uploads still lack."""
    query = select(func.sum(Upload.length - Upload.offset)).where(Upload.state == OPEN, Upload.parts.is_(None))
    return int(session.scalar(query) or 0)


def is_refusal(error: SplatError) -> bool:
    """Tell whether an error is about the file, so that the same file would be refused again."""
    return isinstance(error, TooLarge) or error.family in ("input", "capture")


def _sums(session: Session, query: Select[*tuple[Any, ...]]) -> tuple[int, int]:
    row = session.execute(query).one()
    return int(row[0] or 0), int(row[1] or 0)
