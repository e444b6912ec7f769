"""Webhook endpoints over HTTP: what is taken, what is refused and how; nothing is sent here."""

import pytest

from tests.api.conftest import is_problem
from tests.photos import encoded, form, upload
from tests.services import installed

SECRET = "whsec_" + "QUJD" * 8
LOOPBACK = ("127.0.0.0/8",)
URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def installation(stack, tmp_path):
    with installed(stack, tmp_path / "data", webhook_allow=LOOPBACK, max_webhook_endpoints=3) as found:
        yield found


def made(client, **body) -> dict:
    answer = client.post("/v1/webhook-endpoints", json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_an_endpoint_shows_its_secret_once_and_is_changed_listed_and_deleted(client):
    first, second = made(client, types=["job.failed", "job.failed"]), made(client)
    assert first["secret"].startswith("whsec_")
    assert first["secret"] != second["secret"]
    own = f"/v1/webhook-endpoints/{first['id']}"
    shown = client.get(own).json()
    assert shown == {name: value for name, value in first.items() if name != "secret"}
    assert (shown["types"], shown["enabled"]) == (["job.failed"], True)
    assert [each["id"] for each in client.get("/v1/webhook-endpoints").json()["items"]] == [second["id"], first["id"]]
    page = client.get("/v1/webhook-endpoints", params={"limit": 1}).json()
    assert page["next_cursor"] == second["id"]
    assert [each["id"] for each in client.get("/v1/webhook-endpoints", params={"cursor": second["id"]}).json()["items"]] == [first["id"]]
    changed = client.patch(own, json={"url": URL + "/b", "types": [], "enabled": False}).json()
    assert (changed["url"], changed["types"], changed["enabled"], changed["disabled_why"]) == (URL + "/b", [], False, "turned off by hand")
    is_problem(client.post(f"{own}/test"), 409, "conflict.endpoint_disabled")
    assert client.patch(own, json={"enabled": True}).json()["enabled"]
    assert client.delete(own).status_code == 204
    is_problem(client.get(own), 410, "gone.webhook_endpoint")
    is_problem(client.get(f"{own}/deliveries"), 410, "gone.webhook_endpoint")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://10.1.2.3/", "10.1.2.3"),
        ("http://[::ffff:192.168.1.1]/", "192.168.1.1"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://[::1]/", "::1"),
        ("https://0/", "0.0.0.0"),
        ("http://[64:ff9b::a00:1]/", "64:ff9b::a00:1"),
    ],
)
def test_an_address_inside_is_refused_by_name(client, url, named):
    body = is_problem(client.post("/v1/webhook-endpoints", json={"url": url}), 422, "input.webhook_target")
    assert named in body["detail"]
    assert "SPLATWORKS_WEBHOOK_ALLOW" in body["hint"]
    endpoint = made(client)
    is_problem(client.patch(f"/v1/webhook-endpoints/{endpoint['id']}", json={"url": url}), 422, "input.webhook_target")


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "http://me:secret@127.0.0.1/", "http://127.0.0.1:99999/", "x", "http://a b/"]
)
def test_what_is_no_address_for_a_message_is_refused(client, url):
    is_problem(client.post("/v1/webhook-endpoints", json={"url": url}), 422, "input.webhook_url")


def test_a_name_without_an_address_is_refused(client):
    is_problem(client.post("/v1/webhook-endpoints", json={"url": "http://nowhere.invalid/"}), 422, "input.webhook_unknown_host")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_QUJD", "whsec_" + "!" * 40, SECRET.removeprefix("whsec_"), "whsec_" + "QUJD" * 30])
def test_a_secret_that_cannot_sign_is_refused(client, secret):
    is_problem(client.post("/v1/webhook-endpoints", json={"url": URL, "secret": secret}), 422, "input.webhook_secret")


