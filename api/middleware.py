"""What surrounds every request: an id, refusal of foreign web pages and of oversized bodies, safe headers. Plain ASGI, no buffering."""

import re

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

from api import problems, tus
from api.db import UNANSWERED
from api.deps import PRINCIPAL
from api.door import RATE, SAFE_METHODS, Door
from api.errors import Forbidden
from api.settings import Settings, is_loopback
from engine.errors import SplatError

BEHIND_A_PROXY = "Use http://127.0.0.1; behind a proxy set SPLATWORKS_REQUIRE_KEY=1, or SPLATWORKS_ALLOW_REMOTE=1 if it checks who asks."
FROM_ELSEWHERE = "Use this service's own page; a program sends no Origin. A proxy must pass the Host header on."
# What an answer may do that is shown in a browser and is no page of ours: nothing.
CONTENT_SECURITY_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Permitted-Cross-Domain-Policies": "none",
}
YEAR_S = 31_536_000
DRAINED_BYTES = 16 << 20
FORMS = re.compile(r"/v1/(?:jobs|captures/[^/]+/photos)")


class Surround:
    """Gives each request an id, checks who sends it and where it comes from, limits bodies that are not uploads, adds safe headers."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.door = Door(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = str(uuid7())
        request = Request(scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(scope, MutableHeaders(scope=message))
            await send(message)

        refusal = await self.refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_safely)
            return
        if not is_upload(scope["path"], request.headers.get("content-type", "").lower()):
            receive = limited(receive, self.settings.max_json_bytes)
        await self.app(scope, receive, send_safely)
        await self.door.note_use(request, scope[PRINCIPAL])

    async def refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that may not come in; for any other note who asks."""
        try:
            self.check_origin(request)
            request.scope[PRINCIPAL] = await self.door.admit(request)
        except SplatError as error:
            return problems.on_splat_error(request, error)
        except UNANSWERED as error:
            return problems.on_database_error(request, error)
        return None

    def check_origin(self, request: Request) -> None:
        """Raise ``Forbidden`` for what may not come in: where no key guards the address, no foreign machine or web page may use it."""
        host = request.headers.get("host", "")
        if not self.settings.keys_required and not self.settings.allow_remote:
            if not is_loopback(without_port(host)):
                detail = f"this service answers to localhost, not to {host[:100]!r}"
                raise Forbidden("request.foreign_host", "Unknown host", detail, BEHIND_A_PROXY)
            if request.client is not None and not is_loopback(request.client.host):
                detail = f"this service needs no key and answers to its own machine only, not to {request.client.host[:100]}"
                raise Forbidden("request.foreign_machine", "Other machine", detail, BEHIND_A_PROXY)
        origin = request.headers.get("origin")
        if origin is not None and request.method not in SAFE_METHODS and origin.partition("://")[2] != host:
            detail = f"a page of {origin[:100]!r} may not change things here"
            raise Forbidden("request.foreign_origin", "Foreign web page", detail, FROM_ELSEWHERE)


def add_headers(scope: Scope, headers: MutableHeaders) -> None:
    """Add what every answer carries; what a route has said itself stays."""
    path = str(scope["path"])
    for name, value in {"X-Request-ID": scope["request_id"], **HEADERS}.items():
        headers.setdefault(name, value)
    if not path.startswith("/static/"):  # scripts of the pages, which as workers would be held to it
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    ancestors = headers.get("content-security-policy", "").partition("frame-ancestors ")[2].partition(";")[0].strip()
    if ancestors in ("", "'none'", "'self'"):  # it cannot name other hosts, as a shared splat's policy may
        headers.setdefault("X-Frame-Options", "SAMEORIGIN" if ancestors == "'self'" else "DENY")
    if path.startswith("/v1"):
        headers.setdefault("Cache-Control", "private, no-store")
    if scope["scheme"] == "https":
        headers.setdefault("Strict-Transport-Security", f"max-age={YEAR_S}")
    if (rate := scope.get(RATE)) is not None:
        for name, value in rate.headers().items():
            headers.setdefault(name, value)


def is_upload(path: str, kind: str) -> bool:
    """Tell whether a body is read by what writes it to the disk as it comes; every other is held in memory, and limited."""
    if kind.startswith("multipart/form-data"):
        return FORMS.fullmatch(path) is not None
    return kind.startswith(tus.BODY_TYPE) and tus.PATH.fullmatch(path) is not None


def without_port(host: str) -> str:
    """Return the name or address in a Host header."""
    name, colon, port = host.rpartition(":")
    return name if colon and (not port or port.isdecimal()) and (":" not in name or name.endswith("]")) else host


def limited(receive: Receive, max_bytes: int) -> Receive:
    """Return ``receive`` that refuses (413) once more bytes than allowed have come."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            # A connection that is closed with bytes unread is reset, and the client never reads why: so a little more is taken first.
            while message.get("more_body", False) and received <= max_bytes + DRAINED_BYTES:
                message = await receive()
                received += len(message.get("body", b""))
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes", {"Connection": "close"})
        return message

    return receive_limited
