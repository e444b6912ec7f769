"""What a job will take, before it is started."""

from dataclasses import asdict

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api import schemas
from api.deps import App, needs
from api.problems import RESPONSES
from api.services import captures, estimates, jobs
from api.services.estimates import Estimate, Given
from engine.options import RunOptions

router = APIRouter(prefix="/v1", tags=["jobs"], responses=RESPONSES)


@router.post("/estimate", dependencies=[needs("jobs:write")], operation_id="estimate_job")
def estimate_job(app: App, body: schemas.NewEstimate) -> schemas.EstimateOut:
    """Say how long a job over these photos would take, how much memory and disk; refuse what this machine cannot do.

    From what like jobs took here where there were enough; else training is tried for some seconds, one estimate at a time.
    """
    options = jobs.options_of(body.preset, body.options)
    jobs.as_json(options)
    with app.db.reading() as session:
        given = given_by(session, app, body, options)
        found = estimates.from_history(session, options, given)
        is_here = found is None or estimates.works_here(session)
    found = found or estimates.by_trial(app.settings, app.storage, options, given)
    if is_here:
        estimates.check_fits(app.settings, found)
    return out(found, options)


def given_by(session: Session, app: App, body: schemas.NewEstimate, options: RunOptions) -> Given:
    """Return the photos that the body means: those of a capture, or so many of one size."""
    if body.photos is not None:
        return Given([(body.photos.width, body.photos.height)] * body.photos.count, [])
    assert body.capture_id is not None, "the schema asks for one of the two"
    captures.get(session, body.capture_id)
    return estimates.given_by(session, app.settings, body.capture_id, options)


def out(found: Estimate, options: RunOptions) -> schemas.EstimateOut:
    """Return an estimate's answer."""
    return schemas.EstimateOut.model_validate(
        {
            "basis": found.basis,
            "preset": options.preset,
            "n_photos": found.n_photos,
            "stages": [asdict(stage) for stage in found.stages],
            "p50_s": round(found.p50_s, 1),
            "p90_s": round(found.p90_s, 1),
            "minutes": round(found.p50_s / 60, 1),
            "peak_memory_bytes": found.peak_memory_bytes,
            "disk_bytes": found.disk_bytes,
        }
    )
