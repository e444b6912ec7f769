"""The moves of workers and dispatchers: claim, report, finish, give back, lose. Every write of a holder names its fence."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, null, or_, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, JobStage
from api.queue import send_after_commit
from api.services import events, headway, routing, tallies
from api.services.jobs import NO_HOLDER, move
from api.services.standing import in_turn
from api.settings import Settings
from engine.options import STAGES

HELD = ("running", "cancelling")
DISK_ATTEMPTS = 60
DISK_PAUSE_S = 600.0  # with the attempts above: most of ten hours
LOST_ERROR = {
    "family": "internal",
    "code": "internal.worker_lost",
    "title": "Workers lost",
    "hint": "Look at the machine's memory and at the job's log; then retry the job.",
    "retryable": True,
    "data": {},
}


@dataclass(frozen=True)
class Holder:
    """A process: machine, pid, and when it started (pids come again)."""

    host: str
    pid: int
    start: str


@dataclass(frozen=True)
class Claim:
    """The right to work on a stage of a job, until the fence is raised."""

    job_id: str
    fence: int
    stage: str
    queue: str

    @property
    def is_mine(self) -> ColumnElement[bool]:
        """The WHERE term of every write under this claim. The stage is part of it: what ended once is not ended again by a late error."""
        return (Job.id == self.job_id) & (Job.fence == self.fence) & (Job.stage == self.stage)


class LeaseLostError(Exception):
    """Somebody else holds the job now; what this holder wanted to write was refused."""


def claim_next(session: Session, settings: Settings, rung: str, queue: str, holder: Holder) -> Claim | None:
    """Take the job whose turn it is in a queue; the one that was rung for has a message of its own, or gets this one's job's later."""
    due = or_(Job.not_before.is_(None), Job.not_before <= now(session))
    waiting = select(Job.id).where(Job.state == "queued", Job.queue == queue, due, Job.deleted_at.is_(None)).order_by(*in_turn()).limit(1)
    first = session.scalars(waiting.with_for_update(skip_locked=True)).one_or_none()
    return claim(session, settings, first or rung, queue, holder)


def claim(session: Session, settings: Settings, job_id: str, queue: str, holder: Holder) -> Claim | None:
    """Take a waiting job of a queue; None when there is nothing to do: the message was old, or came twice."""
    moment = now(session)
    free = (Job.queue == queue, or_(Job.not_before.is_(None), Job.not_before <= moment), Job.deleted_at.is_(None), Job.state == "queued")
    held: dict[str, Any] = {"holder_host": holder.host, "holder_pid": holder.pid, "holder_start": holder.start, "heartbeat_at": moment}
    lease = moment + timedelta(seconds=settings.lease_s)
    said = {"host": holder.host.partition("/")[0]}
    if not move(
        session, job_id, "running", *free, said=said, fence=Job.fence + 1, lease_until=lease, not_before=None, waits_for=None, **held
    ):
        return None
    job = session.execute(select(Job).where(Job.id == job_id).execution_options(populate_existing=True)).scalar_one()
    if job.started_at is None:
        job.started_at = moment
        session.flush()
    taken = Claim(job_id, job.fence, job.stage, job.queue)
    start_stage(session, taken)
    return taken


def start_stage(session: Session, taken: Claim) -> None:
    """Note that the claimed stage begins another attempt."""
    stage = JobStage.job_id == taken.job_id, JobStage.name == taken.stage
    begun = {"progress": 0.0, "message": "", "data": null(), "started_at": now(session)}  # nothing that the attempt before said
    values = {"state": "running", "attempt": JobStage.attempt + 1, **begun}
    session.execute(update(JobStage).where(*stage).values(**values))
    events.append(session, taken.job_id, "stage", {"stage": taken.stage, "state": "running"})


def beat(session: Session, settings: Settings, taken: Claim) -> str:
    """Extend the lease and return the job's state, ``running`` or ``cancelling``; ``LeaseLostError`` when it is another's."""
    moment = now(session)
    values = {"heartbeat_at": moment, "lease_until": moment + timedelta(seconds=settings.lease_s)}
    query = update(Job).where(taken.is_mine, Job.state.in_(HELD)).values(**values).returning(Job.state)
    state = session.execute(query).scalar_one_or_none()
    if state is None:
        raise LeaseLostError(taken.job_id)
    return state


def report(session: Session, settings: Settings, taken: Claim, kind: str, data: dict[str, Any]) -> None:
    """Write an event of the engine (``progress warning checkpoint preview``).

    Progress never goes back within an attempt; the stage's row follows every step of it, an event is written at each whole per cent.
    """
    beat(session, settings, taken)
    if kind == "progress":
        row = session.get_one(JobStage, (taken.job_id, taken.stage), populate_existing=True)
        before, fraction = row.progress, min(1.0, max(row.progress, float(data.get("fraction", 0.0))))
        row.progress, row.message, row.data = fraction, str(data.get("message", ""))[:500].replace("\0", ""), dict(data.get("data") or {})
        data = {**data, "fraction": fraction}
        if int(100 * fraction) <= int(100 * before):
            return
    events.append(session, taken.job_id, kind, {"stage": taken.stage, **data})


@dataclass(frozen=True)
class Finished:
    """How a stage went."""

    seconds: float
    is_skipped: bool
    stats: dict[str, Any]
    reason: str | None = None  # why it was skipped


def finish_stage(
    session: Session, settings: Settings, taken: Claim, finished: Finished, result: dict[str, Any] | None = None
) -> Claim | None:
    """Close a stage and open the next, or succeed after the last; ``LeaseLostError`` when the job is no longer this holder's to finish.

    Returns the claim on the next stage when it belongs to the same queue, else None: then others are called.
    """
    following = STAGES.index(taken.stage) + 1
    close_stage(session, taken, finished)
    if following == len(STAGES):
        if not move(session, taken.job_id, "succeeded", taken.is_mine, said={"result": result}, result=result):
            raise LeaseLostError(taken.job_id)
        return None
    stage = STAGES[following]
    queue = routing.queue_after(session, settings, taken.queue, stage)
    if queue != taken.queue:
        if not move(
            session, taken.job_id, "queued", taken.is_mine, said={"stage": stage}, stage=stage, queue=queue, dispatched_at=None, **NO_HOLDER
        ):
            raise LeaseLostError(taken.job_id)
        send_after_commit(session, taken.job_id, queue)
        return None
    passed_on = replace(taken, stage=stage)
    if (
        session.execute(update(Job).where(taken.is_mine, Job.state == "running").values(stage=stage).returning(Job.id)).one_or_none()
        is None
    ):
        raise LeaseLostError(taken.job_id)
    start_stage(session, passed_on)
    return passed_on


def close_stage(session: Session, taken: Claim, finished: Finished) -> None:
    """Write a stage's figures."""
    state = "skipped" if finished.is_skipped else "done"
    values = {"state": state, "progress": 1.0, "stats": finished.stats, "seconds": finished.seconds, "finished_at": now(session)}
    session.execute(update(JobStage).where(JobStage.job_id == taken.job_id, JobStage.name == taken.stage).values(**values))
    if finished.stats.get("n_videos"):  # now it is known how many frames they gave
        session.execute(update(Job).where(taken.is_mine).values(n_photos=finished.stats["n_photos"]))
    if not finished.is_skipped:
        tallies.observe(session, "stage_seconds", finished.seconds, stage=taken.stage)
    said = {"stage": taken.stage, "state": state, "seconds": finished.seconds, "stats": finished.stats}
    if finished.reason is not None:
        said["reason"] = finished.reason
    events.append(session, taken.job_id, "stage", said)


