"""Endpoints of webhooks, and the outbox: what happens to a job is written for them in the transaction in which it happens."""

import base64
import binascii
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, Gone, NotFound
from api.models import Job, WebhookDelivery, WebhookEndpoint, new_id
from api.settings import Settings
from engine.errors import InputError

# What a state of a job is called outside. Progress is not among them: who wants it follows the events of the job.
TYPE_OF = {"running": "job.started", "succeeded": "job.succeeded", "failed": "job.failed", "cancelled": "job.cancelled"}
TYPES = tuple(TYPE_OF.values())
TEST = "webhook.test"
SECRET_PREFIX = "whsec_"  # noqa: S105 (of Standard Webhooks, not a secret)
SECRET_BYTES = (24, 64)  # Standard Webhooks 1.0
OLD_SECRET_SIGNS = timedelta(days=1)
BY_HAND = "turned off by hand"


@dataclass(frozen=True)
class NewEndpoint:
    """An endpoint to make; ``job_id`` when it wants to hear of one job only, ``types`` empty for all."""

    url: str
    types: tuple[str, ...] = ()
    secret: str | None = None
    job_id: str | None = None
    key_id: str | None = None


def create(session: Session, settings: Settings, wanted: NewEndpoint) -> WebhookEndpoint:
    """Make an endpoint; its address has been checked by ``targets`` before, outside of any transaction."""
    if wanted.job_id is None:
        lasting = WebhookEndpoint.deleted_at.is_(None), WebhookEndpoint.job_id.is_(None)
        if session.execute(select(func.count()).where(*lasting)).scalar_one() >= settings.max_webhook_endpoints:
            detail = f"there are {settings.max_webhook_endpoints} endpoints already, as many as may be"
            raise Conflict("conflict.too_many_endpoints", "Too many endpoints", detail, "Delete one that nobody needs.")
    endpoint = WebhookEndpoint(
        id=new_id(),
        job_id=wanted.job_id,
        key_id=wanted.key_id,
        url=wanted.url,
        secret=checked_secret(wanted.secret) if wanted.secret is not None else new_secret(),
        types=list(dict.fromkeys(wanted.types)),
        created_at=now(session),
    )
    session.add(endpoint)
    session.flush()
    return endpoint


def new_secret() -> str:
    """Return a fresh signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def checked_secret(secret: str) -> str:
    """Return a secret that signatures can be made with; ``InputError`` when it is none of Standard Webhooks."""
    least, most = SECRET_BYTES
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not least <= len(key) <= most:
        detail = f"a secret is {SECRET_PREFIX} and base64 of {least} to {most} bytes"
        raise InputError("input.webhook_secret", "Not a secret for webhooks", detail, "Leave it out and one is made.")
    return secret


def get(session: Session, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """Return an endpoint, its row locked on request; ``NotFound``, or ``Gone`` when it was deleted."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id)
    endpoint = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if endpoint is None:
        raise NotFound.named("webhook_endpoint", endpoint_id)
    if endpoint.deleted_at is not None:
        raise Gone.named("webhook_endpoint", endpoint_id)
    return endpoint


