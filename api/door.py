"""The door: who a request comes from, by its key or its browser session, found out before anything of its body is read."""

import ipaddress
import logging
import time
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.db import UNANSWERED, Database
from api.deps import SESSION_COOKIE, state
from api.errors import Forbidden, Unauthorized
from api.services import keys, sessions
from api.services.keys import ANYBODY, NOBODY, Principal
from api.services.rates import REFUSALS, REQUESTS, Rates
from api.settings import Settings, is_loopback

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# The page asks here whether a key is needed, and leaves; whoever has none may do both.
OPEN = {("/v1/session", "GET"), ("/v1/session", "DELETE")}
UNCOUNTED = ("/healthz", "/readyz")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
RATE = "splatworks_rate"  # where the middleware finds what is left of the asker's requests

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """What a request brings to be let in; empty where it brings nothing."""

    key: str
    cookie: str


def presented(request: Request, *, required: bool) -> Credentials:
    """Return what a request brings. Where no key is needed, only what looks like ours counts: a proxy in front has words of its own."""
    kind, _, word = request.headers.get("authorization", "").strip().partition(" ")
    key = word.strip() if kind.lower() == "bearer" else ""
    if not required and not key.startswith("sk_"):
        key = ""
    return Credentials(key, "" if key else request.cookies.get(SESSION_COOKIE, ""))


def path_of(request: Request) -> str:
    """Return the path that chooses the route. Not ``request.url``, in which the client's own Host header has a say."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def is_guarded(path: str, method: str) -> bool:
    """Tell whether a path needs a key where keys are needed: all of /v1 and the metrics; pages, health and shared links do not."""
    return (path in ("/v1", "/metrics") or path.startswith("/v1/")) and (path, method) not in OPEN


def is_at_home(request: Request) -> bool:
    """Tell whether a request was made on this machine: by a socket's address, unless a proxy says that it only passes it on."""
    client = request.client
    return (client is None or is_loopback(client.host)) and not any(name in request.headers for name in FORWARDED)


def address_of(request: Request) -> str:
    """Return what requests without a key are counted by: the address; of IPv6 the /64, since whoever has one has them all."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    # A socket that takes both kinds writes IPv4 addresses as ::ffff:192.0.2.1, which all lie in one /64.
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Door:
    """Lets requests in, or not, and counts them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rates = Rates(settings)
        self._noted: dict[str, float] = {}

    async def admit(self, request: Request) -> Principal:
        """Return who asks.

        Raises ``Unauthorized`` when a key is needed and none that holds came, ``Forbidden`` for another page's doing,
        ``TooManyRequests`` when the asker has asked too often.
        """
        path, required = path_of(request), self.settings.keys_required
        brought = presented(request, required=required)
        at_home = is_at_home(request)
        guarded = required and is_guarded(path, request.method) and not (path == "/metrics" and at_home)
        if not (brought.key or brought.cookie) and (at_home or path in UNCOUNTED):
            return self._without_key(guarded=guarded, metrics=path == "/metrics")
        return await run_in_threadpool(self._check, request, brought, guarded=guarded, at_home=at_home)

    def _without_key(self, *, guarded: bool, metrics: bool = False) -> Principal:
        if guarded:
            raise keys.no_key()
        return NOBODY if self.settings.keys_required and not metrics else ANYBODY

    def _check(self, request: Request, brought: Credentials, *, guarded: bool, at_home: bool) -> Principal:
        db: Database = state(request).db
        try:
            found = identify(db, brought)
        except Unauthorized:
            # An ended cookie is sent by the browser whether it is asked for or not.
            if brought.key or guarded:
                self._count(request, REFUSALS, address_of(request), self.settings.refusals_per_minute)
                raise
            found = None
        if found is not None:
            per_minute = found.quotas.requests_per_minute
            self._count(request, REQUESTS, found.key_id or "", self.settings.requests_per_minute if per_minute is None else per_minute)
            if not brought.key:
                check_own_page(request)
            return found
        if not at_home:
            self._count(request, REQUESTS, address_of(request), self.settings.requests_per_minute)
        return self._without_key(guarded=guarded, metrics=path_of(request) == "/metrics" and at_home)

    def _count(self, request: Request, policy: str, asker: str, per_minute: int) -> None:
        rate = self.rates.hit(policy, asker, per_minute)
        request.scope[RATE] = rate
        rate.check()

    async def note_use(self, request: Request, principal: Principal) -> None:
        """Write down that a key was used, once in a minute, after the answer has left: nobody waits for it."""
        key_id, moment = principal.key_id, time.monotonic()
        if key_id is None or moment - self._noted.get(key_id, -keys.USED_EVERY_S) < keys.USED_EVERY_S:
            return
        self._noted[key_id] = moment
        await run_in_threadpool(write_use, state(request).db, key_id)


def identify(db: Database, brought: Credentials) -> Principal | None:
    """Return whom the key or the cookie stands for, None where there is neither; raises ``Unauthorized``."""
    if not (brought.key or brought.cookie):
        return None
    with db.reading() as session:
        return keys.authenticate(session, brought.key) if brought.key else sessions.find(session, brought.cookie)


def write_use(db: Database, key_id: str) -> None:
    """Write down that a key was used just now; a database that is busy for long is left alone."""
    try:
        with db.writing() as session:
            keys.note_use(session, key_id)
    except UNANSWERED as error:
        log.warning("the use of key %s was not noted: %s", key_id, error)


def check_own_page(request: Request) -> None:
    """Raise ``Forbidden`` when a cookie would change something and the browser does not say that our own page sent it."""
    if request.method in SAFE_METHODS:
        return
    # That an Origin is ours was checked before; one of the two comes from every browser of the last years.
    if "origin" not in request.headers and request.headers.get("sec-fetch-site") != "same-origin":
        detail = "a browser's session changes things only from this service's own page, and the request names none"
        raise Forbidden("auth.foreign_page", "Foreign web page", detail, "Send a key as `Authorization: Bearer sk_…` instead.")
