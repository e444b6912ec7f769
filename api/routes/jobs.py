"""Jobs over HTTP: start, watch, cancel, start again, delete."""

import hashlib
import time
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api import downloads, schemas, views
from api.deps import App, Cursor, IdempotencyKey, JobId, Limit, Prefer, Reading, State, Who, Writing, demand, needs, wait_s
from api.problems import RESPONSES
from api.routes.starting import BODIES, start
from api.services import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES)
WAIT_POLL_S = 0.3
NoneMatch = Annotated[str | None, Header(description="entity tag of an earlier answer: 304 when nothing has changed")]


@router.post(
    "",
    status_code=202,
    response_model=schemas.StartedJob,
    dependencies=[needs("jobs:write")],
    operation_id="start_job",
    openapi_extra=BODIES,
)
async def start_job(request: Request, app: App, who: Who, key: IdempotencyKey = None, prefer: Prefer = None) -> Response:
    """Start a job: JSON names a capture; multipart/form-data brings the photos along and makes the capture too."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        demand(who, "captures:write")
    job = await start(request, app, key, asked(request, who))
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": "2"}
    if seconds := wait_s(prefer):
        ended = await wait_for_end(app, job.id, seconds)
        job = schemas.StartedJob(**ended.model_dump(), webhook=job.webhook)
        headers["Preference-Applied"] = f"wait={seconds}"
    return Response(job.model_dump_json(), 202, headers, "application/json")


def asked(request: Request, who: Who) -> jobs.Asked:
    """Return who asks for a job, and within which trace."""
    return jobs.Asked(key_id=who.key_id, traceparent=request.scope.get("traceparent"))


@router.get("", dependencies=[needs("jobs:read")], operation_id="list_jobs")
def list_jobs(
    session: Reading, limit: Limit = 50, cursor: Cursor = None, state: schemas.JobState | None = None, capture_id: schemas.Id | None = None
) -> schemas.JobPage:
    """List jobs, newest first."""
    rows = jobs.page(session, limit + 1, cursor, state, capture_id)
    following = rows[limit - 1].id if len(rows) > limit else None
    return schemas.JobPage(items=views.jobs_out(session, rows[:limit]), next_cursor=following)


@router.get("/{job_id}", response_model=schemas.JobOut, dependencies=[needs("jobs:read")], operation_id="get_job")
async def get_job(app: App, job: JobId, prefer: Prefer = None, if_none_match: NoneMatch = None) -> Response:
    """Return a job with the progress of each stage; ``Prefer: wait=N`` answers when it has ended or after N seconds."""
    found = await wait_for_end(app, job, wait_s(prefer))
    body = found.model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if downloads.matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


async def wait_for_end(app: State, job_id: str, seconds: int) -> schemas.JobOut:
    """Return the job once it has ended, or as it is after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        job = await run_in_threadpool(read_job, app, job_id)
        if job.state in jobs.TERMINAL or time.monotonic() >= deadline:
            return job
        await anyio.sleep(WAIT_POLL_S)


def read_job(app: State, job_id: str) -> schemas.JobOut:
    """Return a job as it is now."""
    with app.db.reading() as session:
        return views.job(session, jobs.get(session, job_id))


@router.post("/{job_id}/cancel", status_code=202, dependencies=[needs("jobs:write")], operation_id="cancel_job")
def cancel_job(session: Writing, response: Response, job: JobId) -> schemas.JobOut:
    """Stop a job: 200 when it is cancelled already, 202 while its worker is being stopped, 409 when it has ended otherwise."""
    row = jobs.request_cancel(session, job)
    response.status_code = 200 if row.state == "cancelled" else 202
    return views.job(session, row)


@router.post("/{job_id}/retry", status_code=202, dependencies=[needs("jobs:write")], operation_id="retry_job")
def retry_job(
    request: Request, app: App, session: Writing, who: Who, response: Response, job: JobId, body: schemas.RetryJob | None = None
) -> schemas.JobOut:
    """Start an ended job again as a new job, which takes over what was finished before ``from_stage``."""
    wanted = body or schemas.RetryJob()
    again = jobs.Again(wanted.from_stage, wanted.options)
    row = jobs.retry(session, app.settings, job, again, asked(request, who))
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return views.job(session, row)


@router.delete("/{job_id}", status_code=204, dependencies=[needs("jobs:write")], operation_id="delete_job")
def delete_job(session: Writing, job: JobId) -> None:
    """Delete a job and all its files, stopping it first; from then on it answers 410."""
    jobs.delete(session, job)