@pytest.mark.parametrize("body", [{}, {"url": 1}, {"url": URL, "types": ["job.eaten"]}, {"url": URL, "more": 1}, {"url": ""}, []])
def test_a_body_that_is_not_as_documented_is_refused(client, body):
    is_problem(client.post("/v1/webhook-endpoints", json=body), 422, "input.invalid_request")


def test_there_are_only_so_many_endpoints(client):
    for _ in range(3):
        made(client)
    is_problem(client.post("/v1/webhook-endpoints", json={"url": URL}), 409, "conflict.too_many_endpoints")


@pytest.mark.parametrize("path", ["x", "00000000-0000-7000-8000-000000000000", "%00", "a" * 3000])
def test_unknown_endpoints_and_deliveries_are_not_found(client, path):
    is_problem(client.get(f"/v1/webhook-endpoints/{path}"), 404, "not_found.webhook_endpoint")
    is_problem(client.post(f"/v1/webhook-endpoints/{path}/rotate-secret"), 404, "not_found.webhook_endpoint")
    endpoint = made(client)
    is_problem(client.get(f"/v1/webhook-endpoints/{endpoint['id']}/deliveries/{path}"), 404, "not_found.delivery")


def test_what_waits_is_listed_and_fails_when_its_endpoint_is_turned_off(client):
    endpoint = made(client)
    own = f"/v1/webhook-endpoints/{endpoint['id']}"
    sent = client.post(f"{own}/test").json()
    assert (sent["state"], sent["attempts"], sent["type"], sent["payload"]["type"]) == ("pending", 0, "webhook.test", "webhook.test")
    assert client.get(f"{own}/deliveries", params={"state": "pending"}).json()["items"] == [sent]
    assert client.get(f"{own}/deliveries", params={"state": "failed"}).json()["items"] == []
    client.patch(own, json={"enabled": False})
    found = client.get(f"{own}/deliveries/{sent['id']}").json()
    assert (found["state"], found["next_at"]) == ("failed", None)
    assert "disabled" in found["last_error"]
    client.patch(own, json={"enabled": True})
    assert client.post(f"{own}/deliveries/{sent['id']}/redeliver").json()["state"] == "pending"


def test_a_job_brings_its_own_webhook_and_hears_the_secret_again_under_the_same_key(client, capture):
    upload(client, capture, 3)
    body = {"capture_id": capture, "webhook": {"url": URL, "types": ["job.failed"]}}
    first = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "one"}).json()
    again = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "one"}).json()
    assert first["webhook"] == again["webhook"]
    assert first["webhook"]["secret"].startswith("whsec_")
    assert first["webhook"]["job_id"] == first["id"] == again["id"]
    listed = client.get("/v1/webhook-endpoints", params={"job_id": first["id"]}).json()["items"]
    assert [each["id"] for each in listed] == [first["webhook"]["id"]]
    assert "whsec_" not in client.get(f"/v1/jobs/{first['id']}").text


def test_a_form_brings_a_webhook_too(client):
    files = form(*((f"IMG_{n}.jpg", encoded(n)) for n in range(3)))
    good = client.post("/v1/jobs", files=files, data={"webhook": f'{{"url": "{URL}", "secret": "{SECRET}"}}'})
    assert good.status_code == 202, good.text
    assert (good.json()["webhook"]["url"], good.json()["webhook"]["secret"]) == (URL, SECRET)
    bad = is_problem(client.post("/v1/jobs", files=files, data={"webhook": '{"uri": 1}'}), 422, "input.invalid_request")
    assert {each["pointer"] for each in bad["errors"]} == {"/body/webhook/url", "/body/webhook/uri"}


def test_a_job_whose_webhook_is_refused_is_not_made(client, capture):
    upload(client, capture, 3)
    answer = client.post("/v1/jobs", json={"capture_id": capture, "webhook": {"url": "http://192.168.0.1/"}})
    is_problem(answer, 422, "input.webhook_target")
    assert client.get("/v1/jobs").json()["items"] == []
