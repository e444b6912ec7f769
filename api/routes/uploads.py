"""Resumable uploads: tus 1.0.0, and parts that clients bring to the object store themselves."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api import receiving, schemas, tus
from api.deps import App, CaptureId, UploadId, Who, needs
from api.errors import UnsupportedBody
from api.problems import RESPONSES
from api.routes import beginning
from api.services import intake, parts, spool, uploads

BYTES = {"schema": {"type": "string", "format": "binary"}}
CREATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": schemas.NewUpload.model_json_schema()}, tus.BODY_TYPE: BYTES},
    }
}
PATCH_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {tus.BODY_TYPE: BYTES}}}
Length = Annotated[str | None, Header(alias="Upload-Length", description="tus: bytes of the whole file")]
Metadata = Annotated[
    str | None,
    Header(alias="Upload-Metadata", description="tus: filename, filetype, capture_id, sha256 (of the whole file); `key base64, …`"),
]
Offset = Annotated[str | None, Header(alias="Upload-Offset", description="tus: where these bytes begin; what HEAD said")]
Sum = Annotated[str | None, Header(alias="Upload-Checksum", description=f"tus: `algorithm base64`, of {', '.join(tus.ALGORITHMS)}")]
Version = Annotated[str | None, Header(alias="Tus-Resumable", description=f"{tus.VERSION}; without a JSON body it must be there")]
Prefer = Annotated[str | None, Header(description="return=representation: answer the last bytes with 200 and the upload, not with 204")]
CaptureQuery = Annotated[str | None, Query(alias="capture_id", description="the capture, where the metadata do not name it")]

router = APIRouter(prefix="/v1", tags=["uploads"], responses=RESPONSES, dependencies=[Depends(tus.check_version)])
CREATED: dict[int | str, dict[str, Any]] = {201: {"model": schemas.UploadOut, "description": "made; by tus without a body"}}


@router.options("/uploads", status_code=204, dependencies=[needs()], operation_id="describe_uploads")
@router.options("/uploads/{upload_id}", status_code=204, dependencies=[needs()], include_in_schema=False)
def describe_uploads(app: App) -> Response:
    """Say which version and extensions of tus are spoken, and how large a file may be."""
    return Response(status_code=204, headers=tus.offers(max(app.settings.max_file_bytes, app.settings.max_video_bytes)))


@router.post(
    "/uploads",
    status_code=201,
    dependencies=[needs("captures:write")],
    operation_id="create_upload",
    openapi_extra=CREATE_BODY,
    responses=CREATED,
)
async def create_upload(
    request: Request,
    app: App,
    who: Who,
    capture: CaptureQuery = None,
    length: Length = None,
    given: Metadata = None,
    sum_: Sum = None,
    _version: Version = None,
) -> Response:
    """Begin an upload of one file into a capture: by tus (headers; the first bytes may come along), or by JSON.

    The capture is named by `capture_id` in the metadata, the query or the JSON, or use `/v1/captures/{capture_id}/uploads`. With
    `mode: parts` the answer has addresses of the object store, where it is one: PUT the parts there, then complete the upload. At
    its last byte the file becomes a photo, or the upload is `refused` and its `error` says why.
    """
    if tus.is_json(request.headers):
        return await run_in_threadpool(beginning.by_json, app, who.key_id, await request.body(), capture)
    wanted = beginning.from_headers(length, given or "", capture, who.key_id)
    return await beginning.by_tus(request, app, wanted, sum_)


@router.post(
    "/captures/{capture_id}/uploads",
    status_code=201,
    dependencies=[needs("captures:write")],
    operation_id="create_upload_in_capture",
    openapi_extra=CREATE_BODY,
    responses=CREATED,
)
async def create_upload_in_capture(
    request: Request,
    app: App,
    who: Who,
    capture: CaptureId,
    length: Length = None,
    given: Metadata = None,
    sum_: Sum = None,
    _version: Version = None,
) -> Response:
    """Begin an upload into this capture; see `POST /v1/uploads`."""
    return await create_upload(request, app, who, capture, length, given, sum_)


@router.head("/uploads/{upload_id}", dependencies=[needs("captures:write")], operation_id="get_upload_offset")
async def get_upload_offset(app: App, upload: UploadId, _version: Version = None) -> Response:
    """Say how many bytes are safe (`Upload-Offset`). A request that still sends some is made to save them and let go first."""
    row = await run_in_threadpool(receiving.take, app, upload)
    if row.state == intake.OPEN:
        receiving.check_way(row, in_parts=False)
        async with receiving.held(app, row) as mine:
            row = await run_in_threadpool(receiving.finish_if_whole, app, mine)
    given = {"Upload-Metadata": row.given} if row.given else {}
    return Response(status_code=200, headers={"Upload-Length": str(row.length), **given, **beginning.headers_of(row)})


@router.get("/uploads/{upload_id}", dependencies=[needs("captures:read")], operation_id="get_upload")
def get_upload(app: App, upload: UploadId) -> schemas.UploadOut:
    """Return an upload: how far it is, what it became, and in parts where each goes. Does not disturb whoever sends."""
    with app.db.reading() as session:
        row = uploads.get(session, upload)
        uploads.check_there(row)
    return beginning.shown(app, row)


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    dependencies=[needs("captures:write")],
    operation_id="append_to_upload",
    openapi_extra=PATCH_BODY,
    responses={200: {"model": schemas.UploadOut, "description": "the file is whole, and Prefer: return=representation was sent"}},
)
async def append_to_upload(
    request: Request,
    app: App,
    upload: UploadId,
    offset: Offset = None,
    sum_: Sum = None,
    prefer: Prefer = None,
    _version: Version = None,
) -> Response:
    """Send the bytes that come next. With the last one the file becomes a photo: `Upload-State` says done or refused, and why."""
    if not tus.is_bytes(request.headers):
        raise UnsupportedBody("request.unsupported_body", "Unsupported body", f"bytes of an upload come as {tus.BODY_TYPE}", "Say so.")
    piece = receiving.Piece(tus.number("Upload-Offset", offset), tus.Checksum.parse(sum_) if sum_ is not None else None)
    row = await receiving.receive(request, app, upload, piece)
    if row.state != intake.OPEN and "return=representation" in (prefer or "").replace(" ", ""):
        body = await run_in_threadpool(beginning.shown, app, row)
        return Response(body.model_dump_json(), 200, beginning.headers_of(row), "application/json")
    return Response(status_code=204, headers=beginning.headers_of(row))


@router.delete("/uploads/{upload_id}", status_code=204, dependencies=[needs("captures:write")], operation_id="end_upload")
def end_upload(app: App, upload: UploadId, _version: Version = None) -> None:
    """End an upload without a photo; what came of it is removed. 409 once it has become one."""
    with app.db.writing() as session:
        row = uploads.terminate(session, upload)
    spool.forget(uploads.path_of(app.settings, upload))  # else whoever writes it lets go in a moment, and the sweeper takes it
    parts.discard(app.storage, row)


@router.post("/uploads/{upload_id}/complete", dependencies=[needs("captures:write")], operation_id="complete_upload")
async def complete_upload(app: App, upload: UploadId, body: schemas.CompleteUpload | None = None) -> schemas.UploadOut:
    """Put together the parts that lie in the object store; with etags each is checked to be what was sent."""
    etags = {part.number: part.etag for part in body.parts} if body else {}
    row = await receiving.complete(app, upload, etags)
    return await run_in_threadpool(beginning.shown, app, row)