def reopen_stage(session: Session, job_id: str, name: str, state: str) -> None:
    """Mark the stage of an ended attempt ``pending`` or ``failed``."""
    session.execute(update(JobStage).where(JobStage.job_id == job_id, JobStage.name == name).values(state=state, finished_at=now(session)))


def end_attempt(session: Session, settings: Settings, taken: Claim, error: dict[str, Any]) -> str:
    """Count a broken attempt: queue the job again after a pause, or fail it when the error is the user's to mend or attempts are used up.

    ``error`` is ``SplatError.to_dict()``. Returns the new state; ``LeaseLostError`` when the job is another's.
    """
    job = session.scalars(select(Job).where(taken.is_mine, Job.state.in_(HELD)).with_for_update()).one_or_none()
    if job is None:
        raise LeaseLostError(taken.job_id)
    if job.state == "cancelling":
        return end_cancelled(session, taken)
    if error["code"] == "capacity.disk" and (state := wait_for_space(session, settings, taken, error)):
        return state
    error = {**error, "stage": taken.stage, "attempt": job.error_attempts + 1}
    counted = {"error_attempts": job.error_attempts + 1, "error": error}
    said = {"stage": taken.stage, "error": error}
    if not error["retryable"] or job.error_attempts + 1 >= settings.max_error_attempts:
        reopen_stage(session, taken.job_id, taken.stage, "failed")
        move(session, taken.job_id, "failed", taken.is_mine, said=said, **counted)
        return "failed"
    reopen_stage(session, taken.job_id, taken.stage, "pending")
    pause = timedelta(seconds=settings.retry_backoff_s * 2**job.error_attempts)
    later = {"not_before": now(session) + pause, "dispatched_at": None}
    move(session, taken.job_id, "queued", taken.is_mine, said=said, **counted, **later, **NO_HOLDER)
    return "queued"


