"""The outbox of webhooks: taken by one dispatcher at a time, tried again for days, kept to be looked at and sent again."""

import json
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, NotFound
from api.models import Job, WebhookDelivery, WebhookEndpoint
from api.services import tallies, webhooks
from api.settings import Settings

JITTER = 0.1  # waits vary by this share, so that what failed together does not come back together
LEASE_TIMEOUTS = 4.0  # a sender that has said nothing for so many timeouts is dead: resolving a name may outlast the timeout
FORGET_AT_ONCE = 1000


@dataclass(frozen=True)
class Parcel:
    """A message to send now. ``attempt`` counts from 1 and is this sender's right to say how it went."""

    delivery_id: str
    endpoint_id: str
    attempt: int
    url: str
    secrets: tuple[str, ...]
    body: str


@dataclass(frozen=True)
class Outcome:
    """How an attempt went. ``word``: delivered, gone, redirect, status, timeout, unreachable or refused (its target is inside)."""

    word: str
    seconds: float
    status: int | None = None
    error: str | None = None


def due(session: Session, busy: set[str], limit: int) -> list[str]:
    """Return the ids of messages to send now: the oldest of each endpoint, so that one that hangs keeps no other waiting.

    ``busy``: endpoints that this process is sending to.
    """
    query = (
        select(func.min(WebhookDelivery.id))
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.state == "pending", WebhookDelivery.next_at <= now(session))
        .where(WebhookEndpoint.disabled_at.is_(None), WebhookEndpoint.deleted_at.is_(None))
        .group_by(WebhookDelivery.endpoint_id)
        .order_by(func.min(WebhookDelivery.next_at))
        .limit(limit)
    )
    if busy:
        query = query.where(WebhookDelivery.endpoint_id.not_in(busy))
    return list(session.scalars(query))


def take(session: Session, settings: Settings, ids: list[str]) -> list[Parcel]:
    """Take messages that are still due; others leave them alone until this lease ends, then they are sent again under the same id."""
    moment = now(session)
    lease = moment + timedelta(seconds=LEASE_TIMEOUTS * settings.webhook_timeout_s)
    still = WebhookDelivery.id.in_(ids), WebhookDelivery.state == "pending", WebhookDelivery.next_at <= moment
    query = select(WebhookDelivery).where(*still).order_by(WebhookDelivery.id).with_for_update(skip_locked=True)
    taken = []
    for row in session.scalars(query).all():
        endpoint = session.get_one(WebhookEndpoint, row.endpoint_id)
        row.attempts, row.next_at = row.attempts + 1, lease
        body = json.dumps(row.payload, separators=(",", ":"))
        taken.append(Parcel(row.id, row.endpoint_id, row.attempts, endpoint.url, webhooks.secrets_of(endpoint, moment), body))
    session.flush()
    return taken


def record(session: Session, settings: Settings, parcel: Parcel, outcome: Outcome) -> bool:
    """Write how an attempt went and when the next one is; False when another sender has the message by now."""
    tallies.add(session, "webhook_attempts_total", outcome=outcome.word)
    # The endpoint before the delivery, as everywhere: two that lock them the other way round would wait for each other.
    query = select(WebhookEndpoint).where(WebhookEndpoint.id == parcel.endpoint_id).with_for_update()
    endpoint = session.scalars(query.execution_options(populate_existing=True)).one()
    mine = WebhookDelivery.id == parcel.delivery_id, WebhookDelivery.state == "pending", WebhookDelivery.attempts == parcel.attempt
    row = session.scalars(select(WebhookDelivery).where(*mine).with_for_update().execution_options(populate_existing=True)).one_or_none()
    if row is None:
        return False
    row.last_status, row.last_error, row.last_seconds = outcome.status, outcome.error, outcome.seconds
    if outcome.word == "delivered":
        row.state, row.next_at, row.delivered_at = "delivered", None, now(session)
    elif outcome.word == "gone":
        row.state, row.next_at = "failed", None
        _disable(session, endpoint, "it answered 410 Gone")
    elif parcel.attempt > len(settings.webhook_waits_s):
        row.state, row.next_at = "failed", None
        if not _heard_since(session, row):
            _disable(session, endpoint, f"nothing has arrived there since {row.created_at:%Y-%m-%d %H:%M} UTC: {outcome.error}")
    else:
        row.next_at = now(session) + timedelta(seconds=wait_s(settings, parcel.attempt))
    session.flush()
    return True