def page(session: Session, limit: int, before: str | None, job_id: str | None = None) -> list[WebhookEndpoint]:
    """Return up to ``limit`` endpoints, newest first, older than the id ``before``; those of one job on request."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.deleted_at.is_(None)).order_by(WebhookEndpoint.id.desc()).limit(limit)
    if before is not None:
        query = query.where(WebhookEndpoint.id < before)
    return list(session.scalars(query.where(WebhookEndpoint.job_id == job_id) if job_id else query))


@dataclass(frozen=True)
class Changes:
    """What is to be different about an endpoint; None leaves it as it is."""

    url: str | None = None
    types: tuple[str, ...] | None = None
    enabled: bool | None = None


def change(session: Session, endpoint_id: str, changes: Changes) -> WebhookEndpoint:
    """Change an endpoint; turned off, it fails what still waits for it."""
    endpoint = get(session, endpoint_id, lock=True)
    if changes.url is not None:
        endpoint.url = changes.url
    if changes.types is not None:
        endpoint.types = list(dict.fromkeys(changes.types))
    if changes.enabled:
        endpoint.disabled_at = endpoint.disabled_why = None
    elif changes.enabled is False and endpoint.disabled_at is None:
        disable(session, endpoint, BY_HAND)
    session.flush()
    return endpoint


def disable(session: Session, endpoint: WebhookEndpoint, why: str) -> None:
    """Send nothing more to an endpoint until somebody enables it; what waits for it has failed and may be sent again then."""
    endpoint.disabled_at, endpoint.disabled_why = now(session), why
    session.flush()
    _fail_waiting(session, endpoint.id, f"not sent: the endpoint is disabled, {why}"[:500])


def delete(session: Session, endpoint_id: str) -> None:
    """Delete an endpoint and forget its secrets; nothing more is sent to it."""
    endpoint = get(session, endpoint_id, lock=True)
    endpoint.deleted_at, endpoint.secret, endpoint.previous_secret = now(session), "", None
    session.flush()
    _fail_waiting(session, endpoint_id, "not sent: the endpoint was deleted")


def _fail_waiting(session: Session, endpoint_id: str, why: str) -> None:
    waiting = WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.state == "pending"
    session.execute(update(WebhookDelivery).where(*waiting).values(state="failed", next_at=None, last_error=why))


def rotate(session: Session, endpoint_id: str) -> WebhookEndpoint:
    """Give an endpoint a new secret; for a day the old one signs too, so that the receiver can change over."""
    endpoint = get(session, endpoint_id, lock=True)
    endpoint.previous_secret, endpoint.previous_until = endpoint.secret, now(session) + OLD_SECRET_SIGNS
    endpoint.secret = new_secret()
    session.flush()
    return endpoint


def secrets_of(endpoint: WebhookEndpoint, moment: datetime) -> tuple[str, ...]:
    """Return the secrets that sign at a moment, the newest first."""
    if endpoint.previous_secret and endpoint.previous_until and endpoint.previous_until > moment:
        return endpoint.secret, endpoint.previous_secret
    return (endpoint.secret,)


def announce(session: Session, job_id: str, state: str) -> None:
    """Write a delivery for every endpoint that wants to hear of a job's new state, in the caller's transaction.

    A job has started once: given back or taken from a lost worker, it says nothing when it runs again.
    """
    kind = TYPE_OF.get(state)
    if kind is None:
        return
    listening = WebhookEndpoint.deleted_at.is_(None), WebhookEndpoint.disabled_at.is_(None)
    query = select(WebhookEndpoint).where(*listening, or_(WebhookEndpoint.job_id.is_(None), WebhookEndpoint.job_id == job_id))
    wanted = [each for each in session.scalars(query) if not each.types or kind in each.types]
    if not wanted:
        return
    if state == "running" and session.execute(select(Job.started_at).where(Job.id == job_id)).scalar_one() is not None:
        return
    data = {"job_id": job_id, "state": state, "links": {"self": f"/v1/jobs/{job_id}", "assets": f"/v1/jobs/{job_id}/assets"}}
    for endpoint in wanted:
        write(session, endpoint, kind, data, job_id)


def write(session: Session, endpoint: WebhookEndpoint, kind: str, data: dict[str, Any], job_id: str | None = None) -> WebhookDelivery:
    """Put a message into the outbox; a dispatcher sends it after the commit. Its id stays the same however often it is sent."""
    moment = now(session)
    delivery = WebhookDelivery(
        id=new_id(),
        endpoint_id=endpoint.id,
        job_id=job_id,
        type=kind,
        payload={"type": kind, "timestamp": moment.isoformat().replace("+00:00", "Z"), "data": data},
        state="pending",
        next_at=moment,
        created_at=moment,
    )
    session.add(delivery)
    session.flush()
    return delivery
