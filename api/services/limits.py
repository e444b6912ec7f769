"""What a key's jobs and files may add up to. Asked in the transaction that adds to them, so that two requests cannot both take the last."""

from datetime import timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from api.db import now
from api.errors import TooLarge, TooManyRequests
from api.models import ApiKey, Asset, Capture, Job, Photo, Upload
from api.services import keys
from api.services.keys import Quotas

DAY = timedelta(days=1)
ASK_AGAIN_S = 60.0
UNFINISHED = ("queued", "running", "cancelling")


def check_jobs(session: Session, key_id: str | None) -> None:
    """Raise ``TooManyRequests`` when a key's share of jobs is used up; call it with the capture locked."""
    quotas = _quotas(session, key_id)
    if key_id is None or (quotas.active_jobs is None and quotas.jobs_per_day is None):
        return
    _lock(session, key_id)
    if quotas.active_jobs is not None:
        active = _count(session, Job.key_id == key_id, Job.state.in_(UNFINISHED), Job.deleted_at.is_(None))
        if active >= quotas.active_jobs:
            raise _used_up("quota.active_jobs", f"{active} jobs of this key are under way; it may have {quotas.active_jobs}", ASK_AGAIN_S)
    if quotas.jobs_per_day is not None:
        _check_day(session, key_id, quotas.jobs_per_day)


def _check_day(session: Session, key_id: str, allowed: int) -> None:
    moment = now(session)
    # Deleting a job does not give its place back.
    started = _count(session, Job.key_id == key_id, Job.created_at > moment - DAY)
    if started < allowed:
        return
    # There is room again once so many of the day's jobs are a day old that fewer than allowed are left.
    newest = select(Job.created_at).where(Job.key_id == key_id).order_by(Job.created_at.desc())
    leaves = session.scalar(newest.offset(allowed - 1).limit(1)) if allowed else None
    wait_s = (leaves + DAY - moment).total_seconds() if leaves else DAY.total_seconds()
    raise _used_up("quota.jobs_per_day", f"this key started {started} jobs within a day; it may start {allowed}", wait_s)


def check_storage(session: Session, key_id: str | None, more_bytes: int) -> None:
    """Raise ``TooLarge`` when so many more bytes would exceed the storage of a capture's key; call it with the capture locked."""
    allowed = _quotas(session, key_id).storage_bytes
    if key_id is None or allowed is None or more_bytes <= 0:
        return
    _lock(session, key_id)
    used = used_bytes(session, key_id)
    if used + more_bytes > allowed:
        raise TooLarge(
            "quota.storage_bytes",
            "Storage used up",
            f"this key holds {used} bytes and may hold {allowed}; {more_bytes} more do not fit",
            "Delete captures or jobs that are no longer needed, or ask for a larger share.",
            {"used_bytes": used, "allowed_bytes": allowed},
        )


def used_bytes(session: Session, key_id: str) -> int:
    """Return the bytes that the photos and open uploads (their whole length) of a key's captures and the assets of its jobs take."""
    photos = select(func.sum(Photo.size_bytes)).join(Capture, Capture.id == Photo.capture_id)
    uploads = select(func.sum(Upload.length)).join(Capture, Capture.id == Upload.capture_id)
    assets = select(func.sum(Asset.size_bytes)).join(Job, Job.id == Asset.job_id)
    sums = (
        photos.where(Capture.key_id == key_id, Capture.deleted_at.is_(None), Photo.state != "rejected"),
        uploads.where(Capture.key_id == key_id, Upload.state == "open"),
        assets.where(Job.key_id == key_id, Job.deleted_at.is_(None)),
    )
    return sum(int(session.scalar(each) or 0) for each in sums)


def _quotas(session: Session, key_id: str | None) -> Quotas:
    row = session.get(ApiKey, key_id) if key_id is not None else None
    return keys.quotas_of(row) if row is not None else Quotas()


def _lock(session: Session, key_id: str) -> None:
    """Let other transactions that ask for this key's share wait for the end of this one (SQLite has one writer anyway)."""
    session.execute(select(ApiKey.id).where(ApiKey.id == key_id).with_for_update())


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(Job).where(*conditions)) or 0


def _used_up(code: str, detail: str, retry_after_s: float) -> TooManyRequests:
    hint = "Come again when some have ended, or ask for a larger share."
    return TooManyRequests(code, "Share used up", detail, hint, {"retry_after_s": retry_after_s})
