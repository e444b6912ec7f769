"""Jobs over HTTP, without a worker."""

import json
import threading
import time
from itertools import product

import pytest

from tests.api.conftest import is_problem
from tests.photos import encoded, form, upload

MISSING = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def full(client, capture) -> str:
    upload(client, capture, 3)
    return capture


def start(client, capture: str, **body):
    return client.post("/v1/jobs", json={"capture_id": capture, **body})


def test_a_job_is_accepted_with_its_place_stages_and_links(client, full):
    answer = start(client, full, preset="standard", options={"train": {"steps": 7}, "seed": 3})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["stage"], job["progress"], job["n_photos"], job["queue_position"]) == ("queued", "ingest", 0.0, 3, 1)
    assert [stage["name"] for stage in job["stages"]] == ["ingest", "poses", "train", "compress"]
    assert job["options"]["train"]["steps"] == 7
    assert job["options"]["train"]["max_gaussians"] == 200_000
    assert job["options"]["seed"] == 3
    assert job.pop("webhook") is None
    assert client.get(job["links"]["self"]).json() == job
    assert start(client, full).json()["queue_position"] == 2


def test_one_form_makes_capture_and_job(client):
    files = form(*((f"{n}.jpg", encoded(n)) for n in range(3)))
    answer = client.post("/v1/jobs", files=files, data={"preset": "draft", "options": json.dumps({"seed": 5}), "name": "shelf"})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["n_photos"], job["options"]["seed"]) == (3, 5)
    assert client.get(f"/v1/captures/{job['capture_id']}").json()["name"] == "shelf"


@pytest.mark.parametrize(
    ("data", "n_photos", "status", "code"),
    [
        ({"preset": "lightning"}, 3, 422, "input.unknown_preset"),
        ({"options": "{"}, 3, 422, "input.malformed_field"),
        ({"options": "[" * 100_000}, 3, 422, "input.malformed_field"),
        ({"webhook": "url"}, 3, 422, "input.malformed_field"),
        ({"options": '{"seed": 1e999}'}, 3, 422, "input.invalid_option"),
        ({"colour": "red"}, 3, 422, "input.unknown_field"),
        ({}, 2, 422, "input.too_few_photos"),
    ],
)
def test_a_form_that_cannot_start_a_job_leaves_nothing(client, installation, data, n_photos, status, code):
    files = form(*((f"{n}.jpg", encoded(n)) for n in range(n_photos)))
    is_problem(client.post("/v1/jobs", files=files, data=data), status, code)
    assert client.get("/v1/captures").json()["items"] == []
    assert installation.stored() == set()
    assert list(installation.settings.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"capture_id": MISSING}, 404, "not_found.capture"),
        ({"capture_id": "\u0000"}, 422, "input.invalid_request"),
        ({}, 422, "input.invalid_request"),
        ({"capture_id": MISSING, "preset": "lightning"}, 422, "input.unknown_preset"),
        ({"capture_id": MISSING, "options": {"train": {"stepz": 1}}}, 422, "input.unknown_option"),
        ({"capture_id": MISSING, "options": {"train": {"steps": -1}}}, 422, "input.invalid_option"),
        ({"capture_id": MISSING, "options": {"train": 7}}, 422, "input.invalid_option"),
        ({"capture_id": MISSING, "options": []}, 422, "input.invalid_request"),
        ({"capture_id": MISSING, "wait": 3}, 422, "input.invalid_request"),
        ([], 422, "input.invalid_request"),
    ],
)
def test_a_job_that_cannot_start_says_why(client, body, status, code):
    is_problem(client.post("/v1/jobs", json=body), status, code)


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "request.malformed_json"),
        (b"\xff", "application/json", 400, "request.malformed_json"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "request.unsupported_body"),
        (b'{"capture_id": "x", "options": {"seed": Infinity}}', "application/json", 422, "input.invalid_option"),
        (b'{"capture_id": "x", "options": {"\\ud800": 1}}', "application/json", 422, "input.unknown_option"),
        (b'{"capture_id": "x", "preset": "\\ud800"}', "application/json", 422, None),
    ],
)
def test_a_malformed_body_is_a_problem(client, content, content_type, status, code):
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": content_type})
    is_problem(answer, status, code or answer.json()["code"])


def test_two_photos_are_too_few(client, capture):
    upload(client, capture, 2)
    assert is_problem(start(client, capture), 422, "input.too_few_photos")["data"] == {"photos": 2}


def test_photos_that_come_later_do_not_change_a_job(client, full):
    job = start(client, full).json()
    upload(client, full, 5)
    assert client.get(f"/v1/jobs/{job['id']}").json()["n_photos"] == 3
    assert start(client, full).json()["n_photos"] == 5


def test_an_unchanged_job_is_304(client, full):
    job = start(client, full).json()
    first = client.get(f"/v1/jobs/{job['id']}")
    again = client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_waiting_job_is_cancelled_at_once_and_can_be_retried_and_deleted(client, full):
    job = start(client, full).json()
    is_problem(client.post(f"/v1/jobs/{job['id']}/retry"), 409, "conflict.job_active")
    answer = client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    is_problem(client.post(f"/v1/jobs/{job['id']}/retry", json={"from_stage": "lunch"}), 422, "input.unknown_stage")
    again = client.post(f"/v1/jobs/{job['id']}/retry", json={"options": {"seed": 9}})
    assert (again.status_code, again.json()["parent_id"], again.json()["options"]["seed"]) == (202, job["id"], 9)
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    for path in ("", "/events", "/logs", "/assets", "/assets/scene.ply"):
        is_problem(client.get(f"/v1/jobs/{job['id']}{path}"), 410, "gone.job")
    assert [each["id"] for each in client.get("/v1/jobs").json()["items"]] == [again.json()["id"]]


