"""Who may come in: keys, scopes, sessions of browsers, other machines; over HTTP."""

import asyncio
import re
import socket
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from fastapi.security import SecurityScopes
from sqlalchemy import text, update
from starlette.requests import Request

from api.app import create_app, document
from api.db import Database, now, open_database
from api.deps import guard
from api.door import address_of, path_of
from api.errors import Unauthorized
from api.models import ApiKey, KeySession
from api.services import keys
from api.services.keys import ANYBODY, NOBODY, SCOPES, NewKey, Quotas
from api.settings import Settings
from engine.errors import InputError
from tests.api.conftest import is_problem
from tests.photos import encoded, form
from tests.services import Installation, installed, until

NOTHING = "00000000-0000-7000-8000-000000000000"
UNLIMITED = Quotas()
COOKIE = "splatworks_session"
WITHOUT_KEY = {("get", "/v1/session"), ("delete", "/v1/session")}


@dataclass
class House:
    """An installation that asks for keys."""

    installation: Installation
    client: httpx.Client
    db: Database
    known: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)

    def key(self, *scopes: str) -> dict[str, str]:
        """Return the header that carries a key with these scopes."""
        if scopes not in self.known:
            self.known[scopes] = self.made(*scopes)[1]
        return self.known[scopes]

    def made(self, *scopes: str, quotas: Quotas = UNLIMITED, lasts_s: float | None = None) -> tuple[str, dict[str, str]]:
        with self.db.writing() as session:
            row, key = keys.create(session, NewKey("test", scopes or ("admin",), quotas, lasts_s))
            return row.id, {"Authorization": f"Bearer {key}"}

    @property
    def origin(self) -> dict[str, str]:
        return {"Origin": f"http://{self.client.base_url.host}:{self.client.base_url.port}"}


@pytest.fixture(scope="module")
def house(stack, tmp_path_factory):
    with installed(stack, tmp_path_factory.mktemp("house") / "data", require_key=True, refusals_per_minute=10_000) as installation:
        db = open_database(installation.settings)
        with db.writing() as session:
            keys.create(session, NewKey("first"))
        with installation.api() as client:
            yield House(installation, client, db)
        db.close()


@pytest.fixture(autouse=True)
def no_cookies_left(request):
    yield
    if "house" in request.fixturenames:
        request.getfixturevalue("house").client.cookies.clear()


def operations() -> list[tuple[str, str, list[str] | None]]:
    """Return (method, path, scopes) of every operation in the description; None where no key is asked for."""
    found = []
    for path, entries in document(create_app(Settings())).get("paths", {}).items():
        for method, entry in entries.items():
            demands = entry.get("security")
            found.append((method, path, demands and demands[0]["key"]))
    return found


GUARDED = [(method, path, scopes) for method, path, scopes in operations() if scopes is not None]


