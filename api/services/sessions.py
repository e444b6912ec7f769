"""Browsers that were let in with a key: a page cannot send headers with its event streams and downloads, a cookie goes by itself."""

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Unauthorized
from api.models import KeySession
from api.services import keys
from api.services.keys import Principal


def begin(session: Session, key_id: str, lasts_s: float) -> tuple[KeySession, str]:
    """Let a browser in for a while with a key that was checked, never longer than the key; return the row and the cookie's secret."""
    key, moment = keys.get(session, key_id), now(session)
    latest = moment + timedelta(seconds=lasts_s)
    secret = secrets.token_urlsafe(keys.SECRET_BYTES)
    ends = min(latest, key.expires_at) if key.expires_at else latest
    session.execute(delete(KeySession).where(KeySession.expires_at < moment))
    row = KeySession(sha256=keys.digest(secret), key_id=key_id, created_at=moment, expires_at=ends)
    session.add(row)
    session.flush()
    return row, secret


def find(session: Session, secret: str) -> Principal:
    """Return who a cookie stands for; ``Unauthorized`` when its session or its key has ended.

    The row is found by the hash of 32 random bytes: how long that takes tells nothing about them.
    """
    row = session.get(KeySession, keys.digest(secret))
    moment = now(session)
    if row is None or row.expires_at <= moment:
        raise Unauthorized("auth.session_ended", "Session ended", "the browser's session has ended", "Give the key again.")
    return keys.principal(keys.get(session, row.key_id), moment)


def until(session: Session, secret: str) -> datetime | None:
    """Return when a cookie's session ends, None when there is none."""
    row = session.get(KeySession, keys.digest(secret))
    return row.expires_at if row else None


def end(session: Session, secret: str) -> None:
    """End a browser's session; ending it twice is fine."""
    session.execute(delete(KeySession).where(KeySession.sha256 == keys.digest(secret)))
