"""Jobs: the table of moves, and the moves that people ask for. Those of workers are in ``api.services.leases``."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, Gone, NotFound
from api.models import Job, JobStage, new_id
from api.queue import send_after_commit
from api.services import captures, events, photos, routing, tallies, webhooks
from api.settings import Settings
from engine.errors import InputError
from engine.options import STAGES, RunOptions, from_dict, preset, with_overrides

# Every way a job may go. Nothing else changes Job.state.
TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"queued", "cancelling", "succeeded", "failed"}),
    "cancelling": frozenset({"cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL = tuple(state for state, following in TRANSITIONS.items() if not following)
NO_HOLDER: dict[str, Any] = {"holder_host": None, "holder_pid": None, "holder_start": None, "lease_until": None}
# Share of the whole that a stage takes on a machine without a GPU, for one number to show.
WEIGHTS = {"ingest": 0.05, "poses": 0.25, "train": 0.6, "compress": 0.1}


def move(session: Session, job_id: str, to: str, *conditions: ColumnElement[bool], said: dict[str, Any], **values: Any) -> bool:
    """Move a job to a state by compare-and-set, and say so in an event; False when it is not in a state that may go there.

    ``conditions`` are further terms of the WHERE clause (such as the holder's fence); ``said`` goes into the event.
    """
    sources = [state for state, following in TRANSITIONS.items() if to in following]
    if to in TERMINAL:
        values |= {"finished_at": now(session), **NO_HOLDER}
    query = update(Job).where(Job.id == job_id, Job.state.in_(sources), *conditions).values(state=to, **values)
    result = session.execute(query.execution_options(synchronize_session="fetch"))
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        return False
    events.append(session, job_id, "state", {"state": to, **said})
    webhooks.announce(session, job_id, to)
    if to in TERMINAL:
        tallies.add(session, "jobs_ended_total", state=to)
    return True


def create(
    session: Session, settings: Settings, capture_id: str, options: RunOptions, *, parent: Job | None = None, from_stage: str | None = None
) -> Job:
    """Make a queued job over the photos that the capture holds now; the doorbell rings after the commit."""
    capture = captures.get(session, capture_id, lock=True)
    usable = photos.accepted(session, capture_id)
    if len(usable) < options.ingest.min_photos:
        raise InputError(
            "input.too_few_photos",
            "Too few photos",
            f"the capture has {len(usable)} usable photos; at least {options.ingest.min_photos} are needed",
            "Take 20 to 200 photos that overlap by two thirds, walking around the scene.",
            {"photos": len(usable)},
        )
    job = Job(
        id=new_id(),
        capture_id=capture.id,
        parent_id=parent.id if parent else None,
        from_stage=from_stage,
        preset=options.preset,
        options=as_json(options),
        n_photos=len(usable),
        photos_until=max(photo.seq for photo in photos.given(session, capture_id)),
        state="queued",
        stage=STAGES[0],
        queue=routing.queue_for(session, settings, STAGES[0]),
        created_at=now(session),
    )
    session.add(job)
    session.flush()
    session.add_all(JobStage(job_id=job.id, name=name, ordinal=n, state="pending") for n, name in enumerate(STAGES))
    events.append(session, job.id, "state", {"state": "queued"})
    send_after_commit(session, job.id, job.queue)
    return job


def as_json(options: RunOptions) -> dict[str, Any]:
    """Return options as JSON values; ``InputError`` for infinity, which is a number to Python but not to JSON."""
    try:
        values = json.loads(json.dumps(asdict(options), allow_nan=False))
    except ValueError as error:
        raise InputError(
            "input.invalid_option", "Invalid option", "an option is infinite or not a number", "Use a finite number."
        ) from error
    assert isinstance(values, dict)
    return values


def options_of(preset_name: str, overrides: dict[str, Any]) -> RunOptions:
    """Return the checked options of a request."""
    return with_overrides(preset(preset_name), overrides)


def get(session: Session, job_id: str) -> Job:
    """Return a job; ``NotFound``, or ``Gone`` when it was deleted."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise NotFound.named("job", job_id)
    if job.deleted_at is not None:
        raise Gone.named("job", job_id)
    return job


def page(session: Session, limit: int, before: str | None, state: str | None = None, capture_id: str | None = None) -> list[Job]:
    """Return up to ``limit`` jobs, newest first, older than the id ``before``."""
    query = select(Job).where(Job.deleted_at.is_(None)).order_by(Job.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Job.id < before)
    if state is not None:
        query = query.where(Job.state == state)
    if capture_id is not None:
        query = query.where(Job.capture_id == capture_id)
    return list(session.scalars(query))


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


def queue_position(session: Session, job: Job) -> int | None:
    """Return 1 for the job that is next in its queue; None for a job that does not wait."""
    if job.state != "queued":
        return None
    ahead = select(func.count()).where(Job.state == "queued", Job.queue == job.queue, Job.id < job.id, Job.deleted_at.is_(None))
    return 1 + session.execute(ahead).scalar_one()


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a waiting job at once and ask the worker of a running one to stop; ``Conflict`` when it has ended otherwise."""
    job = get(session, job_id)
    if job.state in ("succeeded", "failed"):
        raise Conflict(
            "conflict.job_ended",
            "Job has ended",
            f"the job {job_id} has already {job.state}",
            "Delete it to remove it.",
            {"state": job.state},
        )
    asked: dict[str, datetime] = {"cancel_requested_at": now(session)}
    if not move(session, job_id, "cancelled", Job.state == "queued", said={}, **asked):
        move(session, job_id, "cancelling", said={}, **asked)
    job = get(session, job_id)
    if job.state in ("succeeded", "failed"):  # the worker was faster
        return request_cancel(session, job_id)
    return job


def retry(session: Session, settings: Settings, job_id: str, from_stage: str | None, overrides: dict[str, Any]) -> Job:
    """Make a new job like an ended one; it takes over what the old one finished, up to ``from_stage``."""
    parent = get(session, job_id)
    if parent.state not in TERMINAL:
        raise Conflict(
            "conflict.job_active", "Job is not over", f"the job {job_id} is {parent.state}", "Cancel it first.", {"state": parent.state}
        )
    if from_stage is not None and from_stage not in STAGES:
        raise InputError(
            "input.unknown_stage", "Unknown stage", f"there is no stage {from_stage[:100]!r}", f"Choose one of: {', '.join(STAGES)}."
        )
    options = with_overrides(from_dict(parent.options), overrides)
    return create(session, settings, parent.capture_id, options, parent=parent, from_stage=from_stage)


def delete(session: Session, job_id: str) -> None:
    """Delete a job, stopping it first; its files go when the dispatcher sweeps."""
    job = get(session, job_id)
    if job.state not in TERMINAL:
        request_cancel(session, job_id)
    session.execute(update(Job).where(Job.id == job_id).values(deleted_at=now(session)))
