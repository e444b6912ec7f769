"""What surrounds every request: an id, refusal of foreign web pages and of oversized bodies, safe headers. Plain ASGI, no buffering."""

from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

from api import door, problems
from api.deps import PRINCIPAL
from api.door import SAFE_METHODS
from api.errors import Forbidden
from api.settings import Settings, is_loopback
from engine.errors import SplatError

BEHIND_A_PROXY = "Use http://127.0.0.1; behind a proxy set SPLATWORKS_REQUIRE_KEY=1, or SPLATWORKS_ALLOW_REMOTE=1 if it checks who asks."


class Surround:
    """Gives each request an id, checks who sends it and where it comes from, and limits bodies that are not uploads."""

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

        request = Request(scope)
        try:
            self.check_origin(request)
            scope[PRINCIPAL] = await door.admit(request, self.settings)
        except SplatError as error:
            await problems.on_splat_error(request, error)(scope, receive, send_with_id)
            return
        except OperationalError as error:
            await problems.on_database_error(request, error)(scope, receive, send_with_id)
            return
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            receive = limited(receive, self.settings.max_json_bytes)
        await self.app(scope, receive, send_with_id)

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
            raise Forbidden("request.foreign_origin", "Foreign web page", detail)


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