def ask(client: httpx.Client, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.request(method, re.sub(r"\{\w+\}", NOTHING, path), headers={"Tus-Resumable": "1.0.0", **(headers or {})})


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """Check a refusal; the answer to HEAD has no body to look at."""
    if answer.request.method == "HEAD":
        assert answer.status_code == status
    else:
        is_problem(answer, status, code)


def test_every_operation_under_v1_asks_for_a_key_but_the_session():
    open_ones = {(method, path) for method, path, scopes in operations() if scopes is None and path.startswith("/v1")}
    assert open_ones == WITHOUT_KEY
    assert len(GUARDED) >= 20
    assert {scope for _, _, scopes in GUARDED for scope in scopes} == set(SCOPES)


@pytest.mark.parametrize("operation", GUARDED, ids=lambda each: f"{each[0]} {each[1]}")
def test_an_operation_takes_no_request_without_a_key_and_none_whose_key_lacks_the_scope(house, operation):
    method, path, scopes = operation
    at_home = path != "/metrics"  # which this machine may read without
    if at_home:
        answer = ask(house.client, method, path)
        refused(answer, 401, "auth.no_key")
        assert answer.headers["www-authenticate"] == 'Bearer realm="splatworks"'
    for scope in scopes:
        others = [each for each in SCOPES if each not in (scope, "admin")]
        answer = ask(house.client, method, path, house.key(*others))
        refused(answer, 403, "auth.scope")
        assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    enough = ask(house.client, method, path, house.key(*(scopes or ["webhooks:write"])))
    assert enough.status_code not in (401, 403, 429), enough.text
    assert enough.status_code < 500, enough.text


def test_a_form_that_brings_photos_needs_the_scope_for_them_too(house):
    files = form(("a.jpg", b"no photo"))
    answer = house.client.post("/v1/jobs", files=files, headers=house.key("jobs:write"))
    assert is_problem(answer, 403, "auth.scope")["data"]["scope"] == "captures:write"
    answer = house.client.post("/v1/jobs", files=files, headers=house.key("jobs:write", "captures:write"))
    assert answer.status_code == 422


def quota_of(house, **quotas) -> dict[str, str]:
    return house.made(quotas=Quotas(**quotas))[1]


def test_a_key_that_asks_too_often_is_told_when_to_come_again(house):
    hasty, calm = quota_of(house, requests_per_minute=3), house.key()
    answers = [house.client.get("/v1/jobs", headers=hasty) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
    is_problem(answers[3], 429, "quota.requests_per_minute")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert house.client.get("/v1/jobs", headers=calm).status_code == 200


def test_shares_of_jobs_and_storage_are_kept_over_http(house):
    header = quota_of(house, jobs_per_day=1, storage_bytes=30_000_000)
    capture = house.client.post("/v1/captures", headers=header).json()["id"]
    photos = form(*((f"{n}.jpg", encoded(n)) for n in range(3)))
    assert house.client.post(f"/v1/captures/{capture}/photos", files=photos, headers=header).status_code == 201
    started = [house.client.post("/v1/jobs", json={"capture_id": capture}, headers=header) for _ in range(2)]
    assert started[0].status_code == 202, started[0].text
    is_problem(started[1], 429, "quota.jobs_per_day")
    assert int(started[1].headers["retry-after"]) > 80_000
    upload = {"Tus-Resumable": "1.0.0", "Upload-Length": "40000000", **header}
    is_problem(house.client.post(f"/v1/captures/{capture}/uploads", headers=upload), 413, "quota.storage_bytes")
    assert house.client.post(f"/v1/captures/{capture}/uploads", headers={**upload, "Upload-Length": "1000000"}).status_code == 201


def test_wrong_keys_cannot_be_tried_without_end_and_right_ones_still_open(stack, tmp_path):
    with installed(stack, tmp_path / "data", require_key=True, refusals_per_minute=3) as installation:
        db = open_database(installation.settings)
        with db.writing() as session:
            _, key = keys.create(session, NewKey("me"))
        db.close()
        with installation.api() as client:
            wrong = {"Authorization": f"Bearer {key[:-1]}"}
            assert [client.get("/v1/jobs", headers=wrong).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
            is_problem(client.get("/v1/jobs", headers=wrong), 429, "quota.refusals_per_minute")
            assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_broker_that_is_away_neither_holds_up_nor_fails_a_request(stack, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        away = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with installed(stack, tmp_path / "data", require_key=True, broker_url=away) as installation:
            db = open_database(installation.settings)
            with db.writing() as session:
                _, key = keys.create(session, NewKey("me", quotas=Quotas(requests_per_minute=5)))
            db.close()
            with installation.api() as client:
                client.timeout = 10
                answers = [client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]


def test_routes_that_are_not_described_ask_for_a_key_too(house):
    for method, path in (("GET", "/v1/openapi.json"), ("HEAD", f"/v1/jobs/{NOTHING}/logs"), ("GET", "/v1/nope"), ("GET", "/v1")):
        assert house.client.request(method, path).status_code == 401, path
    assert house.client.get("/v1/openapi.json", headers=house.key("jobs:read")).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1/healthz?", "127.0.0.1/healthz#", "a@b/s/", "[", "127.0.0.1:x/", ""])
def test_no_host_header_opens_the_door(house, host):
    assert house.client.get("/v1/jobs", headers={"Host": host}).status_code in (400, 401)


@pytest.mark.parametrize(
    "path", ["/v1//jobs", "/%76%31/jobs", "/./v1/jobs", "/static/../v1/jobs", "//v1/jobs", "/V1/jobs", "/v1/jobs/", "/v1;/jobs"]
)
def test_no_spelling_of_a_path_opens_the_door(house, path):
    sent = house.client.build_request("GET", house.client.base_url)
    sent.url = sent.url.copy_with(raw_path=path.encode())
    answer = house.client.send(sent)
    assert answer.status_code in (401, 404), answer.text
    assert "items" not in answer.text


def test_a_route_refuses_nobody_even_where_the_middleware_let_them_in():
    request = guard(SecurityScopes([]), NOBODY, None, None)
    with pytest.raises(Unauthorized):
        asyncio.run(request)
    asyncio.run(guard(SecurityScopes(["jobs:read"]), ANYBODY, None, None))


def test_behind_a_prefix_the_door_is_as_shut_as_without():
    def path(root: str, asked: str) -> str:
        return path_of(Request({"type": "http", "path": asked, "root_path": root, "headers": []}))

    assert path("/splats", "/splats/v1/jobs") == "/v1/jobs"
    assert path("/splats", "/v1/jobs") == "/v1/jobs"
    assert path("/v1", "/v1/v1/jobs") == "/v1/jobs"
    assert path("", "/v1/jobs") == "/v1/jobs"


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_whoever_has_many_addresses_is_counted_once(host, counted):
    assert address_of(Request({"type": "http", "client": (host, 1), "headers": []})) == counted


def test_health_pages_and_shared_links_are_open(house):
    assert house.client.get("/healthz").status_code == 200
    for path in ("/readyz", "/", "/static/none.js", f"/jobs/{NOTHING}/view", "/s/none"):
        assert house.client.get(path).status_code not in (401, 403), path


def test_metrics_are_for_this_machine_and_for_admins(house):
    elsewhere = {"X-Forwarded-For": "203.0.113.5"}
    assert house.client.get("/metrics").status_code == 200
    is_problem(house.client.get("/metrics", headers=elsewhere), 401, "auth.no_key")
    is_problem(house.client.get("/metrics", headers={**elsewhere, **house.key("jobs:read")}), 403, "auth.scope")
    assert house.client.get("/metrics", headers={**elsewhere, **house.key("admin")}).status_code == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer", "auth.no_key"),
        ("Basic c2s6c2s=", "auth.no_key"),
        ("Bearer sk_abcdefgh", "auth.unknown_key"),
        ("Bearer sk_abcdefgh_" + "x" * 43, "auth.unknown_key"),
        ("Bearer " + "x" * 5000, "auth.unknown_key"),
        ("Bearer sk_abcdefgh_" + "é" * 43, "auth.unknown_key"),
    ],
)
def test_what_is_no_key_opens_nothing(house, header, code):
    answer = house.client.get("/v1/jobs", headers={"Authorization": header.encode()})
    is_problem(answer, 401, code)


def test_a_key_whose_secret_is_another_opens_nothing(house):
    key = house.key()["Authorization"]
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    is_problem(house.client.get("/v1/jobs", headers={"Authorization": other}), 401, "auth.unknown_key")
    is_problem(house.client.get("/v1/jobs", headers={"Authorization": key[:-1]}), 401, "auth.unknown_key")
    assert house.client.get("/v1/jobs", headers={"authorization": key.replace("Bearer", "bearer ")}).status_code == 200


def test_a_revoked_key_and_an_expired_one_open_nothing_and_say_why(house):
    key_id, header = house.made()
    assert house.client.get("/v1/jobs", headers=header).status_code == 200
    assert house.client.delete(f"/v1/api-keys/{key_id}", headers=house.key()).status_code == 204
    assert "revoked" in is_problem(house.client.get("/v1/jobs", headers=header), 401, "auth.key_ended")["detail"]
    key_id, header = house.made(lasts_s=3600)
    assert house.client.get("/v1/jobs", headers=header).status_code == 200
    with house.db.writing() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=now(session) - timedelta(seconds=1)))
    assert "expired" in is_problem(house.client.get("/v1/jobs", headers=header), 401, "auth.key_ended")["detail"]


