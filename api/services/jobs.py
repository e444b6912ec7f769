"""Jobs: the table of moves, and the moves that people ask for. Those of workers are in ``api.services.leases``."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, select, update
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, Gone, NotFound, TooLarge
from api.models import Job, JobStage, Photo, new_id
from api.queue import send_after_commit
from api.services import cache, captures, events, limits, photos, routing, tallies, videos, webhooks
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


@dataclass(frozen=True)
class Asked:
    """How a job was asked for: how urgent (-10..10, 0 as a rule), hours kept after its end (None: as the settings say), by whom."""

    priority: int = 0
    ttl_hours: float | None = None
    key_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Again:
    """What to do differently when a job is run again: from which stage on although there are results, which options."""

    from_stage: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


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
        extend(session, job_id)
        tallies.add(session, "jobs_ended_total", state=to)
    return True


def extend(session: Session, job_id: str) -> None:
    """Count the time that a job is kept from its end: one that ran for longer than it is kept would vanish with its last stage."""
    job = session.get_one(Job, job_id, populate_existing=True)
    if job.expires_at is not None and job.finished_at is not None:
        job.expires_at = job.finished_at + (job.expires_at - job.created_at)
        session.flush()


def expire_kept(session: Session) -> list[str]:
    """Delete the ended jobs that have been kept for as long as was asked; returns their ids."""
    over = Job.deleted_at.is_(None), Job.state.in_(TERMINAL), Job.expires_at <= now(session)
    query = update(Job).where(*over).values(deleted_at=now(session)).returning(Job.id)
    return list(session.scalars(query.execution_options(synchronize_session=False)))


def create(
    session: Session,
    settings: Settings,
    capture_id: str,
    options: RunOptions,
    asked: Asked = Asked(),
    *,
    parent: Job | None = None,
    from_stage: str | None = None,
) -> Job:
    """Make a queued job over the photos that the capture holds now; the doorbell rings after the commit."""
    capture = captures.get(session, capture_id, lock=True)
    limits.check_jobs(session, asked.key_id)  # after the capture, as uploads do: the other way round two requests could wait for each other
    n_photos = videos.count_photos(usable_photos(session, settings, capture_id, options), options)
    taken, moment = photos.given(session, capture_id), now(session)
    ttl_hours = settings.job_ttl_hours if asked.ttl_hours is None else asked.ttl_hours
    job = Job(
        id=new_id(),
        capture_id=capture.id,
        parent_id=parent.id if parent else None,
        from_stage=from_stage,
        preset=options.preset,
        options=as_json(options),
        n_photos=n_photos,
        photos_until=max(photo.seq for photo in taken),
        state="queued",
        stage=STAGES[0],
        queue=routing.queue_for(session, settings, STAGES[0]),
        priority=asked.priority,
        key_id=asked.key_id,
        traceparent=asked.traceparent,
        expires_at=moment + timedelta(hours=ttl_hours) if ttl_hours else None,
        created_at=moment,
    )
    session.add(job)
    session.flush()
    keys = cache.keys(taken, options)
    session.add_all(JobStage(job_id=job.id, name=name, ordinal=n, state="pending", cache_key=keys[name]) for n, name in enumerate(STAGES))
    events.append(session, job.id, "state", {"state": "queued"})
    send_after_commit(session, job.id, job.queue)
    return job


def usable_photos(session: Session, settings: Settings, capture_id: str, options: RunOptions) -> list[Photo]:
    """Return the photos and videos that a job would run over; ``InputError`` when they are too few, ``TooLarge`` when too many."""
    usable = photos.accepted(session, capture_id)
    n_photos = videos.count_photos(usable, options)
    if n_photos > settings.max_photos:
        raise TooLarge(
            "input.too_many_photos",
            "Too many photos",
            f"with {options.ingest.frames} frames of each video there are {n_photos} photos; a job takes at most {settings.max_photos}",
            "Lower ingest.frames, give fewer videos, or raise the limit.",
        )
    if n_photos < options.ingest.min_photos:
        photos_word = "photo" if len(usable) == 1 else "photos"
        raise InputError(
            "input.too_few_photos",
            "Too few photos",
            f"the capture has {len(usable)} usable {photos_word}; at least {options.ingest.min_photos} are needed",
            "Take 20 to 200 photos that overlap by two thirds, walking around the scene, or film it on the way.",
            {"photos": len(usable)},
        )
    return usable


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


def wait_for_disk(session: Session, settings: Settings, job_id: str) -> None:
    """Note that a waiting job cannot start because the worker's disk is nearly full; it is rung for again soon, here or elsewhere."""
    job = session.scalars(select(Job).where(Job.id == job_id, Job.state == "queued").with_for_update()).one_or_none()
    if job is None:
        return
    if job.waits_for != "disk":
        events.append(session, job_id, "waiting", {"reason": "disk", "min_free_bytes": settings.min_free_bytes})
    session.refresh(job)
    job.waits_for, job.dispatched_at = "disk", None
    job.not_before = now(session) + timedelta(seconds=settings.resend_s / 4)
    session.flush()


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a waiting job at once and ask the worker of a running one to stop; ``Conflict`` when it has ended otherwise."""
    job = ask_to_stop(session, job_id)
    if job.state in ("succeeded", "failed"):
        raise Conflict(
            "conflict.job_ended",
            "Job has ended",
            f"the job {job_id} has already {job.state}",
            "Delete it to remove it.",
            {"state": job.state},
        )
    return job


def ask_to_stop(session: Session, job_id: str) -> Job:
    """Cancel a waiting job, ask the worker of a running one to stop, leave one that has ended or is being stopped; returns it."""
    asked: dict[str, datetime] = {"cancel_requested_at": now(session)}
    job = get(session, job_id)
    while job.state in ("queued", "running"):  # again when a worker took it, or lost it, in between
        if not move(session, job_id, "cancelled", Job.state == "queued", said={}, **asked):
            move(session, job_id, "cancelling", said={}, **asked)
        job = get(session, job_id)
    return job


def retry(session: Session, settings: Settings, job_id: str, again: Again, asked: Asked = Asked()) -> Job:
    """Make a new job like an ended one, as urgent and kept as long; it takes over what was finished, up to ``again.from_stage``."""
    parent = get(session, job_id)
    if parent.state not in TERMINAL:
        raise Conflict(
            "conflict.job_active", "Job is not over", f"the job {job_id} is {parent.state}", "Cancel it first.", {"state": parent.state}
        )
    stage = again.from_stage
    if stage is not None and stage not in STAGES:
        raise InputError(
            "input.unknown_stage", "Unknown stage", f"there is no stage {stage[:99]!r}", f"Choose one of: {', '.join(STAGES)}."
        )
    options = with_overrides(from_dict(parent.options), again.options)
    asked = replace(asked, priority=parent.priority, ttl_hours=hours_kept(parent))
    return create(session, settings, parent.capture_id, options, asked, parent=parent, from_stage=stage)


def hours_kept(job: Job) -> float:
    """Return the hours that an ended job is kept for; 0 for one without end."""
    if job.expires_at is None:
        return 0.0
    return (job.expires_at - (job.finished_at or job.created_at)).total_seconds() / 3600


def delete(session: Session, job_id: str) -> None:
    """Delete a job, stopping it first; its files go when the dispatcher sweeps."""
    ask_to_stop(session, job_id)
    session.execute(update(Job).where(Job.id == job_id).values(deleted_at=now(session)))
