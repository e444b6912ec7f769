"""Links to finished splats over HTTP: made and revoked with a key, opened without one."""

import json
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse

from api import schemas, views
from api.deps import UUID, App, JobId, Reading, Who, Writing, needs
from api.downloads import Download, respond
from api.errors import Gone, NotFound
from api.models import Asset
from api.problems import RESPONSES
from api.routes import viewer
from api.services import shares
from api.storage import Storage

router = APIRouter(prefix="/v1/jobs", tags=["shares"], responses=RESPONSES)
opened = APIRouter(prefix="/s", include_in_schema=False)
# A link that is over must be over at once, in caches too; and it is no page for search engines.
PRIVATE = {"Cache-Control": "private, no-cache", "X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "no-referrer"}
# Where photos were taken from, without their names.
CAMERA_FIELDS = ("width", "height", "position", "rotation", "fx", "fy", "cx", "cy", "preview")


def share_id(given: Annotated[str, Path(alias="share_id", description="id of a link")]) -> str:
    """Return the link's id from the path; what cannot be one does not exist."""
    if not UUID.fullmatch(given):
        raise NotFound.named("share", given)
    return given


@router.post("/{job_id}/shares", status_code=201, operation_id="create_share", dependencies=[needs("jobs:write")])
def create_share(
    request: Request, app: App, session: Writing, who: Who, job: JobId, body: schemas.NewShare | None = None
) -> schemas.ShareWithLink:
    """Make a link by which anybody may see a finished splat, without a key, until it expires. It is shown once."""
    wanted = body or schemas.NewShare()
    lasts = timedelta(seconds=wanted.expires_in_s) if wanted.expires_in_s is not None else timedelta(days=app.settings.share_days)
    row, token = shares.create(session, job, lasts, who.key_id)
    base = (app.settings.public_url or str(request.base_url)).rstrip("/")
    return schemas.ShareWithLink(**views.share(row).model_dump(), url=f"{base}/s/{token}", token=token)


@router.get("/{job_id}/shares", operation_id="list_shares", dependencies=[needs("jobs:read")])
def list_shares(session: Reading, job: JobId) -> schemas.ShareList:
    """List a job's links, those that are over too; the links themselves are not kept."""
    return schemas.ShareList(items=[views.share(row) for row in shares.of_job(session, job)])


@router.delete("/{job_id}/shares/{share_id}", status_code=204, operation_id="revoke_share", dependencies=[needs("jobs:write")])
def revoke_share(session: Writing, job: JobId, share: Annotated[str, Depends(share_id)]) -> None:
    """End a link now: from here on it answers 410."""
    shares.revoke(session, job, share)


@opened.api_route("/{token}", methods=["GET", "HEAD"])
def shared_page(request: Request, app: App, session: Reading, token: str) -> FileResponse:
    """Return the viewer of a shared splat; 404 for an unknown link, 410 for one that is over, which a browser's page tells in words."""
    status = 200
    try:
        shares.opened(session, token)
    except (NotFound, Gone) as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        status = error.status
    own = viewer.PAGE_HEADERS["Content-Security-Policy"].replace(
        "frame-ancestors 'self'", f"frame-ancestors {app.settings.share_embedded_in}"
    )
    return viewer.page("viewer.html", {**viewer.PAGE_HEADERS, **PRIVATE, "Content-Security-Policy": own}, status)


@opened.api_route("/{token}/assets/{name}", methods=["GET", "HEAD"])
def shared_asset(request: Request, app: App, token: str, name: str) -> Response:
    """Return a file that the viewer of a shared splat needs, and no other."""
    with app.db.reading() as session:  # closed before the bytes flow
        row = shares.asset(session, token, name)
    try:
        answer = shared_file(request, app.storage, row)
    except FileNotFoundError:
        with app.db.reading() as session:
            shares.asset(session, token, name)  # 410 when the job was deleted just now
        raise
    answer.headers.update(PRIVATE)
    return answer


def shared_file(request: Request, storage: Storage, row: Asset) -> Response:
    """Return a file as its bytes are; of the cameras only what the viewer needs."""
    key = row.storage_key
    if row.name == "cameras.json":
        content = b"".join(storage.read(key, 0, row.size_bytes))
        return Response(json.dumps(without_names(json.loads(content))), media_type="application/json")
    file = Download(row.size_bytes, row.media_type, lambda start, stop: storage.read(key, start, stop), f'"{row.sha256}"', row.name)
    return respond(request, file)


def without_names(cameras: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of cameras.json without what photos were called, which is nobody's business."""
    return [{name: each[name] for name in CAMERA_FIELDS if name in each} for each in cameras]
