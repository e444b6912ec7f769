"""What is seen of a stage from outside: lines of log that name it, and a span that continues the trace of the job's request."""

import contextlib
import logging
from collections.abc import Iterator

from api import logs
from api.models import Job, JobStage
from api.services.leases import Claim
from worker.runtime import Runtime

log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched(runtime: Runtime, claim: Claim) -> Iterator[None]:
    """Watch a stage while the block runs it; how it ended is read from its row."""
    with runtime.db.reading() as session:
        traceparent = session.get_one(Job, claim.job_id).traceparent
        attempt = session.get_one(JobStage, (claim.job_id, claim.stage)).attempt
    fields: dict[str, str | int] = {"job": claim.job_id, "stage": claim.stage, "attempt": attempt, "fence": claim.fence}
    attributes = {f"splatworks.{name}": value for name, value in fields.items()}
    with logs.about(**fields), runtime.tracer.span(f"stage {claim.stage}", traceparent, attributes=attributes) as span:
        yield
        with runtime.db.reading() as session:
            state = session.get_one(JobStage, (claim.job_id, claim.stage), populate_existing=True).state
        span.tell({"splatworks.state": state})
        if state in ("done", "skipped"):
            log.info("job %s: %s is %s", claim.job_id, claim.stage, state)
        else:
            span.fail(f"the stage is {state}")
