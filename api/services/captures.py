"""Captures: sets of photos that jobs run over."""

import unicodedata
from typing import Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, Gone, NotFound
from api.models import Capture, Job, Photo, Upload, new_id
from api.services import intake
from engine.errors import InputError

ACTIVE = ("queued", "running", "cancelling")
MAX_NAME_CHARS = 200


def create(session: Session, name: str, capture_id: str | None = None, key_id: str | None = None) -> Capture:
    """Make an empty capture; what comes into it counts for the key."""
    capture = Capture(id=capture_id or new_id(), name=checked_name(name), key_id=key_id, created_at=now(session))
    session.add(capture)
    session.flush()
    return capture


def checked_name(name: str) -> str:
    """Return a name that people can read; ``InputError`` when it is too long or holds control characters."""
    if len(name) > MAX_NAME_CHARS or any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise InputError(
            "input.invalid_name",
            "Invalid name",
            f"the name must have at most {MAX_NAME_CHARS} characters and no control characters",
            "Choose another name.",
        )
    return name


def get(session: Session, capture_id: str, *, lock: bool = False) -> Capture:
    """Return a capture, its row locked on request; ``NotFound``, or ``Gone`` when it was deleted."""
    query = select(Capture).where(Capture.id == capture_id)
    capture = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if capture is None:
        raise NotFound.named("capture", capture_id)
    if capture.deleted_at is not None:
        raise Gone.named("capture", capture_id)
    return capture


def page(session: Session, limit: int, before: str | None) -> list[Capture]:
    """Return up to ``limit`` captures, newest first, older than the id ``before``."""
    query = select(Capture).where(Capture.deleted_at.is_(None)).order_by(Capture.id.desc()).limit(limit)
    return list(session.scalars(query.where(Capture.id < before) if before else query))


def photos_of(session: Session, capture_id: str) -> list[Photo]:
    """Return all photos of a capture, accepted or not, in the order they came."""
    return list(session.scalars(select(Photo).where(Photo.capture_id == capture_id).order_by(Photo.seq)))


def counts(session: Session, capture_ids: list[str]) -> dict[str, dict[str, int]]:
    """Return ``{capture: {accepted: n, rejected: n, size_bytes: n}}``; what came with photos counts in bytes only."""
    query = select(Photo.capture_id, Photo.state, func.count(), func.sum(Photo.size_bytes)).where(Photo.capture_id.in_(capture_ids))
    found: dict[str, dict[str, Any]] = {each: {"accepted": 0, "rejected": 0, "size_bytes": 0} for each in capture_ids}
    for capture_id, state, n_photos, size_bytes in session.execute(query.group_by(Photo.capture_id, Photo.state)):
        if state in found[capture_id]:
            found[capture_id][state] = n_photos
        if state != "rejected":
            found[capture_id]["size_bytes"] += int(size_bytes)
    return found


def delete(session: Session, capture_id: str) -> None:
    """Delete a capture; its files go when the dispatcher sweeps. ``Conflict`` while a job works on it."""
    capture = get(session, capture_id, lock=True)
    busy = session.scalars(select(Job.id).where(and_(Job.capture_id == capture_id, Job.state.in_(ACTIVE))).limit(1)).first()
    if busy is not None:
        raise Conflict(
            "conflict.capture_in_use",
            "Capture in use",
            f"job {busy} still works on the capture {capture_id}",
            "Cancel the job or wait for it.",
            {"job_id": busy},
        )
    capture.deleted_at = moment = now(session)
    # Whoever still sends sees the fence and stops; the sweeper takes the files.
    open_ones = update(Upload).where(Upload.capture_id == capture_id, Upload.state == intake.OPEN)
    session.execute(open_ones.values(state="terminated", fence=Upload.fence + 1, finished_at=moment))
