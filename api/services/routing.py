"""Which queue a stage waits in: that of the workers with a card while one of them lives, else that of the CPUs."""

from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, Process
from api.queue import CPU_QUEUE, GPU_QUEUE
from api.services import events
from api.settings import Settings

# Reading photos and finding poses gain nothing from a card, and would keep it from those that do.
GPU_STAGES = ("train", "compress")


def listens(process: Process, queue: str) -> bool:
    """Tell whether a worker takes stages from a queue; one on the GPU queue has opened its card before it shows itself."""
    return queue in process.queues.split(",")


def has_gpu_worker(session: Session, settings: Settings) -> bool:
    """Tell whether a GPU worker was seen in the last ``gpu_wait_s``."""
    since = now(session) - timedelta(seconds=settings.gpu_wait_s)
    return any(listens(process, GPU_QUEUE) for process in session.scalars(select(Process).where(Process.seen_at >= since)))


def queue_for(session: Session, settings: Settings, stage: str) -> str:
    """Return the queue for a stage that starts to wait now; ``redirect`` looks again while it waits."""
    return GPU_QUEUE if stage in GPU_STAGES and has_gpu_worker(session, settings) else CPU_QUEUE


def queue_after(session: Session, settings: Settings, queue: str, stage: str) -> str:
    """Return the queue of the stage after one done in ``queue``: compress stays where train ran, its files are there."""
    return queue if stage == "compress" else queue_for(session, settings, stage)


def misrouted(session: Session, settings: Settings) -> dict[str, list[str]]:
    """Return the waiting jobs that should wait elsewhere, ids by the queue they belong to."""
    found: dict[str, list[str]] = {}
    wanted = GPU_QUEUE if has_gpu_worker(session, settings) else CPU_QUEUE
    for job in session.execute(select(Job.id, Job.stage, Job.queue).where(Job.state == "queued", Job.deleted_at.is_(None))):
        queue = wanted if job.stage in GPU_STAGES else CPU_QUEUE
        if job.queue != queue:
            found.setdefault(queue, []).append(job.id)
    return found


def redirect(session: Session, settings: Settings) -> list[str]:
    """Send waiting jobs to the queue they now belong to, to be rung for afresh; returns their ids.

    Only a job that still waits is moved (compare-and-set): one that was claimed meanwhile stays with its holder. Messages left in the
    old queue do nothing, because a claim names the queue it came by.
    """
    moved = []
    for queue, ids in misrouted(session, settings).items():
        query = update(Job).where(Job.id.in_(ids), Job.state == "queued").values(queue=queue, dispatched_at=None).returning(Job.id)
        for job_id in session.scalars(query.execution_options(synchronize_session=False)).all():
            reason = "a GPU worker is there" if queue == GPU_QUEUE else f"no GPU worker was seen for {settings.gpu_wait_s:g} s"
            events.append(session, job_id, "queue", {"queue": queue, "reason": reason})
            moved.append(job_id)
    return moved
