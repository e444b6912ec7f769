"""How jobs stand: their stages, their progress as one number, whose turn it is."""

from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from api.models import Job, JobStage
from engine.options import STAGES

# Share of the whole that a stage takes on a machine without a GPU, for one number to show.
WEIGHTS = {"ingest": 0.05, "poses": 0.25, "train": 0.6, "compress": 0.1}


def stages_of(session: Session, job_ids: list[str]) -> dict[str, list[JobStage]]:
    """Return the stages of jobs, in order."""
    found: dict[str, list[JobStage]] = {each: [] for each in job_ids}
    query = select(JobStage).where(JobStage.job_id.in_(job_ids)).order_by(JobStage.ordinal).execution_options(populate_existing=True)
    for stage in session.scalars(query):
        found[stage.job_id].append(stage)
    return found


def progress_of(stages: list[JobStage]) -> float:
    """Return how far a job is as one number, 0..1."""
    return round(sum(WEIGHTS[stage.name] * (1.0 if stage.state in ("done", "skipped") else stage.progress) for stage in stages), 4)


def in_turn() -> tuple[ColumnElement[Any], ...]:
    """Return the order in which waiting jobs are taken: the more urgent first, then the older."""
    return Job.priority.desc(), Job.id.asc()


def is_before(job: Job) -> ColumnElement[bool]:
    """Return the WHERE term of the jobs that wait before this one in its queue."""
    sooner = (Job.priority > job.priority) | ((Job.priority == job.priority) & (Job.id < job.id))
    return and_(Job.state == "queued", Job.queue == job.queue, Job.deleted_at.is_(None), sooner)


def queue_position(session: Session, job: Job) -> int | None:
    """Return 1 for the job that is next in its queue; None for a job that does not wait."""
    if job.state != "queued":
        return None
    return 1 + session.execute(select(func.count()).select_from(Job).where(is_before(job))).scalar_one()


def is_forced(job: Job, stage: str) -> bool:
    """Tell whether a job was asked to run a stage again although there is a result."""
    return job.from_stage is not None and STAGES.index(stage) >= STAGES.index(job.from_stage)
