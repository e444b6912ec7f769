"""Links by which anybody may see one finished splat, without a key, until they expire or are revoked."""

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, Gone, NotFound
from api.models import Asset, Job, Share, new_id
from api.services import assets, jobs

TOKEN_BYTES = 32
# What the viewer asks for; nothing else of the job is behind a link. cameras.json is served without the names of the photos.
VIEWED = ("scene.sog", "cameras.json")
KEPT = timedelta(days=30)


def hash_of(token: str) -> str:
    """Return what is stored of a token; it is long and random, so one round without salt says nothing about it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create(session: Session, job_id: str, lasts: timedelta, key_id: str | None = None) -> tuple[Share, str]:
    """Make a link to a job that has succeeded; returns its row and its token, which is not kept and cannot be shown again."""
    job = jobs.get(session, job_id)
    if job.state != "succeeded":
        detail = f"the job {job_id} is {job.state}"
        raise Conflict("conflict.not_ready", "No result yet", detail, "Wait until its state is succeeded.", {"state": job.state})
    token, moment = secrets.token_urlsafe(TOKEN_BYTES), now(session)
    share = Share(id=new_id(), job_id=job_id, key_id=key_id, sha256=hash_of(token), created_at=moment, expires_at=moment + lasts)
    session.add(share)
    session.flush()
    return share, token


def of_job(session: Session, job_id: str) -> list[Share]:
    """Return a job's links, newest first, those that are over too."""
    jobs.get(session, job_id)
    return list(session.scalars(select(Share).where(Share.job_id == job_id).order_by(Share.id.desc())))


def get(session: Session, job_id: str, share_id: str) -> Share:
    """Return a link of a job; ``NotFound`` when it has none of that id."""
    jobs.get(session, job_id)
    share = session.scalars(select(Share).where(Share.id == share_id, Share.job_id == job_id)).one_or_none()
    if share is None:
        raise NotFound.named("share", share_id)
    return share


def revoke(session: Session, job_id: str, share_id: str) -> None:
    """End a link now; ending it twice is no mistake."""
    share = get(session, job_id, share_id)
    share.revoked_at = share.revoked_at or now(session)
    session.flush()


def opened(session: Session, token: str) -> Share:
    """Return the link that a token opens; ``NotFound``, or ``Gone`` when it has expired, was revoked, or its job was deleted."""
    share = session.scalars(select(Share).where(Share.sha256 == hash_of(token))).one_or_none()
    if share is None:
        raise NotFound("not_found.share", "No such link", "nothing is shared under this link", "Check that all of it was copied.")
    job = session.get_one(Job, share.job_id)
    why = "its splat was deleted" if job.deleted_at else "it was revoked" if share.revoked_at else None
    if why is None and share.expires_at <= now(session):
        why = f"it expired on {share.expires_at:%Y-%m-%d at %H:%M} UTC"
    if why is not None:
        raise Gone("gone.share", "Link no longer valid", f"this link is over: {why}", "Ask whoever gave it to you for a new one.")
    return share


def asset(session: Session, token: str, name: str) -> Asset:
    """Return a file that a token opens; ``NotFound`` for those that the viewer does not need."""
    share = opened(session, token)
    if name not in VIEWED:
        raise NotFound("not_found.asset", "No such asset", f"the link has no file {name[:100]!r}", f"It has: {', '.join(VIEWED)}.")
    return assets.get(session, share.job_id, name)


def forget_old(session: Session) -> None:
    """Remove links that have been over for a month."""
    session.execute(delete(Share).where(Share.expires_at < now(session) - KEPT).execution_options(synchronize_session=False))
