"""The two bodies that start a job: JSON that names a capture, and a form that brings the photos."""

import json
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import schemas, views
from api.deps import State
from api.errors import Malformed, UnsupportedBody
from api.models import new_id
from api.multipart import Form, received_form
from api.routes import webhooks as hooks
from api.services import captures, idempotency, intake, jobs, keeping, photos, tallies
from engine.errors import InputError
from engine.options import RunOptions
from engine.workspace import hash_json

ROUTE = "POST /v1/jobs"
Body = TypeVar("Body", bound=BaseModel)
EXAMPLES = {"options": '{"train": {"steps": 500}}', "webhook": '{"url": "https://example.org/hook"}'}
FORM_FIELDS = ("preset", "options", "name", "priority", "ttl_hours", "webhook")
BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/NewJob"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "photos"},
                        "preset": {"type": "string", "default": "draft"},
                        "options": {"type": "string", "description": "JSON object of overrides"},
                        "name": {"type": "string", "description": "name of the capture that is made"},
                        "priority": {"type": "integer", "minimum": -10, "maximum": 10, "default": 0},
                        "ttl_hours": {
                            "type": "number",
                            "exclusiveMinimum": 0,
                            "maximum": 87_600,
                            "description": "the job is deleted so many hours after its end",
                        },
                        "webhook": {"type": "string", "description": "JSON object: url to tell of this job, and if wanted secret, types"},
                    },
                    "required": ["files"],
                }
            },
        },
    }
}


async def start(request: Request, app: State, key: str | None, asked: jobs.Asked) -> schemas.StartedJob:
    """Start the job that the body describes; with a key that came before, return the job it made then."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        reserved = await run_in_threadpool(reserved_bytes, app)
        async with received_form(request, app.settings, reserved) as form:
            return await run_in_threadpool(start_from_form, app, form, key, asked)
    if kind != "application/json":
        raise UnsupportedBody(
            "request.unsupported_body",
            "Unsupported body",
            f"a job starts from JSON or a form, not from {kind[:100] or 'nothing'!r}",
            "Send application/json with a capture_id, or photos as multipart/form-data.",
        )
    wanted = checked(schemas.NewJob, body_json(await request.body()))
    return await run_in_threadpool(start_from_json, app, wanted, key, asked)


def body_json(body: bytes) -> Any:
    """Return the JSON of a body; ``Malformed`` when it is none or nested without end."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(
            "request.malformed_json", "Malformed JSON", f"the body is no JSON: {str(error)[:200]}", "Send a JSON object."
        ) from error


def field_json(form: Form, field: str) -> Any:
    """Return the JSON that a form's field holds, an empty object where there is nothing; ``InputError`` when it is none."""
    try:
        return json.loads(form.fields.get(field) or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(
            "input.malformed_field",
            "Malformed field",
            f"the field {field} is no JSON: {str(error)[:200]}",
            f"Send a JSON object, such as {field}={EXAMPLES[field]}",
        ) from error


def checked(kind: type[Body], value: Any, *place: str, strict: bool | None = None) -> Body:
    """Return what came as what it should be; each mistake is named with its place in the body. ``strict`` False: numbers may be text."""
    try:
        return kind.model_validate(value, strict=strict)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *place, *each["loc"])} for each in error.errors()]) from error


def start_from_json(app: State, wanted: schemas.NewJob, key: str | None, asked: jobs.Asked) -> schemas.StartedJob:
    """Start a job over a capture that is there."""
    options = jobs.options_of(wanted.preset, wanted.options)
    body_hash = hash_json(wanted.model_dump())
    if (known := known_job(app, key, body_hash)) is not None:
        return known
    webhook = hooks.checked(app.settings, wanted.webhook)
    asked = replace(asked, priority=wanted.priority, ttl_hours=wanted.ttl_hours)

    def make(session: Session) -> Any:
        job = jobs.create(session, app.settings, wanted.capture_id, options, asked)
        hooks.attach(session, app.settings, job, webhook)
        return job

    return once(app, key, body_hash, make)


def start_from_form(app: State, form: Form, key: str | None, asked: jobs.Asked) -> schemas.StartedJob:
    """Make a capture of the form's files and start a job over it, both or neither."""
    options, asked = form_options(form), form_asked(form, asked)
    name = captures.checked_name(form.fields.get("name", ""))
    body_hash = hash_json([form.fields, [[file.name, file.sha256] for file in form.files]])
    if (known := known_job(app, key, body_hash)) is not None:
        return known
    webhook = hooks.checked(app.settings, form_webhook(form))
    examined = photos.examine(form.files, app.photo_limits)
    photos.check_some(examined)
    capture_id = new_id()
    with keeping.kept(app.storage, capture_id, examined) as kept:
        added: list[photos.Added] = []

        def make(session: Session) -> Any:
            capture = captures.create(session, name, capture_id, asked.key_id)
            tallies.add(session, "upload_bytes_total", sum(file.size_bytes for file in form.files))
            added[:] = photos.add(session, app.settings, capture, kept.examined)
            job = jobs.create(session, app.settings, capture_id, options, asked)
            hooks.attach(session, app.settings, job, webhook)
            return job

        job = once(app, key, body_hash, make)
        if job.capture_id == capture_id:  # else another request with this key was faster
            kept.settle(added)
    return job


def reserved_bytes(app: State) -> int:
    """Return what of the free disk open uploads have reserved."""
    with app.db.reading() as session:
        return intake.reserved_bytes(session)


def form_options(form: Form) -> RunOptions:
    """Return the options that a form's fields ask for."""
    unknown = sorted(set(form.fields) - set(FORM_FIELDS))
    if unknown:
        raise InputError(
            "input.unknown_field", "Unknown field", f"there is no field {unknown[0][:100]!r}", f"Known: files, {', '.join(FORM_FIELDS)}."
        )
    return jobs.options_of(form.fields.get("preset") or "draft", field_json(form, "options"))


def form_asked(form: Form, asked: jobs.Asked) -> jobs.Asked:
    """Return how urgent the job is and how long it is kept, as a form's fields say."""
    fields = {name: form.fields[name] for name in ("priority", "ttl_hours") if form.fields.get(name)}
    wanted = checked(schemas.Keeping, fields, strict=False)
    return replace(asked, priority=wanted.priority, ttl_hours=wanted.ttl_hours)


def form_webhook(form: Form) -> schemas.JobWebhook | None:
    """Return the webhook that a form's field asks for."""
    if not form.fields.get("webhook"):
        return None
    return checked(schemas.JobWebhook, field_json(form, "webhook"), "webhook")


def known_job(app: State, key: str | None, body_hash: str) -> schemas.StartedJob | None:
    """Return the job that an earlier request with this key made."""
    if key is None:
        return None
    with app.db.reading() as session:
        known = idempotency.find(session, key, ROUTE, body_hash)
        return views.started_job(session, jobs.get(session, known)) if known else None


def once(app: State, key: str | None, body_hash: str, make: Any) -> schemas.StartedJob:
    """Make a job in one transaction; with a key at most once, also when two requests come at the same time."""
    if (known := known_job(app, key, body_hash)) is not None:
        return known
    try:
        with app.db.writing() as session:
            job = make(session)
            if key is not None:
                idempotency.remember(session, key, ROUTE, body_hash, job.id)
            return views.started_job(session, job)
    except IntegrityError:
        known = known_job(app, key, body_hash)
        if known is None:
            raise
        return known
