"""What routes ask for: the application's state, sessions, checked parameters."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, Header, Path, Query, Request, Security, params
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from sqlalchemy.orm import Session

from api.db import Database
from api.errors import Forbidden, NotFound
from api.services.inspect import PhotoLimits
from api.services.keys import NOBODY, Principal, no_key
from api.settings import Settings
from api.storage import Storage

SESSIONS_AT_ONCE = 16
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class State:
    """What the application opened when it started."""

    settings: Settings
    db: Database
    storage: Storage
    # A request holds its session between two threads. More of them than connections would fill all threads waiting for connections that
    # only threads give back.
    turns: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(SESSIONS_AT_ONCE))

    @property
    def photo_limits(self) -> PhotoLimits:
        """What a photo must be."""
        return PhotoLimits(self.settings.min_side_px, self.settings.max_megapixels, self.settings.max_file_bytes)


def state(request: Request) -> State:
    """Return the application's state."""
    found = request.app.state.splatworks
    assert isinstance(found, State)
    return found


App = Annotated[State, Depends(state)]


async def reading(app: App) -> AsyncIterator[Session]:
    """One transaction that only reads."""
    async with app.turns, contextmanager_in_threadpool(app.db.reading()) as session:
        yield session


async def writing(app: App) -> AsyncIterator[Session]:
    """One transaction, committed before the answer leaves."""
    async with app.turns, contextmanager_in_threadpool(app.db.writing()) as session:
        yield session


# Function scope ends the dependency, and commits, before the answer is sent; request scope would say yes before it is true.
Reading = Annotated[Session, Depends(reading, scope="function")]
Writing = Annotated[Session, Depends(writing, scope="function")]

SESSION_COOKIE = "splatworks_session"
PRINCIPAL = "splatworks_principal"  # where the middleware leaves who asks
KEY_SCHEME = HTTPBearer(scheme_name="key", bearerFormat="sk_…", auto_error=False, description="A key that `splatworks keys create` made.")
COOKIE_SCHEME = APIKeyCookie(name=SESSION_COOKIE, scheme_name="session", auto_error=False, description="A browser: POST /v1/session.")


async def who(request: Request) -> Principal:
    """Return who asks; the middleware has found out before anything of the body was read."""
    found = request.scope[PRINCIPAL]
    assert isinstance(found, Principal)
    return found


Who = Annotated[Principal, Depends(who)]


async def guard(
    scopes: SecurityScopes,
    principal: Who,
    _key: Annotated[HTTPAuthorizationCredentials | None, Security(KEY_SCHEME)],
    _session: Annotated[str | None, Security(COOKIE_SCHEME)],
) -> None:
    """Raise ``Forbidden`` when who asks lacks a scope. The two schemes are there for the description only."""
    if principal == NOBODY:  # the middleware has refused them already; a path that it judged wrongly is no way in
        raise no_key()
    demand(principal, *scopes.scopes)


def demand(principal: Principal, *scopes: str) -> None:
    """Raise ``Forbidden`` when who asks lacks one of the scopes."""
    for scope in scopes:
        if not principal.may(scope):
            held = ", ".join(sorted(principal.scopes)) or "none"
            raise Forbidden(
                "auth.scope",
                "Not allowed",
                f"this needs the scope {scope!r}; the key has: {held}",
                "Use another key; `splatworks keys create --scopes …` makes one.",
                {"scope": scope},
            )


def needs(*scopes: str) -> params.Depends:
    """Return the demand that whoever calls a route holds these scopes: ``APIRouter(dependencies=[needs("jobs:read")])``."""
    return params.Security(guard, scopes=list(scopes))


def _checked_id(kind: str, value: str) -> str:
    if not UUID.fullmatch(value):
        raise NotFound.named(kind, value)
    return value


def capture_id(capture: Annotated[str, Path(alias="capture_id", description="id of a capture")]) -> str:
    """Return the capture's id from the path; what cannot be one does not exist."""
    return _checked_id("capture", capture)


def job_id(job: Annotated[str, Path(alias="job_id", description="id of a job")]) -> str:
    """Return the job's id from the path; what cannot be one does not exist."""
    return _checked_id("job", job)


def upload_id(upload: Annotated[str, Path(alias="upload_id", description="id of an upload")]) -> str:
    """Return the upload's id from the path; what cannot be one does not exist."""
    return _checked_id("upload", upload)


UploadId = Annotated[str, Depends(upload_id)]
CaptureId = Annotated[str, Depends(capture_id)]
JobId = Annotated[str, Depends(job_id)]
Limit = Annotated[int, Query(ge=1, le=200, description="how many to return")]
Cursor = Annotated[str | None, Query(pattern=UUID.pattern, max_length=36, description="next_cursor of the page before")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description="the same key never makes two"),
]
Prefer = Annotated[str | None, Header(description="wait=N: answer when the job has ended or after N seconds, 60 at most")]


def wait_s(prefer: str | None) -> int:
    """Return the seconds that a Prefer header asks to wait (RFC 7240), 0..60."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", prefer or "")
    return min(60, int(found.group(1))) if found else 0
