"""Requests that carry a key make their thing once, however often they are sent."""

from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from api.db import now
from api.models import Idempotency
from engine.errors import InputError

KEPT_H = 24


def find(session: Session, key: str, route: str, body_hash: str) -> str | None:
    """Return the id of what an earlier request with this key made; ``InputError`` when that request asked for something else."""
    row = session.get(Idempotency, (key, route))
    if row is None:
        return None
    if row.body_hash != body_hash:
        raise InputError(
            "input.idempotency_key_reused",
            "Idempotency-Key used before",
            f"the key {key!r} came with another request body before",
            "Send a new key with a new request.",
        )
    return row.resource_id


def remember(session: Session, key: str, route: str, body_hash: str, resource_id: str) -> None:
    """Note what a request made; a second writer of the same key fails with ``IntegrityError`` and should ``find`` again."""
    session.add(Idempotency(key=key, route=route, body_hash=body_hash, resource_id=resource_id, created_at=now(session)))
    session.flush()


def forget_old(session: Session) -> None:
    """Drop the keys that are a day old."""
    session.execute(delete(Idempotency).where(Idempotency.created_at < now(session) - timedelta(hours=KEPT_H)))
