"""How a job's splat looks while it is trained: one picture, replaced again and again."""

from sqlalchemy.orm import Session

from api.errors import NotFound
from api.models import Asset
from api.services import jobs

NAME = "preview.webp"
MEDIA_TYPE = "image/webp"


def key_of(job_id: str) -> str:
    """Return where the picture of a job at work is kept."""
    return f"jobs/{job_id}/{NAME}"


def url_of(job_id: str) -> str:
    """Return where clients find it."""
    return f"/v1/jobs/{job_id}/preview"


def find(session: Session, job_id: str) -> str:
    """Return where the latest picture of a job is kept: the finished one once there is one."""
    jobs.get(session, job_id)
    finished = session.get(Asset, (job_id, NAME))
    return finished.storage_key if finished is not None else key_of(job_id)


def missing(job_id: str) -> NotFound:
    """Return the error of a job that has no picture yet."""
    return NotFound("not_found.preview", "No preview yet", f"the job {job_id} has no picture yet", "The first comes while it trains.")
