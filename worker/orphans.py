"""Removes results that no job shows: their worker died between storing them and writing their rows, or it woke up too late."""

from collections import defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import Database
from api.models import Asset, Job
from api.services.jobs import TERMINAL
from api.storage import Storage

AT_ONCE = 500


def sweep_results(db: Database, storage: Storage) -> list[str]:
    """Remove stored results that no row shows and none ever will; return the folders removed.

    Results lie under the fence of the attempt that made them. Nobody can show them any more once the job has ended or gone on to
    another fence, so no clock decides: what a running attempt has just stored stays.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for key, _written_at in storage.written("jobs"):
        job_id = key.split("/")[1]
        places[job_id].add(folder_of(key))
    removed, ids = [], sorted(places)
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        with db.reading() as session:
            left = {place for job_id, folders in unseen(session, {each: places[each] for each in some}).items() for place in folders}
        for place in sorted(left):
            storage.delete_prefix(place)
            removed.append(place)
    return removed


def folder_of(key: str) -> str:
    """Return the folder that is kept or removed as one: all results of an attempt, else all that is kept of a job."""
    parts = key.split("/")
    return "/".join(parts[:4]) if len(parts) > 4 and parts[2] == "assets" else "/".join(parts[:2])


def unseen(session: Session, places: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return which folders of which jobs nobody will ever see."""
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(places)))}
    shown = {folder_of(key) for key in session.scalars(select(Asset.storage_key).where(Asset.job_id.in_(places)))}
    found: dict[str, set[str]] = {}
    for job_id, folders in places.items():
        job = jobs.get(job_id)
        if job is None or job.swept_at is not None:
            found[job_id] = {f"jobs/{job_id}"}
            continue
        attempts = {folder for folder in folders if folder.count("/") == 3} - shown
        found[job_id] = {folder for folder in attempts if job.state in TERMINAL or fence_of(folder) != job.fence}
    return found


def fence_of(folder: str) -> int:
    """Return the fence in a folder of results; -1 where there is none."""
    last = folder.rpartition("/")[2]
    return int(last) if last.isdecimal() else -1
