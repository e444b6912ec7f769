"""A job's news: events as a stream or a list, and its log."""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from api import schemas, views
from api.deps import App, JobId, State, needs
from api.downloads import Download, matches, respond
from api.problems import RESPONSES
from api.services import events, jobs, previews

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES)
POLL_S = 0.5
KEEP_ALIVE_S = 15.0
LIFE_S = 600.0
RETRY_MS = 1000
BLOCK_BYTES = 1 << 20
MAX_SEQ = 2**31 - 1
# One event of the stream; ``data`` is JSON: the job in a snapshot, else what the list of events shows.
EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("event", "id", "data")}, "required": ["data"]}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events (id is the number, resume with Last-Event-ID); a JSON list with Accept: application/json",
        "content": {"text/event-stream": {"schema": EVENT}},
    }
}


@router.get(
    "/{job_id}/events", dependencies=[needs("jobs:read")], operation_id="job_events", response_model=schemas.EventList, responses=STREAM
)
async def job_events(
    request: Request,
    app: App,
    job: JobId,
    after: Annotated[int | None, Query(ge=0, le=MAX_SEQ, description="only events later than this number")] = None,
    last_event_id: Annotated[str | None, Header(description="number of the last event seen")] = None,
) -> Response:
    """Follow a job: first a snapshot of it, then every event as it happens; the stream ends when the job has ended."""
    seen = after if after is not None else seen_by(last_event_id)
    if wants_json(request.headers.get("accept", "")):
        listed = await run_in_threadpool(list_events, app, job, seen or 0)
        return Response(listed.model_dump_json(), media_type="application/json")
    await run_in_threadpool(check_exists, app, job)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(app, job, seen), headers=headers, media_type="text/event-stream")


def seen_by(last_event_id: str | None) -> int | None:
    """Return the number in a Last-Event-ID header; anything else counts as none."""
    text = (last_event_id or "").strip()
    return min(int(text), MAX_SEQ) if text.isascii() and text.isdigit() and len(text) < 12 else None


def wants_json(accept: str) -> bool:
    """Tell whether a client asked for JSON rather than a stream."""
    return "application/json" in accept and "text/event-stream" not in accept


def check_exists(app: State, job_id: str) -> None:
    """Raise before the stream begins when there is no such job."""
    with app.db.reading() as session:
        jobs.get(session, job_id)


def list_events(app: State, job_id: str, seen: int) -> schemas.EventList:
    """Return events later than ``seen``."""
    with app.db.reading() as session:
        jobs.get(session, job_id)
        return schemas.EventList(items=[views.event(row) for row in events.after(session, job_id, seen)])


def snapshot(app: State, job_id: str) -> tuple[int, bytes]:
    """Return the number of the last event and a message that shows the whole job as of then."""
    with app.db.reading() as session:
        row = jobs.get(session, job_id)
        data = views.job(session, row).model_dump_json()
        return row.event_seq, format_sse_event(data_str=data, event="snapshot", id=str(row.event_seq), retry=RETRY_MS)


def news(app: State, job_id: str, seen: int) -> tuple[list[tuple[int, bytes]], bool]:
    """Return messages later than ``seen``, and whether there will be no more."""
    with app.db.reading() as session:
        row = jobs.get(session, job_id)
        found = events.after(session, job_id, seen)
        last = found[-1].seq if found else seen
        messages = [(each.seq, encode(views.event(each))) for each in found]
        return messages, row.state in jobs.TERMINAL and last >= row.event_seq


def encode(event: schemas.EventOut) -> bytes:
    """Return an event as a message of the stream."""
    data = json.dumps({"seq": event.seq, "at": event.at.isoformat(), **event.data})
    return format_sse_event(data_str=data, event=event.type, id=str(event.seq))


async def stream(app: State, job_id: str, seen: int | None) -> AsyncIterator[bytes]:
    """Yield messages until the job has ended, or for ten minutes: then the client comes again, which costs it nothing."""
    if seen is None:
        last, first = await run_in_threadpool(snapshot, app, job_id)
        yield first
    else:
        last = seen
    started = said = time.monotonic()
    while time.monotonic() - started < LIFE_S:
        messages, is_over = await run_in_threadpool(news, app, job_id, last)
        for number, message in messages:
            yield message
            last = number
        if is_over:
            return
        if messages:
            said = time.monotonic()
        elif time.monotonic() - said > KEEP_ALIVE_S:
            said = time.monotonic()
            yield KEEPALIVE_COMMENT
        await anyio.sleep(POLL_S)


@router.get(
    "/{job_id}/logs",
    dependencies=[needs("jobs:read")],
    operation_id="job_logs",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def job_logs(request: Request, app: App, job: JobId) -> Response:
    """Return what the stages wrote while they worked, as text; byte ranges fetch only what is new."""
    check_exists(app, job)
    path = app.settings.logs / f"{job}.log"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        pass  # it was made on another machine, or is put away
    else:
        return respond(request, Download(size, "text/plain; charset=utf-8", lambda start, stop: read_file(path, start, stop)))
    key = f"jobs/{job}/log.txt"
    try:
        size = app.storage.size(key)
    except FileNotFoundError:
        size = 0
    return respond(request, Download(size, "text/plain; charset=utf-8", lambda start, stop: app.storage.read(key, start, stop)))


@router.head("/{job_id}/logs", dependencies=[needs("jobs:read")], include_in_schema=False)
def job_logs_head(request: Request, app: App, job: JobId) -> Response:
    """Return how long the log is."""
    return job_logs(request, app, job)


@router.get(
    "/{job_id}/preview",
    dependencies=[needs("jobs:read")],
    operation_id="job_preview",
    response_class=Response,
    responses={200: {"description": "WebP picture", "content": {previews.MEDIA_TYPE: {}}}},
)
def job_preview(request: Request, app: App, job: JobId) -> Response:
    """Return how the splat looks: while it is trained the latest picture, afterwards the finished one."""
    with app.db.reading() as session:  # closed before the bytes flow
        key = previews.find(session, job)
    try:
        size = app.storage.size(key)
        body = b"".join(app.storage.read(key, 0, size))
    except FileNotFoundError as error:
        raise previews.missing(job) from error
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, previews.MEDIA_TYPE)


def read_file(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of a file from ``start`` to ``stop``."""
    with path.open("rb") as handle:
        handle.seek(start)
        left = stop - start
        while left > 0 and (block := handle.read(min(left, BLOCK_BYTES))):
            left -= len(block)
            yield block