def wait_for_space(session: Session, settings: Settings, taken: Claim, error: dict[str, Any]) -> str | None:
    """Queue a job whose worker's disk is full, uncounted: it goes on from its checkpoint when there is space, here or elsewhere.

    None when it has been tried so often that it may well be the job itself that fills the disk.
    """
    attempt = session.get_one(JobStage, (taken.job_id, taken.stage), populate_existing=True).attempt
    if attempt >= DISK_ATTEMPTS:
        return None
    reopen_stage(session, taken.job_id, taken.stage, "pending")
    pause = timedelta(seconds=min(DISK_PAUSE_S, settings.retry_backoff_s * 2 ** min(attempt - 1, 16)))
    later = {"waits_for": "disk", "not_before": now(session) + pause, "dispatched_at": None}
    said = {"stage": taken.stage, "reason": "disk", "error": error}
    move(session, taken.job_id, "queued", taken.is_mine, said=said, **later, **NO_HOLDER)
    return "queued"


def end_cancelled(session: Session, taken: Claim) -> str:
    """End a job that was asked to stop, now that nothing of it runs any more."""
    reopen_stage(session, taken.job_id, taken.stage, "pending")
    if not move(session, taken.job_id, "cancelled", taken.is_mine, Job.state == "cancelling", said={}):
        raise LeaseLostError(taken.job_id)
    return "cancelled"


def release(session: Session, taken: Claim, reason: str = "worker shut down", pause_s: float = 0.0) -> str:
    """Give a job back uncounted, to be taken again after a pause in seconds; somebody goes on from its last checkpoint."""
    reopen_stage(session, taken.job_id, taken.stage, "pending")
    later = {"not_before": now(session) + timedelta(seconds=pause_s), "dispatched_at": None}
    if move(session, taken.job_id, "queued", taken.is_mine, said={"reason": reason}, **later, **NO_HOLDER):
        return "queued"
    return end_cancelled(session, taken)


def expire(session: Session, settings: Settings) -> list[str]:
    """Take away every job whose holder has been silent for longer than its lease; returns their ids."""
    late = select(Job).where(Job.state.in_(HELD), Job.lease_until <= now(session)).with_for_update(skip_locked=True)
    return [job.id for job in session.scalars(late).all() if lose(session, settings, job)]


def release_dead(session: Session, settings: Settings, host: str, is_alive: Callable[[int, str], bool]) -> list[str]:
    """Take away every job whose holder on this machine no longer lives, without waiting for the lease; returns their ids."""
    held = select(Job).where(Job.state.in_(HELD), Job.holder_host == host).with_for_update(skip_locked=True)
    dead = [job for job in session.scalars(held).all() if not is_alive(job.holder_pid or 0, job.holder_start or "")]
    return [job.id for job in dead if lose(session, settings, job)]


def lose(session: Session, settings: Settings, job: Job) -> bool:
    """Count a lost holder: queue the job again, cancel it when that was asked, fail it when it has lost too many in vain."""
    tallies.add(session, "leases_expired_total")
    observed = Job.fence == job.fence
    count, stage = job.lost_leases + 1, job.stage
    if job.state == "cancelling":
        reopen_stage(session, job.id, stage, "pending")
        return move(session, job.id, "cancelled", observed, said={})
    in_vain = headway.lost_in_vain(session, job.id) + 1
    if in_vain >= settings.max_lost_leases:
        detail = f"{in_vain} workers disappeared one after another while they worked on this job, the last in {stage}"
        error = {**LOST_ERROR, "detail": detail, "stage": stage, "attempt": count}
        reopen_stage(session, job.id, stage, "failed")
        return move(session, job.id, "failed", observed, said={"stage": stage, "error": error}, lost_leases=count, error=error)
    reopen_stage(session, job.id, stage, "pending")
    said = {"reason": headway.LOST, "lost_leases": count}
    return move(session, job.id, "queued", observed, said=said, lost_leases=count, dispatched_at=None, **NO_HOLDER)
