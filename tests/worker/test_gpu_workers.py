"""Workers with and without a card, as processes on both stacks. There is no card here: the engine only says which one it was given."""

from functools import partial

import pytest

from tests.services import until
from tests.worker.conftest import Service, job_in, start_job

WAIT_S = 2.0


@pytest.fixture
def mixed(service: Service):
    """A CPU worker, a dispatcher and a worker on card 0, all seen."""
    service.installation.settings = service.installation.settings.model_copy(update={"gpu_wait_s": WAIT_S})
    service.installation.start_worker(SPLATWORKS_DEVICE="cpu")
    service.installation.start_dispatcher()
    start_gpu_worker(service, 0)
    with service.installation.api() as client:
        until(lambda: client.get("/readyz").json().get("checks", {}).get("gpu_workers") == "1")
        yield service, client


def start_gpu_worker(service: Service, card: int) -> None:
    service.installation.start_worker(f"gpu{card}", "gpu", SPLATWORKS_DEVICE="cuda", CUDA_VISIBLE_DEVICES=str(card))


def events_of(client, job_id: str, kind: str) -> list[dict]:
    items = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    return [event["data"] for event in items if event["type"] == kind]


def test_train_and_compress_run_at_the_gpu_worker_and_the_rest_at_the_other(mixed):
    service, client = mixed
    job_id = start_job(client)
    job = job_in(client, job_id, "succeeded")
    ran = [(stage, device) for _word, stage, device in service.runs("device")]
    assert ran == [("ingest", "cpu"), ("poses", "cpu"), ("train", "cuda/0"), ("compress", "cuda/0")]
    assert [said["state"] for said in events_of(client, job_id, "state")] == ["queued", "running", "queued", "running", "succeeded"]
    assert job["result"]["devices"] == {"train": "cuda/0"}
    assert job["stages"][2]["stats"]["kernel"] == "cuda/0"
    assert job["queue"] == "gpu"
    workers = {row["queues"]: row["device"] for row in client.get("/v1/system").json()["processes"] if row["kind"] == "worker"}
    assert workers == {"cpu": "cpu", "gpu": "cuda/0"}


def test_a_stage_that_waits_for_a_gpu_worker_that_died_goes_on_on_the_cpu(mixed):
    service, client = mixed
    service.tell("poses", seconds=0.6)
    job_id = start_job(client)
    until(partial(service.started, "poses"))
    service.installation.kill("gpu0", group=True)
    job_in(client, job_id, "queued")
    assert client.get(f"/v1/jobs/{job_id}").json()["queue"] == "gpu"
    job = job_in(client, job_id, "succeeded", timeout_s=15 * WAIT_S)
    assert job["result"]["devices"] == {"train": "cpu"}
    assert (job["lost_leases"], job["error_attempts"]) == (0, 0)
    assert [said["queue"] for said in events_of(client, job_id, "queue")] == ["cpu"]
    assert len(service.runs("start")) == 4


def test_a_stage_whose_gpu_worker_dies_goes_on_from_its_checkpoint_on_the_cpu(mixed):
    service, client = mixed
    service.tell("train", seconds=2)
    job_id = start_job(client)
    until((service.installation.settings.work / job_id / "train.checkpoint").exists)
    service.installation.kill("gpu0")
    job = job_in(client, job_id, "succeeded", timeout_s=15 * WAIT_S)
    assert job["lost_leases"] == 1
    assert [device for _word, stage, device in service.runs("device") if stage == "train"] == ["cuda/0", "cpu"]
    assert service.runs("resume")
    assert [said["state"] for said in events_of(client, job_id, "state")].count("succeeded") == 1


def test_two_gpu_workers_share_the_jobs_and_one_takes_over_from_the_other(mixed):
    service, client = mixed
    start_gpu_worker(service, 1)
    until(lambda: client.get("/readyz").json()["checks"]["gpu_workers"] == "2")
    service.tell("train", seconds=1.5)
    jobs = [start_job(client) for _ in range(2)]
    checkpoints = [service.installation.settings.work / job_id / "train.checkpoint" for job_id in jobs]
    until(lambda: all(path.exists() for path in checkpoints))
    assert {device for _word, stage, device in service.runs("device") if stage == "train"} == {"cuda/0", "cuda/1"}
    service.installation.kill("gpu1")
    ended = [job_in(client, job_id, "succeeded") for job_id in jobs]
    assert sorted(job["lost_leases"] for job in ended) == [0, 1]
    assert {job["result"]["devices"]["train"] for job in ended} == {"cuda/0"}
    assert sorted(device for _word, stage, device in service.runs("device") if stage == "train") == ["cuda/0", "cuda/0", "cuda/1"]


@pytest.mark.parametrize(("device", "words"), [("cuda", "told to find no card"), ("cpu", "would run on the CPU")])
def test_a_worker_for_cards_that_opens_none_ends_before_it_takes_anything(service, device, words):
    if device == "cuda":
        service.tell("device", fail="capacity.no_card")
    worker = service.installation.start_worker("gpu0", "gpu", SPLATWORKS_DEVICE=device)
    assert worker.wait(20) == 1
    assert words in (service.installation.settings.data_dir / "gpu0.out").read_text()
    with service.installation.api() as client:
        assert client.get("/v1/system").json()["processes"] == []
