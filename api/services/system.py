"""What runs on this installation: processes seen lately, jobs by state, sweeping of old rows."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, Process

SEEN_S = 30.0


@dataclass(frozen=True)
class Alive:
    """A worker or dispatcher as it shows itself: machine, process, the queues it listens to (comma between), what its stages run on."""

    kind: str
    host: str
    pid: int
    queues: str = ""
    device: str = ""


def see_process(session: Session, process_id: str, shown: Alive) -> None:
    """Note that a worker or dispatcher is alive now."""
    row = session.get(Process, process_id)
    if row is None:
        row = Process(id=process_id, **asdict(shown), seen_at=now(session))
        session.add(row)
    row.seen_at = now(session)


def forget_process(session: Session, process_id: str) -> None:
    """Note that a process has ended in good order."""
    session.execute(delete(Process).where(Process.id == process_id))


def processes(session: Session) -> list[Process]:
    """Return the processes seen in the last half minute."""
    since = now(session) - timedelta(seconds=SEEN_S)
    return list(session.scalars(select(Process).where(Process.seen_at >= since).order_by(Process.kind, Process.id)))


def forget_silent(session: Session) -> None:
    """Drop processes not seen for an hour."""
    session.execute(delete(Process).where(Process.seen_at < now(session) - timedelta(hours=1)))


def jobs_by_state(session: Session) -> dict[str, int]:
    """Count the jobs in each state."""
    query = select(Job.state, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.state)
    return {row[0]: row[1] for row in session.execute(query)}
