"""The door: who a request comes from, by its key or its browser session, found out before anything of its body is read."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.deps import SESSION_COOKIE, State, state
from api.errors import Forbidden, Unauthorized
from api.services import keys
from api.services.keys import ANYBODY, Principal
from api.settings import Settings, is_loopback

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
NOBODY = Principal(None, frozenset(), name="nobody")
# The page asks here whether a key is needed, and leaves; whoever has none may do both.
OPEN = {("/v1/session", "GET"), ("/v1/session", "DELETE")}
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


@dataclass(frozen=True)
class Credentials:
    """What a request brings to be let in; empty where it brings nothing."""

    key: str
    cookie: str

    @property
    def any(self) -> bool:
        """Tell whether there is one."""
        return bool(self.key or self.cookie)


def presented(request: Request, *, required: bool) -> Credentials:
    """Return what a request brings. Where no key is needed, only what looks like ours counts: a proxy in front has words of its own."""
    kind, _, word = request.headers.get("authorization", "").strip().partition(" ")
    key = word.strip() if kind.lower() == "bearer" else ""
    if not required and not key.startswith("sk_"):
        key = ""
    return Credentials(key, "" if key else request.cookies.get(SESSION_COOKIE, ""))


def is_guarded(path: str, method: str) -> bool:
    """Tell whether a path needs a key where keys are needed: all of /v1 and the metrics; pages, health and shared links do not."""
    return (path == "/v1" or path.startswith(("/v1/", "/metrics"))) and (path, method) not in OPEN


def is_at_home(request: Request) -> bool:
    """Tell whether a request was made on this machine: by a socket's address, unless a proxy says that it only passes it on."""
    client = request.client
    return (client is None or is_loopback(client.host)) and not any(name in request.headers for name in FORWARDED)


async def admit(request: Request, settings: Settings) -> Principal:
    """Return who asks; raises ``Unauthorized`` when a key is needed and none that holds came, ``Forbidden`` for another page's doing."""
    path, method, required = request.url.path, request.method, settings.keys_required
    guarded = required and is_guarded(path, method)
    brought = presented(request, required=required)
    if brought.any:
        return await run_in_threadpool(check, state(request), request, brought, guarded=guarded)
    if guarded and not (path == "/metrics" and is_at_home(request)):
        raise keys.no_key()
    return NOBODY if required and not guarded else ANYBODY


def check(app: State, request: Request, brought: Credentials, *, guarded: bool) -> Principal:
    """Return whom the key or cookie stands for. A cookie that has ended counts as none where none is needed: browsers send it anyway."""
    with app.db.reading() as session:
        if brought.key:
            return keys.authenticate(session, brought.key)
        try:
            found, _ = keys.find_session(session, brought.cookie)
        except Unauthorized:
            if guarded:
                raise
            return NOBODY if app.settings.keys_required else ANYBODY
    check_own_page(request)
    return found


def check_own_page(request: Request) -> None:
    """Raise ``Forbidden`` when a cookie would change something and the browser does not say that our own page sent it."""
    if request.method in SAFE_METHODS:
        return
    # That an Origin is ours was checked before; one of the two comes from every browser of the last years.
    if "origin" not in request.headers and request.headers.get("sec-fetch-site") != "same-origin":
        detail = "a browser's session changes things only from this service's own page, and the request names none"
        raise Forbidden("auth.foreign_page", "Foreign web page", detail, "Send a key as `Authorization: Bearer sk_…` instead.")