def test_a_key_is_shown_once_and_only_its_hash_is_kept(house):
    body = {"name": "robot", "scopes": ["jobs:read"], "quotas": {"jobs_per_day": 3}, "expires_in_s": 60}
    answer = house.client.post("/v1/api-keys", json=body, headers=house.key())
    assert answer.status_code == 201
    made = answer.json()
    assert re.fullmatch(r"sk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}", made["key"])
    assert made["key"].startswith(f"sk_{made['prefix']}_")
    again = house.client.get(answer.headers["location"], headers=house.key()).json()
    assert again == {name: value for name, value in made.items() if name != "key"}
    assert again["quotas"]["jobs_per_day"] == 3
    assert house.client.get("/v1/jobs", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 200
    listed = house.client.get("/v1/api-keys", headers=house.key()).text
    with house.db.reading() as session:
        rows = str(session.execute(text("SELECT * FROM api_key")).all())
    assert made["prefix"] in listed
    assert made["prefix"] in rows
    for secret in (made["key"], made["key"][12:]):
        assert secret not in listed
        assert secret not in rows


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "a\nb"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "quotas": {"jobs_per_day": -1}},
        {"name": "x", "quotas": {"cake": 1}},
        {"name": "x", "expires_in_s": 0},
        {"name": "x", "expires_in_s": 1e300},
        {"name": "\u200b"},
    ],
)
def test_a_key_that_cannot_be_is_refused(house, body):
    answer = house.client.post("/v1/api-keys", json=body, headers=house.key())
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"].startswith("input.")


