"""Who may come in: which operations ask for a key with which scopes, and that no spelling of a request goes round the question."""

import asyncio
import re

import httpx
import pytest
from fastapi.security import SecurityScopes
from starlette.requests import Request

from api.app import create_app, document
from api.deps import guard
from api.door import path_of
from api.errors import Unauthorized
from api.services.keys import ANYBODY, NOBODY, SCOPES
from api.settings import Settings
from tests.api.conftest import is_problem
from tests.photos import form

NOTHING = "00000000-0000-7000-8000-000000000000"
WITHOUT_KEY = {("get", "/v1/session"), ("delete", "/v1/session")}


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
