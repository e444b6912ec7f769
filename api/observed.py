"""Watches every request from outside: counts it, writes a line of log, follows its trace."""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs
from api.deps import PRINCIPAL, UUID
from api.metrics import Requests
from api.services.keys import Principal
from api.tracing import Tracer

log = logging.getLogger(logs.ACCESS)
UNMATCHED = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observed:
    """Plain ASGI around all else; what it needs to know of a request the layers inside leave in its scope."""

    def __init__(self, app: ASGIApp, requests: Requests, tracer: Tracer) -> None:
        self.app, self.requests, self.tracer = app, requests, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "other"
        began, status, answered = time.perf_counter(), 500, 0.0

        async def watched(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter() - began
            await send(message)

        with self.tracer.span(method, traceparent_of(scope), kind="server") as span:
            scope["traceparent"] = span.traceparent
            try:
                await self.app(scope, receive, watched)
            finally:
                route = route_of(scope)
                span.name(f"{method} {route}")
                span.tell({"http.request.method": method, "http.route": route, "http.response.status_code": status})
                self.requests.add(method, route, status, answered or time.perf_counter() - began)
                say(scope, method, route, status, time.perf_counter() - began)


def say(scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
    """Write the line of a request; its path is left out but for ids, for paths may hold tokens and names."""
    fields: dict[str, Any] = {"request_id": scope.get("request_id"), "method": method, "route": route, "status": status}
    fields |= {"ms": round(1000 * seconds, 1), "key": key_of(scope)}
    fields |= {name: value for name, value in scope.get("path_params", {}).items() if UUID.fullmatch(str(value))}
    told = {("job" if name == "job_id" else name): value for name, value in fields.items() if value is not None}
    level = logging.WARNING if status >= 500 else logging.INFO
    log.log(level, "%s %s %d", method, route, status, extra={"fields": told})


def key_of(scope: Scope) -> str | None:
    """Return what a key is recognised by; None where none came, or none that holds."""
    principal: Principal | None = scope.get(PRINCIPAL)
    return f"sk_{principal.prefix}" if principal is not None and principal.prefix else None


def route_of(scope: Scope) -> str:
    """Return the template of the route that a request came to; ``none`` where there is no such route or the door refused it."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


def traceparent_of(scope: Scope) -> str | None:
    """Return the traceparent header of a request."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
