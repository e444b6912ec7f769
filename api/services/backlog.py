"""How much waits, and for how long. Each question reads a bounded number of rows by an index, so that it may be asked often."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, WebhookDelivery
from api.services.jobs import TRANSITIONS

COUNT_AT_MOST = 100_000


@dataclass(frozen=True)
class Waiting:
    """How many wait, and for how many seconds the first of them has."""

    n: int
    oldest_s: float


def count(session: Session, rows: Select[str]) -> int:
    """Count rows, ``COUNT_AT_MOST`` of them."""
    return session.execute(select(func.count()).select_from(rows.limit(COUNT_AT_MOST).subquery())).scalar_one()


def jobs_by_state(session: Session) -> dict[str, float]:
    """Count the jobs in each state, deleted ones left out."""
    return {state: float(count(session, select(Job.id).where(Job.state == state, Job.deleted_at.is_(None)))) for state in TRANSITIONS}


def queues(session: Session) -> dict[str, Waiting]:
    """Return what waits in each queue; ages count from when a job was made."""
    waiting = select(Job.queue, Job.created_at).where(Job.state == "queued", Job.deleted_at.is_(None)).order_by(Job.created_at)
    listed = waiting.limit(COUNT_AT_MOST).subquery()
    moment = now(session)
    found = session.execute(select(listed.c.queue, func.count(), func.min(listed.c.created_at)).group_by(listed.c.queue))
    return {queue: Waiting(n, age_s(moment, oldest)) for queue, n, oldest in found}


def outbox(session: Session) -> Waiting:
    """Return how many messages to webhook endpoints are due, and how late they are."""
    moment = now(session)
    due = WebhookDelivery.state == "pending", WebhookDelivery.next_at <= moment
    oldest = session.execute(select(func.min(WebhookDelivery.next_at)).where(*due)).scalar_one()
    return Waiting(count(session, select(WebhookDelivery.id).where(*due)), age_s(moment, oldest))


def age_s(moment: datetime, since: datetime | None) -> float:
    """Return the seconds since a moment, at least 0."""
    return max(0.0, (moment - since).total_seconds()) if since is not None else 0.0
