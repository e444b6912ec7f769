"""Webhooks sent by real dispatchers to a real receiver, on both stacks: signed, tried again, never twice without need, never lost."""

import itertools
import json
import sys
import time
from pathlib import Path

import pytest

from tests.receiver import drip, hang, receiver, status
from tests.services import installed, until
from tests.worker.conftest import FAKE_ENGINE, job_in, start_job

LOOPBACK = ("127.0.0.0/8", "::1/128")
TIMEOUT_S = 2.0
WAITS_S = (0.2, 0.2, 0.2)


@pytest.fixture(scope="module")
def mail():
    with receiver() as made:
        yield made


@pytest.fixture(scope="module")
def hooked(stack, tmp_path_factory):
    """An installation that may send to this machine, a running dispatcher, and a client."""
    folder = tmp_path_factory.mktemp("hooked")
    control = folder / "control"
    control.mkdir()
    changes = {"webhook_allow": LOOPBACK, "webhook_timeout_s": TIMEOUT_S, "webhook_waits_s": WAITS_S, "max_webhook_endpoints": 1000}
    changes |= {"engine_command": (sys.executable, str(FAKE_ENGINE), str(control))}
    with installed(stack, folder / "data", **changes) as installation:
        installation.start_dispatcher()
        with installation.api() as client:
            yield installation, client


@pytest.fixture
def client(hooked):
    installation, client = hooked
    if "dispatcher" not in installation.processes:
        installation.start_dispatcher()
    return client


