"""Keys over HTTP, for admins; and the session that lets a browser in with one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from api import schemas, views
from api.deps import SESSION_COOKIE, UUID, App, Cursor, Limit, Reading, State, Who, Writing, needs
from api.errors import NotFound
from api.problems import RESPONSES
from api.services import keys, sessions
from api.services.keys import ADMIN, Principal

router = APIRouter(responses=RESPONSES)


def key_id(key: Annotated[str, Path(alias="key_id", description="id of a key")]) -> str:
    """Return the key's id from the path; what cannot be one does not exist."""
    if not UUID.fullmatch(key):
        raise NotFound.named("key", key)
    return key


KeyId = Annotated[str, Depends(key_id)]


@router.post("/v1/api-keys", status_code=201, tags=["keys"], dependencies=[needs(ADMIN)], operation_id="create_key")
def create_key(session: Writing, response: Response, body: schemas.NewKey) -> schemas.CreatedKey:
    """Make a key. The answer shows it, this once; kept is only its SHA-256."""
    wanted = keys.NewKey(body.name, tuple(body.scopes), keys.as_quotas(body.quotas.model_dump()), body.expires_in_s)
    row, key = keys.create(session, wanted)
    response.headers["Location"] = f"/v1/api-keys/{row.id}"
    return schemas.CreatedKey(**views.key(row).model_dump(), key=key)


@router.get("/v1/api-keys", tags=["keys"], dependencies=[needs(ADMIN)], operation_id="list_keys")
def list_keys(session: Reading, limit: Limit = 50, cursor: Cursor = None) -> schemas.KeyPage:
    """List keys, newest first, also those that were revoked or have expired."""
    rows = keys.page(session, limit + 1, cursor)
    following = rows[limit - 1].id if len(rows) > limit else None
    return schemas.KeyPage(items=[views.key(row) for row in rows[:limit]], next_cursor=following)


@router.get("/v1/api-keys/{key_id}", tags=["keys"], dependencies=[needs(ADMIN)], operation_id="get_key")
def get_key(session: Reading, key: KeyId) -> schemas.KeyOut:
    """Return a key: its name, scopes, quotas, and when it was used last."""
    return views.key(keys.get(session, key))


@router.delete("/v1/api-keys/{key_id}", status_code=204, tags=["keys"], dependencies=[needs(ADMIN)], operation_id="revoke_key")
def revoke_key(session: Writing, key: KeyId) -> None:
    """Revoke a key and end every browser's session that was opened with it, at once. What it made stays."""
    keys.revoke(session, key)


@router.get("/v1/session", tags=["keys"], operation_id="get_session")
def get_session(app: App, principal: Who, session: Reading, request: Request) -> schemas.SessionOut:
    """Tell whether a key is needed here, and who asks. The only thing under /v1 that answers without a key."""
    secret = request.cookies.get(SESSION_COOKIE, "")
    until = sessions.until(session, secret) if secret and principal.key_id else None
    return described(app, principal, until)


@router.post("/v1/session", status_code=201, tags=["keys"], dependencies=[needs()], operation_id="open_session")
def open_session(app: App, principal: Who, session: Writing, request: Request, response: Response) -> schemas.SessionOut:
    """Let this browser in with the key that the request carries: it gets a cookie that no script can read and no other site can use."""
    if principal.key_id is None:
        raise keys.no_key()
    row, secret = sessions.begin(session, principal.key_id, app.settings.session_s)
    seconds = round((row.expires_at - row.created_at).total_seconds())
    secure = request.url.scheme == "https"
    response.set_cookie(SESSION_COOKIE, secret, max_age=seconds, path="/", secure=secure, httponly=True, samesite="strict")
    return described(app, principal, row.expires_at)


@router.delete("/v1/session", status_code=204, tags=["keys"], operation_id="end_session")
def end_session(session: Writing, request: Request, response: Response) -> None:
    """End this browser's session; without one there is nothing to do."""
    sessions.end(session, request.cookies.get(SESSION_COOKIE, ""))
    response.delete_cookie(SESSION_COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict")


def described(app: State, principal: Principal, until: object) -> schemas.SessionOut:
    """Return what the page needs to know of who asks."""
    return schemas.SessionOut.model_validate(
        {
            "key_required": app.settings.keys_required,
            "key_id": principal.key_id,
            "name": principal.name,
            "scopes": [scope for scope in keys.SCOPES if scope in principal.scopes],
            "expires_at": until,
        }
    )
