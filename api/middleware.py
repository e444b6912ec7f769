"""What surrounds every request: an id, refusal of foreign web pages and of oversized bodies, safe headers. Plain ASGI, no buffering."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

from api import problems
from api.errors import RequestError
from api.settings import Settings, is_loopback

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Surround:
    """Gives each request an id, checks where it comes from, and limits bodies that are not uploads."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = str(uuid7())
        scope["request_id"] = request_id
        headers = Headers(scope=scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.setdefault("X-Request-ID", request_id)
                answer.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        refusal = self.refusal(scope["method"], headers)
        if refusal is not None:
            await problems.problem(Request(scope), 403, refusal)(scope, receive, send_with_id)
            return
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            receive = limited(receive, self.settings.max_json_bytes)
        await self.app(scope, receive, send_with_id)

    def refusal(self, method: str, headers: Headers) -> RequestError | None:
        """Return why a request may not come in: no key guards the loopback address, so no foreign web page may use it."""
        host = headers.get("host", "")
        if not self.settings.allow_remote and not is_loopback(without_port(host)):
            return RequestError(
                "request.foreign_host",
                "Unknown host",
                f"this service answers to localhost, not to {host[:100]!r}",
                "Use http://127.0.0.1, or set SPLATWORKS_ALLOW_REMOTE=1 behind a proxy.",
            )
        origin = headers.get("origin")
        if origin is not None and method not in SAFE_METHODS and origin.partition("://")[2] != host:
            return RequestError("request.foreign_origin", "Foreign web page", f"a page of {origin[:100]!r} may not change things here")
        return None


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
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes", {"Connection": "close"})
        return message

    return receive_limited