def test_an_unknown_job_is_a_problem_everywhere(client):
    for job, path in product([MISSING, "nonsense", "%00", "..%2f"], ["", "/events", "/logs", "/assets", "/assets/a"]):
        answer = client.get(f"/v1/jobs/{job}{path}")
        is_problem(answer, 404, answer.json()["code"])


def test_jobs_come_in_pages_and_by_state_and_capture(client, full):
    made = [start(client, full).json()["id"] for _ in range(3)]
    client.post(f"/v1/jobs/{made[0]}/cancel")
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["items"]] == [made[2], made[1]]
    rest = client.get("/v1/jobs", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["items"]] == [made[0]]
    assert rest["next_cursor"] is None
    assert [job["id"] for job in client.get("/v1/jobs", params={"state": "cancelled"}).json()["items"]] == [made[0]]
    assert client.get("/v1/jobs", params={"capture_id": MISSING}).json()["items"] == []
    for wrong in ({"limit": 0}, {"limit": 1000}, {"cursor": "x"}, {"state": "lost"}):
        is_problem(client.get("/v1/jobs", params=wrong), 422, "input.invalid_request")


def test_one_idempotency_key_makes_one_job_however_many_ask_at_once(client, full):
    headers = {"Idempotency-Key": "only-once"}
    answers = []

    def ask():
        answers.append(client.post("/v1/jobs", json={"capture_id": full}, headers=headers))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1
    other = client.post("/v1/jobs", json={"capture_id": full, "preset": "high"}, headers=headers)
    is_problem(other, 422, "input.idempotency_key_reused")


def test_one_idempotency_key_makes_one_job_and_one_capture_of_a_form(client):
    headers = {"Idempotency-Key": "form"}
    files = form(*((f"{n}.jpg", encoded(n)) for n in range(3)))
    first, again = (client.post("/v1/jobs", files=files, headers=headers).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert len(client.get("/v1/captures").json()["items"]) == 1
    is_problem(client.post("/v1/jobs", files=files[:2], headers=headers), 422, "input.idempotency_key_reused")


def test_prefer_wait_answers_when_the_job_has_ended(client, full):
    began = time.monotonic()
    answer = client.post("/v1/jobs", json={"capture_id": full}, headers={"Prefer": "wait=1"})
    assert answer.headers["preference-applied"] == "wait=1"
    assert 0.9 < time.monotonic() - began < 5
    job = answer.json()["id"]
    threading.Timer(0.5, lambda: client.post(f"/v1/jobs/{job}/cancel")).start()
    assert client.get(f"/v1/jobs/{job}", headers={"Prefer": "respond-async, wait=20"}).json()["state"] == "cancelled"


def events_of(text: str) -> list[tuple[str, str, dict]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def test_the_event_stream_begins_with_a_snapshot_resumes_and_ends(client, full):
    job = start(client, full).json()["id"]
    threading.Timer(0.7, lambda: client.post(f"/v1/jobs/{job}/cancel")).start()
    answer = client.get(f"/v1/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, number, snapshot), (kind, last, event) = events_of(answer.text)
    assert (first, number, snapshot["state"]) == ("snapshot", "1", "queued")
    assert (kind, last, event["state"]) == ("state", "2", "cancelled")
    resumed = events_of(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "1"}).text)
    assert [(each[0], each[1]) for each in resumed] == [("state", "2")]
    from_start = events_of(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "0"}).text)
    assert [each[1] for each in from_start] == ["1", "2"]
    listed = client.get(f"/v1/jobs/{job}/events", params={"after": 1}, headers={"Accept": "application/json"}).json()
    assert [each["seq"] for each in listed["items"]] == [2]


def test_assets_of_an_unfinished_job_are_not_there_yet(client, full):
    job = start(client, full).json()["id"]
    assert client.get(f"/v1/jobs/{job}/assets").json() == {"items": []}
    is_problem(client.get(f"/v1/jobs/{job}/assets/scene.ply"), 409, "conflict.not_ready")
    assert client.get(f"/v1/jobs/{job}/logs").content == b""


def test_a_job_says_how_urgent_it_is_and_until_when_it_is_kept(client, full):
    job = start(client, full, priority=7.0, ttl_hours=2).json()
    assert (job["priority"], job["eta"], job["waits_for"]) == (7, None, None)
    assert job["expires_at"] is not None
    files = form(*((f"{n}.jpg", encoded(n)) for n in range(3)))
    assert client.post("/v1/jobs", files=files, data={"priority": "-3", "ttl_hours": "0.5"}).json()["priority"] == -3
    assert client.get(f"/v1/jobs/{job['id']}").json()["queue_position"] == 1
    for wrong in ({"priority": 11}, {"priority": 1.5}, {"priority": "3"}, {"priority": True}, {"ttl_hours": 0}, {"ttl_hours": 1e9}):
        is_problem(start(client, full, **wrong), 422, "input.invalid_request")
    is_problem(client.get(f"/v1/jobs/{job['id']}/preview"), 404, "not_found.preview")
