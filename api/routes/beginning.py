"""The two ways to begin an upload: the headers of tus, and JSON; and what every answer about one says."""

import re

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from api import receiving, schemas, tus, views
from api.db import now
from api.deps import UUID, State
from api.errors import NotFound
from api.models import Upload
from api.multipart import announced_bytes
from api.routes.starting import body_json, checked
from api.services import intake, parts, uploads
from api.services.uploads import Announced
from engine.errors import InputError

MAX_GIVEN_CHARS = 4096
SIGNED_AT_MOST_S = 7 * 86_400.0  # no store signs for longer
SHA256 = re.compile(r"[0-9a-f]{64}")


def from_headers(length: str | None, given: str, capture_id: str | None, key_id: str | None) -> Announced:
    """Return the file that tus headers announce."""
    n_bytes = tus.number("Upload-Length", length)
    if len(given) > MAX_GIVEN_CHARS:
        raise tus.bad_header("Upload-Metadata", f"has more than {MAX_GIVEN_CHARS} characters")
    said = tus.metadata(given)
    sha256 = said.get("sha256")
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise tus.bad_header("Upload-Metadata", "has a sha256 that is not 64 hexadecimal digits")
    name = (said.get("filename") or said.get("name") or "").replace("\0", "")
    return Announced(capture_of(capture_id, said.get("capture_id")), name, n_bytes, given, sha256, key_id)


def capture_of(*named: str | None) -> str:
    """Return the one capture that a request names, wherever it does; ``InputError`` when it names none or two."""
    found = {each for each in named if each}
    if len(found) != 1:
        raise InputError(
            "input.which_capture",
            "Which capture",
            "the request names no capture" if not found else f"the request names {len(found)} captures",
            "Put capture_id into Upload-Metadata, the query or the JSON, or POST to /v1/captures/{capture_id}/uploads.",
        )
    (only,) = found
    if not UUID.fullmatch(only):
        raise NotFound.named("capture", only)
    return only


def create(app: State, wanted: Announced) -> Upload:
    """Make an upload."""
    with app.db.writing() as session:
        return uploads.create(session, app.settings, wanted)


async def by_tus(request: Request, app: State, wanted: Announced, checksum: str | None) -> Response:
    """Begin an upload as tus wants it, with the first bytes when they came along."""
    has_bytes = tus.is_bytes(request.headers)
    demand = tus.Checksum.parse(checksum) if checksum is not None and has_bytes else None
    if has_bytes and announced_bytes(request) > wanted.length:
        raise receiving.too_long(wanted.length)
    row = await run_in_threadpool(create, app, wanted)
    if has_bytes or row.length == 0:
        row = await receiving.receive(request, app, row.id, receiving.Piece(0, demand))
    return Response(status_code=201, headers={"Location": f"/v1/uploads/{row.id}", **headers_of(row)})


def by_json(app: State, key_id: str | None, body: bytes, capture_id: str | None) -> Response:
    """Begin an upload as JSON describes it; in parts when it asks for them."""
    asked = checked(schemas.NewUpload, body_json(body))
    wanted = Announced(capture_of(capture_id, asked.capture_id), asked.name, asked.size_bytes, "", asked.sha256, key_id)
    plan = parts.plan(app.settings, app.storage, asked.size_bytes) if asked.mode == "parts" else None
    with app.db.writing() as session:
        row = uploads.create(session, app.settings, wanted, plan)
    headers = {"Location": f"/v1/uploads/{row.id}", **headers_of(row)}
    return Response(shown(app, row).model_dump_json(), 201, headers, "application/json")


def headers_of(row: Upload) -> dict[str, str]:
    """Return what tus says of an upload in every answer, and what it became: ``Upload-State``, and its photo or error."""
    found = {"Upload-Offset": str(row.offset), "Upload-State": row.state}
    if row.state == intake.OPEN:
        return found | {"Upload-Expires": tus.http_date(row.expires_at)}
    if row.photo_id is not None:
        found["Upload-Photo"] = row.photo_id
    if row.error is not None:
        found["Upload-Error"] = row.error["code"]
    return found


def shown(app: State, row: Upload) -> schemas.UploadOut:
    """Return an upload's answer; in parts with fresh addresses of what is to come and what has arrived."""
    with app.db.reading() as session:
        answer = views.upload(session, row)
        lasts_s = min((row.expires_at - now(session)).total_seconds(), SIGNED_AT_MOST_S)
    if row.parts is None or row.state != intake.OPEN or lasts_s < 1:
        return answer
    answer.parts = [
        schemas.PartOut(
            number=part.number,
            size_bytes=part.size_bytes,
            has_arrived=part.etag is not None,
            etag=part.etag,
            url=app.storage.signed_put(part.key, lasts_s),
        )
        for part in parts.parts_of(app.storage, row)
    ]
    return answer