def new_endpoint(client, url: str, **more) -> dict:
    answer = client.post("/v1/webhook-endpoints", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def send_test(client, endpoint: dict) -> str:
    answer = client.post(f"/v1/webhook-endpoints/{endpoint['id']}/test")
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def delivery(client, endpoint: dict, delivery_id: str) -> dict:
    return client.get(f"/v1/webhook-endpoints/{endpoint['id']}/deliveries/{delivery_id}").json()


def delivery_in(client, endpoint: dict, delivery_id: str, *states: str, timeout_s: float = 60.0) -> dict:
    def look() -> dict | None:
        found = delivery(client, endpoint, delivery_id)
        return found if found["state"] in states else None

    return until(look, timeout_s)


def test_a_message_is_signed_and_says_little(client, mail):
    endpoint = new_endpoint(client, mail.url("/signed?a=b"))
    sent = send_test(client, endpoint)
    found = delivery_in(client, endpoint, sent, "delivered")
    (got,) = mail.at("/signed?a=b")
    assert got.id == sent
    assert got.verified(endpoint["secret"]) == found["payload"]
    assert set(found["payload"]) == {"type", "timestamp", "data"}
    assert found["payload"]["type"] == "webhook.test"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["host"] == f"127.0.0.1:{mail.port}"
    assert (found["attempts"], found["last_status"], found["last_error"]) == (1, 200, None)


def test_a_receiver_that_fails_gets_the_message_again_under_the_same_id(client, mail):
    mail.answers["/flaky"] = [status(500, b"not\x00 today"), status(503), status(204)]
    endpoint = new_endpoint(client, mail.url("/flaky"))
    sent = send_test(client, endpoint)
    found = delivery_in(client, endpoint, sent, "delivered")
    got = mail.at("/flaky")
    assert [each.id for each in got] == [sent] * 3
    assert all(each.verified(endpoint["secret"]) == found["payload"] for each in got)
    assert found["attempts"] == 3
    assert all(later.at - earlier.at >= WAITS_S[0] * 0.85 for earlier, later in itertools.pairwise(got))


def test_a_receiver_that_never_takes_anything_is_given_up_and_disabled_with_the_reason(client, mail):
    mail.answers["/never"] = [status(500, b"database on fire")]
    endpoint = new_endpoint(client, mail.url("/never"))
    sent = send_test(client, endpoint)
    found = delivery_in(client, endpoint, sent, "failed")
    assert found["attempts"] == len(mail.at("/never")) == len(WAITS_S) + 1
    assert found["last_error"] == "answered 500: database on fire"
    assert found["next_at"] is None
    shown = client.get(f"/v1/webhook-endpoints/{endpoint['id']}").json()
    assert not shown["enabled"]
    assert "nothing has arrived there since" in shown["disabled_why"]
    assert "database on fire" in shown["disabled_why"]


def test_one_message_that_a_living_receiver_refuses_does_not_disable_it(client, mail):
    first = []

    def choose(handler) -> None:
        first[:] = first or [handler.headers["webhook-id"]]
        status(422 if handler.headers["webhook-id"] == first[0] else 200)(handler)

    mail.answers["/choosy"] = [choose]
    endpoint = new_endpoint(client, mail.url("/choosy"))
    refused, taken = send_test(client, endpoint), send_test(client, endpoint)
    delivery_in(client, endpoint, taken, "delivered")
    delivery_in(client, endpoint, refused, "failed")
    assert client.get(f"/v1/webhook-endpoints/{endpoint['id']}").json()["enabled"]


def test_gone_disables_the_endpoint_until_it_is_enabled_and_then_the_message_can_be_sent_again(client, mail):
    mail.answers["/gone"] = [status(410), status(200)]
    endpoint = new_endpoint(client, mail.url("/gone"))
    sent = send_test(client, endpoint)
    assert delivery_in(client, endpoint, sent, "failed")["attempts"] == 1
    own = f"/v1/webhook-endpoints/{endpoint['id']}"
    assert client.get(own).json()["disabled_why"] == "it answered 410 Gone"
    refused = client.post(f"{own}/deliveries/{sent}/redeliver")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict.endpoint_disabled")
    assert "410" in refused.json()["detail"]
    assert client.patch(own, json={"enabled": True}).json()["disabled_why"] is None
    assert client.post(f"{own}/deliveries/{sent}/redeliver").status_code == 202
    delivery_in(client, endpoint, sent, "delivered")
    assert [each.id for each in mail.at("/gone")] == [sent, sent]


def test_redirects_are_failures_and_nobody_follows_them(client, mail):
    mail.answers["/moved"] = [status(307, location=mail.url("/elsewhere"))]
    endpoint = new_endpoint(client, mail.url("/moved"))
    found = delivery_in(client, endpoint, send_test(client, endpoint), "failed")
    assert found["last_status"] == 307
    assert "not followed" in found["last_error"]
    assert not mail.at("/elsewhere")


@pytest.mark.parametrize(
    ("name", "answer"),
    [("hangs", hang(8)), ("drips headers", drip(b"x", 0.1)), ("drips a body", drip(b"x", 0.1, b"HTTP/1.1 200 OK\r\n\r\n"))],
)
def test_a_receiver_that_keeps_us_waiting_is_left_after_the_timeout_and_holds_up_no_other(client, mail, name, answer):
    path = f"/{name.replace(' ', '-')}"
    mail.answers[path] = [answer]
    slow, quick = new_endpoint(client, mail.url(path)), new_endpoint(client, mail.url(f"{path}-beside"))
    sent = send_test(client, slow)
    until(lambda: mail.at(path))
    delivery_in(client, quick, send_test(client, quick), "delivered")
    found = until(lambda: (one := delivery(client, slow, sent))["last_error"] and one)
    assert found["last_error"] == "no answer within 2 s"
    assert found["last_seconds"] > TIMEOUT_S * 0.9
    assert mail.at(f"{path}-beside")[0].at < mail.at(path)[0].at + found["last_seconds"]  # while the slow one still kept us waiting
    client.delete(f"/v1/webhook-endpoints/{slow['id']}")


def test_an_endless_answer_is_not_read_to_its_end(client, mail):
    mail.answers["/endless"] = [drip(b"x" * 65_536, 0.0, b"HTTP/1.1 200 OK\r\n\r\n", until_s=10)]
    endpoint = new_endpoint(client, mail.url("/endless"))
    delivery_in(client, endpoint, send_test(client, endpoint), "delivered")


def test_after_a_rotation_both_secrets_sign(client, mail):
    endpoint = new_endpoint(client, mail.url("/rotated"), secret="whsec_" + "QUJD" * 10)
    assert endpoint["secret"] == "whsec_" + "QUJD" * 10
    rotated = client.post(f"/v1/webhook-endpoints/{endpoint['id']}/rotate-secret").json()
    assert rotated["secret"] != endpoint["secret"]
    assert rotated["previous_secret_until"]
    sent = send_test(client, endpoint)
    delivery_in(client, endpoint, sent, "delivered")
    (got,) = mail.at("/rotated")
    assert got.verified(rotated["secret"]) == got.verified(endpoint["secret"])
    assert len(got.headers["webhook-signature"].split(" ")) == 2


def test_a_dispatcher_killed_between_sending_and_writing_sends_again_under_the_same_id(client, hooked, mail):
    installation, _ = hooked

    def kill_sender(handler) -> None:
        installation.kill("dispatcher")
        status(200)(handler)

    mail.answers["/killer"] = [kill_sender, status(200)]
    endpoint = new_endpoint(client, mail.url("/killer"))
    sent = send_test(client, endpoint)
    until(lambda: "dispatcher" not in installation.processes)
    assert delivery(client, endpoint, sent)["state"] == "pending"
    installation.start_dispatcher()
    assert delivery_in(client, endpoint, sent, "delivered")["attempts"] == 2
    assert [each.id for each in mail.at("/killer")] == [sent, sent]


def test_two_dispatchers_send_every_message_once_and_sweep_without_quarrel(client, hooked, mail):
    installation, _ = hooked
    endpoints = [new_endpoint(client, mail.url(f"/two/{n}")) for n in range(5)]
    names = ("two-a", "two-b")
    for name in names:
        installation.start_dispatcher(name)
    until(lambda: sum(each["kind"] == "dispatcher" for each in client.get("/v1/system").json()["processes"]) >= 3)
    sent = [send_test(client, endpoint) for _ in range(4) for endpoint in endpoints]
    deleted = [start_job(client) for _ in range(2)]
    for job_id in deleted:
        assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    until(lambda: all(delivery(client, endpoint, each)["state"] == "delivered" for endpoint, each in zip(endpoints * 4, sent, strict=True)))
    time.sleep(3 * installation.settings.sweep_s)
    got = [each.id for each in mail.received if each.path.startswith("/two/")]
    assert sorted(each for each in got if each in set(sent)) == sorted(sent)
    for name in names:
        assert installation.end(name) == 0
        said = (installation.settings.data_dir / f"{name}.out").read_text()
        assert "WARNING" not in said
        assert "Traceback" not in said
        assert "webhook" in said  # it had its share
    for endpoint in endpoints:
        client.delete(f"/v1/webhook-endpoints/{endpoint['id']}")


def test_a_job_tells_its_endpoints_when_it_starts_and_how_it_ends_once_though_its_worker_is_killed(client, hooked, mail):
    installation, _ = hooked
    control = Path(installation.settings.engine_command[2])
    (control / "train.json").write_text('{"seconds": 1}')
    everything = new_endpoint(client, mail.url("/all"))
    ends = new_endpoint(client, mail.url("/ends"), types=["job.succeeded", "job.failed"])
    installation.start_worker()
    job_id = start_job(client, webhook={"url": mail.url("/own"), "types": ["job.succeeded"]})
    other = start_job(client)
    (own,) = client.get("/v1/webhook-endpoints", params={"job_id": job_id}).json()["items"]
    until((installation.settings.work / job_id / "train.checkpoint").exists, 90)
    installation.kill("worker")
    installation.start_worker()
    assert job_in(client, job_id, "succeeded", timeout_s=90)["lost_leases"] == 1
    client.post(f"/v1/jobs/{other}/cancel")
    job_in(client, other, "cancelled", "succeeded", timeout_s=90)
    until(lambda: len(mail.at("/own")) == 1)

    def told(path: str, job: str) -> list[str]:
        messages = [each.verified(everything["secret"]) if path == "/all" else json.loads(each.body) for each in mail.at(path)]
        return [each["type"] for each in messages if each["data"].get("job_id") == job]

    until(lambda: len(told("/all", job_id)) == 2 and told("/ends", job_id))
    assert sorted(told("/all", job_id)) == ["job.started", "job.succeeded"]
    assert told("/ends", job_id) == ["job.succeeded"]
    assert told("/own", job_id) == ["job.succeeded"]
    assert not told("/own", other)
    until(lambda: told("/all", other))
    assert set(told("/all", other)) <= {"job.started", "job.cancelled", "job.succeeded"}
    assert len(told("/all", other)) == len(set(told("/all", other)))
    message = next(each for each in mail.at("/own")).body
    assert f'"links":{{"self":"/v1/jobs/{job_id}"' in message
    assert own["job_id"] == job_id
    assert "secret" not in own
    for endpoint in (everything, ends):
        client.delete(f"/v1/webhook-endpoints/{endpoint['id']}")


def test_a_job_of_a_killed_worker_is_waiting_again_as_soon_as_a_dispatcher_starts(stack, tmp_path):
    control = tmp_path / "control"
    control.mkdir()
    (control / "ingest.json").write_text('{"seconds": 60}')
    command = (sys.executable, str(FAKE_ENGINE), str(control))
    with installed(stack, tmp_path / "data", engine_command=command, lease_s=3600.0) as installation, installation.api() as client:
        installation.start_worker()
        job_id = start_job(client)
        job_in(client, job_id, "running")
        installation.kill("worker")
        time.sleep(0.5)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "running"
        installation.start_dispatcher()
        assert job_in(client, job_id, "queued", timeout_s=60)["lost_leases"] == 1


def test_a_dispatcher_told_to_end_does_not_wait_for_a_receiver_that_hangs(client, hooked, mail):
    installation, _ = hooked
    installation.end("dispatcher")
    installation.start("patient", "worker.dispatcher", SPLATWORKS_WEBHOOK_TIMEOUT_S="300")
    mail.answers["/slow-end"] = [hang(300)]
    endpoint = new_endpoint(client, mail.url("/slow-end"))
    sent = send_test(client, endpoint)
    until(lambda: mail.at("/slow-end"))
    assert installation.end("patient", 60) == 0
    assert delivery(client, endpoint, sent)["state"] == "pending"
    client.delete(f"/v1/webhook-endpoints/{endpoint['id']}")
