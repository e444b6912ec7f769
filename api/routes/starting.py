"""The two bodies that start a job: JSON that names a capture, and a form that brings the photos."""

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import schemas, views
from api.deps import State
from api.errors import Malformed, UnsupportedBody
from api.models import new_id
from api.multipart import Form, received_form
from api.services import captures, idempotency, jobs, photos
from engine.errors import InputError
from engine.options import RunOptions
from engine.workspace import hash_json

ROUTE = "POST /v1/jobs"
FORM_FIELDS = ("preset", "options", "name")
BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schemas.NewJob.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "photos"},
                        "preset": {"type": "string", "default": "draft"},
                        "options": {"type": "string", "description": "JSON object of overrides"},
                        "name": {"type": "string", "description": "name of the capture that is made"},
                    },
                    "required": ["files"],
                }
            },
        },
    }
}


async def start(request: Request, app: State, key: str | None) -> schemas.JobOut:
    """Start the job that the body describes; with a key that came before, return the job it made then."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with received_form(request, app.settings) as form:
            return await run_in_threadpool(start_from_form, app, form, key)
    if kind != "application/json":
        raise UnsupportedBody(
            "request.unsupported_body",
            "Unsupported body",
            f"a job starts from JSON or a form, not from {kind[:100] or 'nothing'!r}",
            "Send application/json with a capture_id, or photos as multipart/form-data.",
        )
    wanted = parse_json(await request.body())
    return await run_in_threadpool(start_from_json, app, wanted, key)


def load_json(text: str | bytes, what: str) -> Any:
    """Return parsed JSON; ``Malformed`` when it is none or nested without end."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("request.malformed_json", "Malformed JSON", f"the {what} is no JSON: {str(error)[:200]}") from error


def parse_json(body: bytes) -> schemas.NewJob:
    """Return the checked JSON body."""
    try:
        return schemas.NewJob.model_validate(load_json(body, "body"))
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from error


def start_from_json(app: State, wanted: schemas.NewJob, key: str | None) -> schemas.JobOut:
    """Start a job over a capture that is there."""
    options = jobs.options_of(wanted.preset, wanted.options)
    return once(app, key, hash_json(wanted.model_dump()), lambda session: jobs.create(session, app.settings, wanted.capture_id, options))


def start_from_form(app: State, form: Form, key: str | None) -> schemas.JobOut:
    """Make a capture of the form's files and start a job over it, both or neither."""
    options = form_options(form)
    name = captures.checked_name(form.fields.get("name", ""))
    body_hash = hash_json([form.fields, [[file.name, file.sha256] for file in form.files]])
    if (known := known_job(app, key, body_hash)) is not None:
        return known
    examined = photos.examine(form.files, app.photo_limits)
    photos.check_some(examined)
    capture_id = new_id()
    photos.keep(app.storage, capture_id, examined)

    def make(session: Session) -> Any:
        capture = captures.create(session, name, capture_id)
        photos.add(session, capture, examined, app.settings.max_photos)
        return jobs.create(session, app.settings, capture_id, options)

    job = None
    try:
        job = once(app, key, body_hash, make)
    finally:
        if job is None or job.capture_id != capture_id:  # refused, or another request with this key was faster
            app.storage.delete_prefix(f"captures/{capture_id}")
    return job


def form_options(form: Form) -> RunOptions:
    """Return the options that a form's fields ask for."""
    unknown = sorted(set(form.fields) - set(FORM_FIELDS))
    if unknown:
        raise InputError(
            "input.unknown_field", "Unknown field", f"there is no field {unknown[0][:100]!r}", f"Known: files, {', '.join(FORM_FIELDS)}."
        )
    overrides = load_json(form.fields.get("options") or "{}", "field options")
    return jobs.options_of(form.fields.get("preset") or "draft", overrides)


def known_job(app: State, key: str | None, body_hash: str) -> schemas.JobOut | None:
    """Return the job that an earlier request with this key made."""
    if key is None:
        return None
    with app.db.reading() as session:
        known = idempotency.find(session, key, ROUTE, body_hash)
        return views.job(session, jobs.get(session, known)) if known else None


def once(app: State, key: str | None, body_hash: str, make: Any) -> schemas.JobOut:
    """Make a job in one transaction; with a key at most once, also when two requests come at the same time."""
    if (known := known_job(app, key, body_hash)) is not None:
        return known
    try:
        with app.db.writing() as session:
            job = make(session)
            if key is not None:
                idempotency.remember(session, key, ROUTE, body_hash, job.id)
            return views.job(session, job)
    except IntegrityError:
        known = known_job(app, key, body_hash)
        if known is None:
            raise
        return known
