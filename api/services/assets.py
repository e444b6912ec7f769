"""Finished files of jobs: recorded all at once, found by name."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import now
from api.errors import Conflict, NotFound
from api.models import Asset
from api.services import jobs

BYTES = "application/octet-stream"
MEDIA_TYPES = {
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "zip": "application/zip",
    "webp": "image/webp",
    "png": "image/png",
    "jpg": "image/jpeg",
    "glb": "model/gltf-binary",
}


@dataclass(frozen=True)
class Stored:
    """A file that lies in storage, whole."""

    name: str
    storage_key: str
    sha256: str
    size_bytes: int


def media_type(name: str) -> str:
    """Return the media type of a file name; splat formats have none of their own."""
    return MEDIA_TYPES.get(name.rpartition(".")[2].lower(), BYTES)


def record(session: Session, job_id: str, files: list[Stored]) -> None:
    """Write the rows of all files of a job; the caller's transaction also makes the job succeed."""
    moment = now(session)
    session.add_all(
        Asset(
            job_id=job_id,
            name=file.name,
            storage_key=file.storage_key,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            media_type=media_type(file.name),
            created_at=moment,
        )
        for file in files
    )
    session.flush()


def of_job(session: Session, job_id: str) -> list[Asset]:
    """Return a job's assets by name; none before it has succeeded."""
    jobs.get(session, job_id)
    return list(session.scalars(select(Asset).where(Asset.job_id == job_id).order_by(Asset.name)))


def get(session: Session, job_id: str, name: str) -> Asset:
    """Return one asset; ``Conflict`` while its job has not succeeded, ``NotFound`` when it has no such file."""
    job = jobs.get(session, job_id)
    asset = session.get(Asset, (job_id, name)) if name.isprintable() else None
    if asset is None and job.state != "succeeded":
        raise Conflict(
            "conflict.not_ready",
            "No result yet",
            f"the job {job_id} is {job.state}",
            "Wait until its state is succeeded.",
            {"state": job.state},
        )
    if asset is None:
        names = session.scalars(select(Asset.name).where(Asset.job_id == job_id).order_by(Asset.name))
        raise NotFound("not_found.asset", "No such asset", f"the job has no file {name[:100]!r}", f"It has: {', '.join(names)}.")
    return asset
