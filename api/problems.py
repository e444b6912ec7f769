"""Errors to RFC 9457 problem details: the only mapping, and every answer of 400 and above goes through it."""

import errno
import json
import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.db import UNANSWERED
from api.errors import Conflict, DoesNotFit, NoSpace, RangeNotSatisfiable, RequestError
from api.schemas import Problem
from engine.errors import Cancelled, CapacityError, CaptureError, InputError, InternalError, SplatError

RETRY_AFTER_S = "5"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What to do where the router, and no route of ours, refuses.
HINTS = {
    400: "See /v1/openapi.json for what this address takes.",
    404: "See /v1/openapi.json for the addresses that there are.",
    405: "The header Allow names the methods that this address takes.",
    413: "Only photos may be so large, in a form or by /v1/uploads.",
}
log = logging.getLogger(__name__)

# What the documentation of every route says about its errors.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def status_of(error: SplatError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, RequestError | NoSpace | DoesNotFit):
        return error.status
    statuses: dict[type[SplatError], int] = {InputError: 422, CaptureError: 422, CapacityError: 503, Cancelled: 409}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)


def problem(request: Request, status: int, error: SplatError, headers: dict[str, str] | None = None) -> Response:
    """Return an error as a problem+json answer."""
    data = dict(error.data)
    errors = data.pop("errors", [])
    body = {
        "type": f"urn:splatworks:problem:{error.code}",
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "instance": f"urn:uuid:{request.scope.get('request_id', '')}",
        "code": error.code,
        "hint": error.hint,
        "retryable": error.retryable,
        "errors": errors,
        "data": data,
    }
    extra = {**challenge(status, error), **(headers or {})}
    if status in (503, 507):
        extra["Retry-After"] = RETRY_AFTER_S
    if (seconds := error.data.get("retry_after_s")) is not None:
        extra["Retry-After"] = str(max(1, math.ceil(seconds)))
    # ASCII on the wire: what the client sent may hold characters that UTF-8 cannot say.
    return Response(json.dumps(body, ensure_ascii=True), status, extra, "application/problem+json")


def challenge(status: int, error: SplatError) -> dict[str, str]:
    """Return the header that says which key would do, where the lack of one is the problem (RFC 6750, section 3)."""
    if status == 401:
        mistake = "" if error.code == "auth.no_key" else ', error="invalid_token"'
        return {"WWW-Authenticate": f'Bearer realm="splatworks"{mistake}'}
    if status == 403 and "scope" in error.data:
        return {"WWW-Authenticate": f'Bearer realm="splatworks", error="insufficient_scope", scope="{error.data["scope"]}"'}
    return {}


def on_splat_error(request: Request, error: Exception) -> Response:
    """Answer an error of our own tree."""
    assert isinstance(error, SplatError)
    headers = {"Content-Range": f"bytes */{error.data['size_bytes']}"} if isinstance(error, RangeNotSatisfiable) else None
    status = status_of(error)
    if status >= 500:
        log.info("%s %s: %s: %s", request.method, request.url.path, error.code, error.detail)
    return problem(request, status, error, headers)


def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router or a middleware refuses: no such route, wrong method, body too large."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = f"http.{phrase.lower().replace(' ', '_').replace('-', '_')}"
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = allowed(request)
    hint = HINTS.get(error.status_code, "See /v1/openapi.json.")
    return problem(request, error.status_code, RequestError(code, phrase, detail, hint), headers)


def allowed(request: Request) -> str:
    """Return the methods that an address takes, as ``Allow`` names them (RFC 9110 10.2.1); a single route knows its own only."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(takes, METHODS))


def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer a request whose parameters or body are not as documented; each mistake with its place."""
    assert isinstance(error, RequestValidationError)
    errors = [{"pointer": pointer(each["loc"]), "code": each["type"], "detail": each["msg"]} for each in error.errors()]
    first = f"{errors[0]['pointer']}: {errors[0]['detail']}" if errors else "the request is not as documented"
    found = InputError("input.invalid_request", "Invalid request", first, "See /v1/openapi.json.", {"errors": errors})
    return problem(request, 422, found)


def pointer(location: tuple[int | str, ...]) -> str:
    """Return a place in the request as a JSON pointer; its first part is body, query, path or header."""
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1")[:100] for part in location)


def on_database_error(request: Request, error: Exception) -> Response:
    """Answer when the database is locked for long or gone, or all connections to it are taken: the client may come again."""
    log.error("%s %s: the database does not answer: %s", request.method, request.url.path, error)
    busy = CapacityError("capacity.database", "Database busy", "the database does not answer", "Send the request again in a few seconds.")
    return problem(request, 503, busy)


def on_integrity_error(request: Request, error: Exception) -> Response:
    """Answer when another request made the same thing at the same moment: asked again, it is found."""
    log.info("%s %s: %s", request.method, request.url.path, error)
    same = Conflict(
        "conflict.same_moment", "Made at the same moment", "another request made the same thing just now", "Send the request again."
    )
    return problem(request, 409, same)


def on_os_error(request: Request, error: Exception) -> Response:
    """Answer a full disk as such, any other system error as ours."""
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem(request, 507, NoSpace("capacity.disk", "Disk full", "the disk is full", "Free some space and send it again."))
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return on_unexpected(request, error)


def on_disconnect(request: Request, _error: Exception) -> Response:
    """Answer a client that has gone; nobody reads it, but the log is clean."""
    return problem(
        request, 400, RequestError("request.disconnected", "Client gone", "the connection ended within the request", "Send it again.")
    )


def on_unexpected(request: Request, _error: Exception) -> Response:
    """Answer any other error as an internal one; its words stay in the log, where the server writes them after this."""
    broken = InternalError("internal.error", "Internal error", "something of ours broke", "The log of the api has the details.")
    # This answer is given outside of everything that adds headers.
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
        "X-Request-ID": request.scope.get("request_id", ""),
    }
    return problem(request, 500, broken, headers)


def install(app: FastAPI) -> None:
    """Make the application answer every error with a problem."""
    app.add_exception_handler(SplatError, on_splat_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    for kind in UNANSWERED:
        app.add_exception_handler(kind, on_database_error)
    app.add_exception_handler(IntegrityError, on_integrity_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(OSError, on_os_error)
    app.add_exception_handler(Exception, on_unexpected)


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the problem to the components of an OpenAPI document."""
    schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    return schema
