"""Finished splats over HTTP: list and download."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api import schemas, views
from api.deps import App, JobId, Reading, needs
from api.downloads import Download, respond
from api.problems import RESPONSES
from api.services import assets

router = APIRouter(prefix="/v1/jobs", tags=["assets"], responses=RESPONSES)
CONTENT: dict[str, Any] = {kind.partition(";")[0]: {} for kind in sorted({*assets.MEDIA_TYPES.values(), assets.BYTES})}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, or the byte range asked for as 206", "content": CONTENT},
    206: {"description": "The byte range asked for", "content": CONTENT},
    304: {"description": "The file is the one that If-None-Match names"},
}


@router.get("/{job_id}/assets", dependencies=[needs("jobs:read")], operation_id="list_assets")
def list_assets(session: Reading, job: JobId) -> schemas.AssetList:
    """List a job's files; there are none until it has succeeded, then all at once."""
    return schemas.AssetList(items=[views.asset(row) for row in assets.of_job(session, job)])


@router.get(
    "/{job_id}/assets/{name}", dependencies=[needs("jobs:read")], operation_id="download_asset", response_class=Response, responses=FILE
)
def download_asset(request: Request, app: App, job: JobId, name: str) -> Response:
    """Download a file. Its entity tag is its SHA-256; byte ranges resume a broken download."""
    with app.db.reading() as session:  # closed before the bytes flow
        row = assets.get(session, job, name)
    storage, key = app.storage, row.storage_key
    file = Download(row.size_bytes, row.media_type, lambda start, stop: storage.read(key, start, stop), f'"{row.sha256}"', row.name)
    try:
        return respond(request, file)
    except FileNotFoundError:
        with app.db.reading() as session:
            assets.get(session, job, name)  # 410 when the job was deleted just now
        raise


@router.head("/{job_id}/assets/{name}", dependencies=[needs("jobs:read")], include_in_schema=False)
def download_asset_head(request: Request, app: App, job: JobId, name: str) -> Response:
    """Return a file's size and entity tag."""
    return download_asset(request, app, job, name)
