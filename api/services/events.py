"""What happened to a job, in order and without gaps."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, JobEvent


def append(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> int:
    """Write an event and return its number. The counter in the job row makes writers take turns, so the numbers have no gaps."""
    seq = session.execute(update(Job).where(Job.id == job_id).values(event_seq=Job.event_seq + 1).returning(Job.event_seq)).scalar_one()
    session.add(JobEvent(job_id=job_id, seq=seq, at=now(session), type=kind, data=data))
    session.flush()
    return seq


def after(session: Session, job_id: str, seq: int, limit: int = 500) -> list[JobEvent]:
    """Return up to ``limit`` events later than ``seq``, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
    return list(session.scalars(query))
