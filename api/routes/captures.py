"""Captures and their photos over HTTP."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api import schemas, views
from api.deps import App, CaptureId, Cursor, IdempotencyKey, Limit, Reading, State, Who, Writing, needs
from api.multipart import Form, received_form
from api.problems import RESPONSES
from api.services import captures, idempotency, intake, keeping, photos, tallies
from engine.workspace import hash_json

router = APIRouter(prefix="/v1/captures", tags=["captures"], responses=RESPONSES)
FORM_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "photos"}},
                    "required": ["files"],
                }
            }
        },
    }
}


@router.post("", status_code=201, dependencies=[needs("captures:write")], operation_id="create_capture")
def create_capture(
    session: Writing, response: Response, who: Who, body: schemas.NewCapture | None = None, key: IdempotencyKey = None
) -> schemas.CaptureDetail:
    """Make an empty capture."""
    wanted = body or schemas.NewCapture()
    route, body_hash = "POST /v1/captures", hash_json(wanted.model_dump())
    known = idempotency.find(session, key, route, body_hash) if key else None
    capture = captures.get(session, known) if known else captures.create(session, wanted.name, key_id=who.key_id)
    if key and not known:
        idempotency.remember(session, key, route, body_hash, capture.id)
    response.headers["Location"] = f"/v1/captures/{capture.id}"
    return views.capture_detail(session, capture)


@router.get("", dependencies=[needs("captures:read")], operation_id="list_captures")
def list_captures(session: Reading, limit: Limit = 50, cursor: Cursor = None) -> schemas.CapturePage:
    """List captures, newest first."""
    rows = captures.page(session, limit + 1, cursor)
    following = rows[limit - 1].id if len(rows) > limit else None
    return schemas.CapturePage(items=views.captures_out(session, rows[:limit]), next_cursor=following)


@router.get("/{capture_id}", dependencies=[needs("captures:read")], operation_id="get_capture")
def get_capture(session: Reading, capture: CaptureId) -> schemas.CaptureDetail:
    """Return a capture and all its photos, rejected ones with the reason."""
    return views.capture_detail(session, captures.get(session, capture))


@router.delete("/{capture_id}", status_code=204, dependencies=[needs("captures:write")], operation_id="delete_capture")
def delete_capture(session: Writing, capture: CaptureId) -> None:
    """Delete a capture and its photos; 409 while a job works on it."""
    captures.delete(session, capture)


@router.post(
    "/{capture_id}/photos", status_code=201, dependencies=[needs("captures:write")], operation_id="upload_photos", openapi_extra=FORM_BODY
)
async def upload_photos(request: Request, app: App, capture: CaptureId) -> schemas.Uploaded:
    """Upload photos, one part each. Every file has its own result: bad ones are named and the others are kept."""
    reserved = await run_in_threadpool(check_room, app, capture)
    async with received_form(request, app.settings, reserved) as form:
        return await run_in_threadpool(store_photos, app, capture, form)


def check_room(app: State, capture_id: str) -> int:
    """Raise before any byte is read when there is no such capture; return what of the disk others have reserved."""
    with app.db.reading() as session:
        captures.get(session, capture_id)
        return intake.reserved_bytes(session)


def store_photos(app: State, capture_id: str, form: Form) -> schemas.Uploaded:
    """Examine received files, keep the usable ones, and write their rows."""
    examined = photos.examine(form.files, app.photo_limits)
    photos.check_some(examined)
    with keeping.kept(app.storage, capture_id, examined) as kept:
        with app.db.writing() as session:
            capture = captures.get(session, capture_id, lock=True)
            tallies.add(session, "upload_bytes_total", sum(file.size_bytes for file in form.files))
            added = photos.add(session, app.settings, capture, kept.examined)
            answer = views.uploaded(capture_id, added)
        kept.settle(added)
    return answer
