"""The service as processes: worker, dispatcher and broker run for real, on both stacks, with an engine that is told what to do."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from api.queue import broker_client, n_messages, publisher, send
from tests.services import until
from tests.worker.conftest import job_in, start_job


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_job_runs_to_the_end_and_its_assets_and_events_are_whole(running):
    service, client = running
    job_id = start_job(client, options={"train": {"max_gaussians": 12345}})
    job = job_in(client, job_id, "succeeded")
    figures = {"registered": 3, "photos": 3, "psnr_db": 30.5, "ssim": 0.9, "gaussians": 12345}
    assert job["result"] == {**figures, "devices": {"train": "auto"}, "left_out": []}
    assert [stage["state"] for stage in job["stages"]] == ["done"] * 4
    assert job["progress"] == 1.0
    assert job["stages"][0]["stats"] == {"n_photos": 3}
    assets = {asset["name"]: asset for asset in client.get(f"/v1/jobs/{job_id}/assets").json()["items"]}
    assert set(assets) == {"scene.ply", "scene.sog", "report.json", "log.txt"}
    content = client.get(assets["scene.ply"]["url"])
    assert len(content.content) == assets["scene.ply"]["size_bytes"]
    events = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["data"]["state"] for event in events if event["type"] == "state"] == ["queued", "running", "succeeded"]
    assert any(event["type"] == "warning" and event["data"]["code"] == "input.blurred" for event in events)
    assert "a line for people" in client.get(f"/v1/jobs/{job_id}/logs").text
    until(lambda: not (service.installation.settings.work / job_id).exists(), 5)


def test_a_worker_killed_mid_stage_costs_only_the_work_since_the_checkpoint(running):
    service, client = running
    service.tell("train", seconds=2, grandchild=True)
    job_id = start_job(client)
    until((service.installation.settings.work / job_id / "train.checkpoint").exists)
    (engine_pid,) = service.started("train")
    service.installation.kill("worker")
    until(lambda: not is_running(engine_pid), 5)
    service.installation.start_worker()
    job = job_in(client, job_id, "succeeded", timeout_s=40)
    assert job["lost_leases"] == 1
    assert job["error_attempts"] == 0
    assert len(service.started("ingest")) == 1
    assert [line for line in service.runs("resume") if line[1] == "train"]
    (_word, grandchild), *_more = service.runs("grandchild")
    assert not is_running(int(grandchild))


def test_a_worker_that_sleeps_past_its_lease_writes_nothing_when_it_wakes(running):
    service, client = running
    service.tell("train", seconds=3)
    job_id = start_job(client)
    until(lambda: service.started("train"))
    sleeper = service.installation.processes["worker"].pid
    os.killpg(sleeper, signal.SIGSTOP)
    service.installation.start_worker("other")
    try:
        job = job_in(client, job_id, "succeeded")
        os.killpg(sleeper, signal.SIGCONT)
        time.sleep(1)
    finally:
        os.killpg(sleeper, signal.SIGCONT)
        service.installation.end("other")
    assert job["lost_leases"] == 1
    assert client.get(f"/v1/jobs/{job_id}").json() == job
    events = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    assert [event["data"]["state"] for event in events if event["type"] == "state"].count("succeeded") == 1
    job_in(client, start_job(client), "succeeded")


def test_a_stage_killed_by_a_signal_is_named_and_run_again(running):
    service, client = running
    service.tell("train", signal=int(signal.SIGKILL), times=1)
    service.tell("compress", signal=int(signal.SIGSEGV), times=1)
    job_id = start_job(client)
    job = job_in(client, job_id, "succeeded")
    assert job["error_attempts"] == 2
    events = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    errors = [event["data"]["error"] for event in events if event["type"] == "state" and "error" in event["data"]]
    assert [error["code"] for error in errors] == ["capacity.killed", "internal.stage_crashed"]
    assert "SIGSEGV" in errors[1]["detail"]


def test_an_error_of_the_user_fails_at_once_and_any_other_after_three_attempts(running):
    service, client = running
    service.tell("poses", fail="capture.low_overlap")
    job = job_in(client, start_job(client), "failed")
    assert job["error"]["code"] == "capture.low_overlap"
    assert job["error"]["hint"] == "Tell it otherwise."
    assert "a line for people" in job["error"]["log_tail"]
    assert [stage["state"] for stage in job["stages"]] == ["done", "failed", "pending", "pending"]
    assert len(service.started("poses")) == 1
    service.tell("poses", fail="internal.something")
    job = job_in(client, start_job(client), "failed")
    assert job["error_attempts"] == 3
    assert len(service.started("poses")) == 4


def test_cancel_ends_the_stage_and_all_its_children_even_when_it_is_deaf(running):
    service, client = running
    service.tell("train", seconds=60, deaf=True, grandchild=True)
    job_id = start_job(client)
    (grandchild,) = until(partial(service.runs, "grandchild"))
    (engine_pid,) = service.started("train")
    began = time.monotonic()
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelling"
    job_in(client, job_id, "cancelled", timeout_s=15)
    assert time.monotonic() - began < 15
    assert not is_running(engine_pid)
    assert not is_running(int(grandchild[1]))
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200


def test_deliveries_without_end_run_a_job_once(running):
    service, client = running
    service.tell("ingest", seconds=1)
    job_id = start_job(client)
    app = publisher(service.installation.settings)
    for _ in range(20):
        assert send(app, job_id, "cpu")
    app.close()
    job = job_in(client, job_id, "succeeded")
    assert len(service.runs("start")) == 4
    assert [stage["attempt"] for stage in job["stages"]] == [1, 1, 1, 1]


def test_a_broker_that_is_down_neither_stops_requests_nor_running_jobs(running):
    service, client = running
    service.tell("train", seconds=2)
    first = start_job(client)
    until(partial(service.started, "train"))
    service.installation.stack.broker.kill()
    try:
        began = time.monotonic()
        second = start_job(client)
        assert time.monotonic() - began < 3
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.headers["content-type"] == "application/problem+json"
        job_in(client, first, "succeeded")
    finally:
        service.installation.stack.broker.start()
    job_in(client, second, "succeeded", timeout_s=45)


def test_a_worker_asked_to_end_gives_its_job_back_uncounted(running):
    service, client = running
    service.tell("train", seconds=2)
    job_id = start_job(client)
    until((service.installation.settings.work / job_id / "train.checkpoint").exists)
    began = time.monotonic()
    assert service.installation.end("worker") == 0
    assert time.monotonic() - began < 10
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    service.installation.start_worker()
    job = job_in(client, job_id, "succeeded")
    assert job["error_attempts"] == job["lost_leases"] == 0
    assert service.runs("resume")


def test_a_retry_goes_on_where_the_failed_job_stopped(running):
    service, client = running
    service.tell("train", fail="input.bad", times=1)
    first = start_job(client)
    job_in(client, first, "failed")
    answer = client.post(f"/v1/jobs/{first}/retry", json={})
    assert answer.status_code == 202
    job = job_in(client, answer.json()["id"], "succeeded")
    assert job["parent_id"] == first
    assert [stage["state"] for stage in job["stages"]] == ["skipped", "skipped", "done", "done"]
    again = client.post(f"/v1/jobs/{job['id']}/retry", json={"from_stage": "poses"}).json()
    assert [stage["state"] for stage in job_in(client, again["id"], "succeeded")["stages"]] == ["skipped", "done", "done", "done"]


def test_a_deleted_job_leaves_nothing_behind(running):
    service, client = running
    job_id = start_job(client)
    job_in(client, job_id, "succeeded")
    installation = service.installation
    assert installation.stored(f"jobs/{job_id}")
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").status_code == 410
    until(lambda: not installation.stored(f"jobs/{job_id}"), 10)
    until(lambda: not (service.installation.settings.logs / f"{job_id}.log").exists(), 5)


def test_a_job_outlives_the_api_and_a_broker_that_forgets_everything(service):
    with service.installation.api() as client:
        job_id = start_job(client)
    with service.installation.stack.broker.client() as broker:
        broker.flushall()
    service.installation.start_worker()
    service.installation.start_dispatcher()
    with service.installation.api() as client:
        job_in(client, job_id, "succeeded")


def test_doorbells_do_not_pile_up_while_no_worker_answers(service):
    settings = service.installation.settings = service.installation.settings.model_copy(update={"resend_s": 0.2})
    service.installation.start_dispatcher()
    with service.installation.api() as client:
        for _ in range(4):
            start_job(client)
        until(lambda: n_messages(settings, "cpu") >= 4)
        time.sleep(2)
        assert 4 <= n_messages(settings, "cpu") <= 8
        with broker_client(settings) as broker:
            broker.flushdb()
        until(lambda: n_messages(settings, "cpu") >= 4)
