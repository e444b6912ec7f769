"""The pages: the start page, a scene's viewer, and the files they load. Built by ``make web`` into ``api/static``."""

import mimetypes
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from api.errors import NotFound

STATIC = Path(__file__).resolve().parent.parent / "static"
YEAR_S = 31_536_000

# No inline script, nothing from other hosts. WebAssembly and blob workers: the viewer decodes and sorts with them.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "connect-src 'self' blob: data:",
        "img-src 'self' blob: data:",
        "style-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
def index_page() -> FileResponse:
    """Return the start page: new scene, list of jobs. ``NotFound`` when the pages are not built."""
    return page("index.html")


@router.api_route("/jobs/{job_id}/view", methods=["GET", "HEAD"])
def viewer_page(job_id: str) -> FileResponse:
    """Return the viewer; the page itself asks for the job and says what is wrong with it."""
    del job_id  # the script reads it from the address
    return page("viewer.html")


@router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
def static_file(request: Request, path: str) -> FileResponse:
    """Return a file of the pages. Names under ``assets/`` carry a hash of their content and never change."""
    # Looked up among what is there, so that no spelling of a path leads anywhere else.
    there = {file.relative_to(STATIC).as_posix(): file for file in STATIC.rglob("*") if file.is_file()}
    found = there.get(path)
    if found is None:
        raise NotFound.named("page", path)
    lasting = found.parent.name == "assets"
    headers = {"Cache-Control": f"public, max-age={YEAR_S}, immutable" if lasting else "no-cache"}
    packed = there.get(f"{path}.gz")
    if packed is None:
        return FileResponse(found, headers=headers)
    headers["Vary"] = "Accept-Encoding"
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(found, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return FileResponse(packed, headers=headers, media_type=mimetypes.guess_type(found.name)[0])


def page(name: str, headers: dict[str, str] | None = None, status: int = 200) -> FileResponse:
    """Return a page under its headers and status; ``NotFound`` when the pages are not built."""
    path = STATIC / name
    if not path.is_file():
        raise NotFound(
            "not_found.web_pages", "Pages not built", f"{name} is not there: the web pages have not been built", "Run `make web`."
        )
    return FileResponse(path, status, headers or PAGE_HEADERS)
