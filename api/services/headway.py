"""Whether a job comes forward although its workers disappear: only those that are lost in vain count against it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.models import JobEvent

LOST = "worker lost"
KEPT_STAGES = ("done", "skipped")


def lost_in_vain(session: Session, job_id: str) -> int:
    """Return how many holders a job has lost since anything of it was last kept: a checkpoint, or a finished stage.

    A machine that is switched off ten times a day finishes its job; a job that takes its worker down each time at the same place does not.
    """
    kept = select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.type == "checkpoint").order_by(JobEvent.seq.desc()).limit(1)
    since = session.scalars(kept).one_or_none() or 0
    told = JobEvent.job_id == job_id, JobEvent.seq > since, JobEvent.type.in_(("stage", "state"))
    count = 0
    for event in session.scalars(select(JobEvent).where(*told).order_by(JobEvent.seq.desc())):
        if event.type == "stage" and event.data.get("state") in KEPT_STAGES:
            break
        count += event.type == "state" and event.data.get("reason") == LOST
    return count
