"""Bytes out: ranges, validators and dispositions (RFC 9110), from storage or from a growing log."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.errors import RangeNotSatisfiable

RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*")
MAX_DIGITS = 18


@dataclass(frozen=True)
class Download:
    """Something to send: ``read(start, stop)`` yields its bytes; ``etag`` is quoted, or None for what still grows."""

    size_bytes: int
    media_type: str
    read: Callable[[int, int], Iterator[bytes]]
    etag: str | None = None
    file_name: str | None = None


def respond(request: Request, download: Download) -> Response:
    """Answer GET or HEAD for a download: 200, 206, 304 or 416."""
    headers = headers_of(download)
    if download.etag is not None and matches(request.headers.get("if-none-match"), download.etag):
        return Response(status_code=304, headers=headers)
    span = None
    if request.method == "GET" and may_be_partial(request, download):
        span = parse_range(request.headers.get("range", ""), download.size_bytes)
    start, stop = span or (0, download.size_bytes)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{download.size_bytes}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=download.media_type)
    return StreamingResponse(download.read(start, stop), status, headers, download.media_type)


def headers_of(download: Download) -> dict[str, str]:
    """Return the headers that do not depend on the range."""
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if download.etag is not None:
        headers |= {"ETag": download.etag, "Cache-Control": "private, max-age=31536000, immutable"}
    if download.file_name is not None:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", download.file_name)
        encoded = quote(download.file_name, safe="")
        headers["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    return headers


def matches(header: str | None, etag: str) -> bool:
    """Tell whether an If-None-Match header names this entity tag (weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in [each.strip().removeprefix("W/") for each in header.split(",")]


def may_be_partial(request: Request, download: Download) -> bool:
    """Tell whether a range may be honoured: If-Range, when sent, must name these very bytes."""
    condition = request.headers.get("if-range")
    return condition is None or (download.etag is not None and condition.strip() == download.etag)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (start, stop) of a single byte range; None to send everything (no range, several, another unit); 416 when it lies outside."""
    found = RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()) or max(map(len, found.groups())) > MAX_DIGITS:
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or stop <= start:
        raise RangeNotSatisfiable(size)
    return start, stop
