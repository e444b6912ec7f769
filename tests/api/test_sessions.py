"""Sessions of browsers: a key traded for a cookie that scripts and other sites cannot use."""

import re
from datetime import timedelta

from sqlalchemy import text, update

from api.db import now
from api.deps import SESSION_COOKIE
from api.models import KeySession
from api.services import keys
from tests.api.conftest import is_problem


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
        assert house.client.cookies[SESSION_COOKIE] not in str(session.execute(text("SELECT * FROM key_session")).all())


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
        return key_id, {"Cookie": f"{SESSION_COOKIE}={house.client.cookies[SESSION_COOKIE]}"}

    _, cookie = let_in()
    assert house.client.delete("/v1/session", headers=house.origin).status_code == 204
    assert SESSION_COOKIE not in house.client.cookies
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