def test_the_use_of_a_key_is_noted(house):
    key_id, header = house.made()
    house.client.get("/v1/jobs", headers=header)
    until(lambda: house.client.get(f"/v1/api-keys/{key_id}", headers=house.key()).json()["used_at"], 5)


def test_the_page_is_told_that_a_key_is_needed(house):
    said = house.client.get("/v1/session").json()
    assert said == {"key_required": True, "key_id": None, "name": "nobody", "scopes": [], "expires_at": None}


def test_a_key_lets_a_browser_in_with_a_cookie_that_scripts_and_other_sites_cannot_use(house):
    key_id, header = house.made("jobs:read", "captures:write")
    answer = house.client.post("/v1/session", headers={**header, **house.origin})
    assert answer.status_code == 201
    assert answer.json()["key_id"] == key_id
    assert answer.json()["scopes"] == ["captures:write", "jobs:read"]
    flags = {each.strip().lower() for each in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", f"max-age={house.installation.settings.session_s:.0f}"} <= flags
    assert "secure" not in flags  # plain HTTP: the browser would not send it back
    # From here on the client sends the cookie and no key.
    assert house.client.get("/v1/jobs").status_code == 200
    assert house.client.get("/v1/session").json()["expires_at"] == answer.json()["expires_at"]
    is_problem(house.client.get("/v1/captures"), 403, "auth.scope")
    with house.db.reading() as session:
        assert house.client.cookies[COOKIE] not in str(session.execute(text("SELECT * FROM key_session")).all())


def test_a_session_changes_things_only_from_our_own_page(house):
    house.client.post("/v1/session", headers=house.key())
    is_problem(house.client.post("/v1/captures"), 403, "auth.foreign_page")
    is_problem(house.client.post("/v1/captures", headers={"Origin": "http://evil.example"}), 403, "request.foreign_origin")
    is_problem(house.client.post("/v1/captures", headers={"Origin": "null"}), 403, "request.foreign_origin")
    is_problem(house.client.post("/v1/captures", headers={"Sec-Fetch-Site": "same-site"}), 403, "auth.foreign_page")
    assert house.client.post("/v1/captures", headers=house.origin).status_code == 201
    assert house.client.post("/v1/captures", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 201


def test_a_session_ends_when_it_is_left_when_its_time_is_up_and_with_its_key(house):
    def let_in() -> tuple[str, dict[str, str]]:
        key_id, header = house.made()
        assert house.client.post("/v1/session", headers=header).status_code == 201
        assert house.client.get("/v1/jobs").status_code == 200
        return key_id, {"Cookie": f"{COOKIE}={house.client.cookies[COOKIE]}"}

    _, cookie = let_in()
    assert house.client.delete("/v1/session", headers=house.origin).status_code == 204
    assert COOKIE not in house.client.cookies
    is_problem(house.client.get("/v1/jobs", headers=cookie), 401, "auth.session_ended")
    assert house.client.delete("/v1/session", headers=house.origin).status_code == 204

    key_id, cookie = let_in()
    with house.db.writing() as session:
        session.execute(update(KeySession).where(KeySession.key_id == key_id).values(expires_at=now(session) - timedelta(seconds=1)))
    is_problem(house.client.get("/v1/jobs"), 401, "auth.session_ended")
    assert house.client.get("/v1/session").json()["key_id"] is None

    key_id, cookie = let_in()
    with house.db.writing() as session:
        keys.revoke(session, key_id)
    assert house.client.get("/v1/jobs", headers=cookie).status_code == 401


def test_a_session_never_outlives_its_key(house):
    _, header = house.made(lasts_s=100)
    answer = house.client.post("/v1/session", headers=header)
    assert int(re.search(r"Max-Age=(\d+)", answer.headers["set-cookie"]).group(1)) <= 100


def test_behind_tls_the_cookie_is_secure_and_browsers_are_told_to_stay_there(house):
    behind = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.5"}
    answer = house.client.post("/v1/session", headers={**house.key(), **behind})
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert "strict-transport-security" not in house.client.get("/healthz").headers


def test_where_no_key_is_needed_one_that_comes_still_counts(client, db):
    with db.writing() as session:
        _, key = keys.create(session, NewKey("reader", ("jobs:read",)))
    assert client.post("/v1/captures").status_code == 201
    is_problem(client.post("/v1/captures", headers={"Authorization": f"Bearer {key}"}), 403, "auth.scope")
    is_problem(client.get("/v1/jobs", headers={"Authorization": "Bearer sk_abcdefgh_x"}), 401, "auth.unknown_key")
    # A proxy's own words, and a cookie of some other service on this machine, are none of ours.
    for header in ({"Authorization": "Basic c2s6c2s="}, {"Authorization": "Bearer eyJhbGciOi"}, {"Cookie": f"{COOKIE}=old"}):
        assert client.get("/v1/jobs", headers=header).status_code == 200
    assert client.get("/v1/session").json()["key_required"] is False
    is_problem(client.post("/v1/session"), 401, "auth.no_key")


def test_another_machine_is_refused_where_no_key_is_needed(client):
    is_problem(client.get("/v1/jobs", headers={"X-Forwarded-For": "203.0.113.5"}), 403, "request.foreign_machine")


def test_behind_something_that_guards_other_machines_need_no_key(stack, tmp_path):
    with installed(stack, tmp_path / "data", allow_remote=True) as installation, installation.api() as client:
        elsewhere = {"X-Forwarded-For": "203.0.113.5", "Host": "splats.example.org"}
        assert client.get("/v1/jobs", headers=elsewhere).status_code == 200


@pytest.mark.parametrize(
    ("given", "required"),
    [
        ({}, False),
        ({"host": "127.0.0.1"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.5.5.5"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"host": "example.org"}, True),
        ({"host": "0.0.0.0", "allow_remote": True}, False),
        ({"host": "0.0.0.0", "allow_remote": True, "require_key": True}, True),
        ({"require_key": True}, True),
    ],
)
def test_keys_are_needed_wherever_other_machines_can_come(given, required):
    assert Settings(**given).keys_required is required


def test_the_api_does_not_start_for_other_machines_before_there_is_a_key(installation, db):
    async def start(settings: Settings) -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    remote = installation.settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(InputError, match=r"SPLATWORKS_HOST is 0\.0\.0\.0") as refused:
        asyncio.run(start(remote))
    assert "splatworks keys create" in refused.value.hint
    asyncio.run(start(remote.model_copy(update={"allow_remote": True})))
    with db.writing() as session:
        row, _ = keys.create(session, NewKey("first"))
    asyncio.run(start(remote))
    with db.writing() as session:
        keys.revoke(session, row.id)
    with pytest.raises(InputError):
        asyncio.run(start(remote))