def wait_s(settings: Settings, attempt: int) -> float:
    """Return the pause after an attempt that failed, seconds, a little different each time."""
    return settings.webhook_waits_s[attempt - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 (no secret)


def _disable(session: Session, endpoint: WebhookEndpoint, why: str) -> None:
    if endpoint.disabled_at is None and endpoint.deleted_at is None:
        webhooks.disable(session, endpoint, why[:500])


def _heard_since(session: Session, row: WebhookDelivery) -> bool:
    """Tell whether the endpoint has taken any message since this one was written."""
    newer = WebhookDelivery.endpoint_id == row.endpoint_id, WebhookDelivery.delivered_at >= row.created_at
    return session.scalars(select(WebhookDelivery.id).where(*newer).limit(1)).first() is not None


def get(session: Session, endpoint_id: str, delivery_id: str, *, lock: bool = False) -> WebhookDelivery:
    """Return a message of an endpoint; ``NotFound`` when it has none of that id."""
    webhooks.get(session, endpoint_id)
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound.named("delivery", delivery_id)
    return row


def page(session: Session, endpoint_id: str, limit: int, before: str | None, state: str | None = None) -> list[WebhookDelivery]:
    """Return up to ``limit`` messages of an endpoint, newest first, older than the id ``before``."""
    webhooks.get(session, endpoint_id)
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id).order_by(WebhookDelivery.id.desc()).limit(limit)
    if before is not None:
        query = query.where(WebhookDelivery.id < before)
    return list(session.scalars(query.where(WebhookDelivery.state == state) if state else query))


def redeliver(session: Session, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Send a message again now, under the same id: one that has arrived or failed from the start, one that waits without waiting."""
    endpoint = checked_enabled(webhooks.get(session, endpoint_id, lock=True))
    row = get(session, endpoint.id, delivery_id, lock=True)
    if row.state != "pending":
        row.state, row.attempts = "pending", 0
    row.next_at = now(session)
    session.flush()
    return row


def test(session: Session, endpoint_id: str) -> WebhookDelivery:
    """Send a message that tells of no job, to see whether it arrives."""
    endpoint = checked_enabled(webhooks.get(session, endpoint_id, lock=True))
    return webhooks.write(session, endpoint, webhooks.TEST, {"endpoint_id": endpoint.id})


def checked_enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """Return an endpoint that is on; ``Conflict`` when it is disabled."""
    if endpoint.disabled_at is not None:
        data: dict[str, Any] = {"disabled_why": endpoint.disabled_why}
        detail = f"the endpoint {endpoint.id} is disabled: {endpoint.disabled_why}"
        raise Conflict("conflict.endpoint_disabled", "Endpoint disabled", detail, 'Enable it first: PATCH it with {"enabled": true}.', data)
    return endpoint


def forget_old(session: Session, settings: Settings) -> None:
    """Remove messages that are long over, the endpoints of jobs that are, and deleted endpoints without messages."""
    oldest = now(session) - timedelta(seconds=settings.webhook_kept_s)
    silent = select(WebhookEndpoint.id).where(or_(WebhookEndpoint.disabled_at.is_not(None), WebhookEndpoint.deleted_at.is_not(None)))
    over = or_(WebhookDelivery.state != "pending", WebhookDelivery.endpoint_id.in_(silent))
    old = select(WebhookDelivery.id).where(WebhookDelivery.created_at < oldest, over).order_by(WebhookDelivery.id).limit(FORGET_AT_ONCE)
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).execution_options(synchronize_session=False))
    ended = select(Job.id).where(Job.finished_at < oldest)
    of_ended = WebhookEndpoint.job_id.in_(ended), WebhookEndpoint.deleted_at.is_(None)
    values = {"deleted_at": now(session), "secret": "", "previous_secret": None}
    session.execute(update(WebhookEndpoint).where(*of_ended).values(**values).execution_options(synchronize_session=False))
    used = select(WebhookDelivery.endpoint_id)
    gone = WebhookEndpoint.deleted_at < oldest, WebhookEndpoint.id.not_in(used)
    session.execute(delete(WebhookEndpoint).where(*gone).execution_options(synchronize_session=False))
