"""Removes what nobody can reach any more. Every step may break off anywhere and is done again."""

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from api.db import Database, now
from api.models import Asset, Capture, Job, JobEvent, Photo
from api.services import cache as kept
from api.services import deliveries, idempotency, jobs, shares, system
from api.services.jobs import TERMINAL
from api.settings import Settings
from api.storage import Storage
from worker import cache, files, leftovers

INCOMING_KEPT_S = 86_400


@dataclass(frozen=True)
class Ground:
    """What is swept."""

    settings: Settings
    db: Database
    storage: Storage


def sweep(ground: Ground) -> None:
    """Remove what nobody can reach any more: files of deleted captures and jobs, broken uploads, old keys; and jobs whose time is over."""
    with ground.db.writing() as session:
        jobs.expire_kept(session)
    sweep_deleted(ground)
    sweep_folders(ground)
    sweep_cache(ground)
    leftovers.sweep(ground.settings, ground.db, ground.storage)
    with ground.db.writing() as session:
        idempotency.forget_old(session)
        system.forget_silent(session)
    with ground.db.writing() as session:
        deliveries.forget_old(session, ground.settings)
        shares.forget_old(session)


def sweep_deleted(ground: Ground) -> None:
    """Remove the files, then the rows, of deleted captures and jobs; done again when it breaks in between."""
    with ground.db.reading() as session:
        captures = session.scalars(select(Capture.id).where(Capture.deleted_at.is_not(None), Capture.swept_at.is_(None))).all()
        ended = Job.deleted_at.is_not(None), Job.swept_at.is_(None), Job.state.in_(TERMINAL)
        ended_jobs = session.scalars(select(Job.id).where(*ended)).all()
    for capture_id in captures:
        ground.storage.delete_prefix(f"captures/{capture_id}")
        with ground.db.writing() as session:
            session.execute(delete(Photo).where(Photo.capture_id == capture_id))
            session.execute(update(Capture).where(Capture.id == capture_id).values(swept_at=now(session)))
    for job_id in ended_jobs:
        ground.storage.delete_prefix(f"jobs/{job_id}")
        files.discard(ground.settings, job_id)
        (ground.settings.logs / f"{job_id}.log").unlink(missing_ok=True)
        with ground.db.writing() as session:
            for table in (Asset, JobEvent):
                session.execute(delete(table).where(table.job_id == job_id))
            session.execute(update(Job).where(Job.id == job_id).values(swept_at=now(session)))


def sweep_cache(ground: Ground) -> None:
    """Remove kept results of stages that may go, and what a worker stored without living to note it."""
    with ground.db.reading() as session:
        unwanted = kept.unwanted(session, ground.settings)
    for entry in unwanted:
        cache.drop(ground.db, ground.storage, entry)
    oldest = datetime.now(UTC) - timedelta(seconds=INCOMING_KEPT_S)
    left = [key for key, written_at in ground.storage.written(kept.PREFIX) if written_at < oldest]
    if left:
        with ground.db.reading() as session:
            known = kept.places(session)
        for key in set(left) - known:
            cache.clear_place(ground.storage, key)


def sweep_folders(ground: Ground) -> None:
    """Remove what is left on this machine's disk: uploads that broke off a day ago, workspaces of jobs that are over or unknown."""
    oldest = time.time() - INCOMING_KEPT_S
    for path in ground.settings.incoming.glob("*.part"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
    for folder in ground.settings.work.glob("*/"):
        with ground.db.reading() as session:
            job = session.get(Job, folder.name)
            is_over = job is None or job.state == "succeeded" or (job.deleted_at is not None and job.state in TERMINAL)
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)
