"""tus 1.0.0 on the wire: its version, its headers, and the pieces of a body as they come. What an upload is, ``services.uploads`` knows."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ChecksumMismatch, Malformed, PreconditionFailed, RequestError

PATH = re.compile(r"/v1/(?:captures/[^/]+/)?uploads(?:/[^/]*)?")
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
ALGORITHMS = ("sha256", "sha1", "md5")
BODY_TYPE = "application/offset+octet-stream"
OVERRIDES = ("PATCH", "DELETE", "HEAD")
BLOCK_BYTES = 256 << 10
TICK_S = 0.25


class SilentError(RequestError):
    """The client has sent nothing for a while."""

    status = 408
    retryable = True


class Tus:
    """Says on every answer about uploads, refusals too, which version is spoken; lets POST stand for other methods. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or not PATH.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        override = headers.get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and override in OVERRIDES:  # for clients behind what lets only GET and POST through
            scope["method"] = override

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["Tus-Resumable"] = VERSION
                if message["status"] == PreconditionFailed.status:
                    answer["Tus-Version"] = VERSION
                if scope["method"] == "HEAD":
                    answer["Cache-Control"] = "no-store"
            await send(message)

        await self.app(scope, receive, send_with_version)


async def check_version(request: Request) -> None:
    """Raise ``PreconditionFailed`` for another version than is spoken here; JSON and plain GET and DELETE need not say one."""
    said = request.headers.get("tus-resumable")
    begins = request.method == "POST" and request.url.path.endswith("/uploads") and not is_json(request.headers)
    must_say = begins or request.method in ("HEAD", "PATCH")
    if request.method in ("GET", "OPTIONS") or said == VERSION or (said is None and not must_say):
        return
    shown = "names none" if said is None else f"names {said[:40]!r}"
    raise PreconditionFailed(
        "request.tus_version", "Other protocol version", f"the request {shown} as its version of tus", f"Send Tus-Resumable: {VERSION}."
    )


def is_json(headers: Headers) -> bool:
    """Tell whether a request's body is JSON."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def is_bytes(headers: Headers) -> bool:
    """Tell whether a request's body is bytes of an upload."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == BODY_TYPE


def offers(max_bytes: int) -> dict[str, str]:
    """Return the headers that say what is spoken here."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(max_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }


def http_date(moment: datetime) -> str:
    """Return a moment as HTTP headers write it."""
    return format_datetime(moment, usegmt=True)


def bad_header(name: str, why: str) -> Malformed:
    """Return the error of a header that does not say what it should."""
    return Malformed("request.tus_header", "Malformed header", f"{name} {why}", "See the tus protocol, version 1.0.0.")


def number(name: str, text: str | None) -> int:
    """Return the whole number of 0 or more in a header; ``Malformed`` when it is absent or something else."""
    if text is None or not re.fullmatch(r"[0-9]{1,18}", text):
        raise bad_header(name, "is missing" if text is None else "is no whole number")
    return int(text)


def metadata(text: str) -> dict[str, str]:
    """Return what Upload-Metadata says: ``key base64, key base64, …``; ``Malformed`` when it cannot be read."""
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        key, _, value = pair.partition(" ")
        if key in found:
            raise bad_header("Upload-Metadata", f"has the key {key[:40]!r} twice")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise bad_header("Upload-Metadata", f"has a value under {key[:40]!r} that is no base64 of UTF-8") from error
    return found


@dataclass
class Checksum:
    """What the bytes of one request must hash to."""

    algorithm: str
    wanted: bytes
    found: Any

    @classmethod
    def parse(cls, text: str) -> "Checksum":
        """Return the demand of an Upload-Checksum header, ``algorithm base64``; ``Malformed`` for any other."""
        algorithm, _, value = text.strip().partition(" ")
        if algorithm not in ALGORITHMS:
            raise bad_header("Upload-Checksum", f"names {algorithm[:40]!r}; known are {', '.join(ALGORITHMS)}")
        found = hashlib.new(algorithm, usedforsecurity=False)
        try:
            wanted = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError) as error:
            raise bad_header("Upload-Checksum", "is no base64") from error
        if len(wanted) != found.digest_size:
            raise bad_header("Upload-Checksum", f"has {len(wanted)} bytes; {algorithm} has {found.digest_size}")
        return cls(algorithm, wanted, found)

    def check(self) -> None:
        """Raise ``ChecksumMismatch`` when the bytes are others."""
        if not hmac.compare_digest(self.found.digest(), self.wanted):
            raise ChecksumMismatch(
                "request.checksum",
                "Checksum mismatch",
                f"the bytes of this request have another {self.algorithm} than it says",
                "Send the piece again; nothing of it was kept.",
            )


async def pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """Yield a body in pieces as they come, an empty one when a tick brought nothing: who reads can look whether it should go on.

    What has come is yielded before an error: ``ClientDisconnect`` at a cut, ``SilentError`` after ``idle_s`` without a byte.
    """
    waiting, more = bytearray(), True
    heard_at = told_at = time.monotonic()
    coming: asyncio.Task[Message] | None = None
    try:
        while more:
            coming = coming or asyncio.ensure_future(request.receive())
            done, _ = await asyncio.wait({coming}, timeout=TICK_S)
            moment = time.monotonic()
            if done:
                message, coming = coming.result(), None
                if message["type"] == "http.disconnect":
                    yield bytes(waiting)
                    raise ClientDisconnect
                more = message.get("more_body", False)
                waiting += message.get("body", b"")
                heard_at = moment
            if len(waiting) >= BLOCK_BYTES or not more or moment - told_at >= TICK_S:
                piece, waiting, told_at = bytes(waiting), bytearray(), moment
                yield piece
            if moment - heard_at >= idle_s:
                raise SilentError("request.silent", "Client silent", f"nothing came for {idle_s:g} s", "Ask HEAD where to go on.")
    finally:
        if coming is not None:
            coming.cancel()
