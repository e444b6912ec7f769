"""Which queue a stage waits in, on real rows: GPU workers come, go silent, and die."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from api.db import Database, now
from api.models import Job, Process
from api.services import events, leases, routing, system
from tests.api.services.test_leases import DONE, claim, make_job, row

STAGES_BEFORE_TRAIN = 2


@pytest.fixture
def job_id(db: Database, installation) -> str:
    return make_job(db, installation.settings)


def see(db: Database, process_id: str, queues: str, device: str = "cuda", ago_s: float = 0.0) -> None:
    """Show a worker, last seen some seconds ago."""
    with db.writing() as session:
        system.see_process(session, process_id, system.Alive("worker", "there", 7, queues, device))
        session.execute(update(Process).where(Process.id == process_id).values(seen_at=now(session) - timedelta(seconds=ago_s)))


def finish(db: Database, settings, held: leases.Claim) -> leases.Claim | None:
    with db.writing() as session:
        return leases.finish_stage(session, settings, held, DONE)


def bring_to_train(db: Database, settings, job_id: str) -> leases.Claim | None:
    """Do ingest and poses; return the claim on train where the same worker goes on."""
    held = claim(db, settings, job_id)
    for _ in range(STAGES_BEFORE_TRAIN):
        assert held is not None
        held = finish(db, settings, held)
    return held


def redirect(db: Database, settings) -> list[str]:
    with db.writing() as session:
        return routing.redirect(session, settings)


@pytest.mark.parametrize(
    ("queues", "device", "ago_s", "queue"),
    [
        ("gpu", "cuda", 0, "gpu"),
        ("cpu,gpu", "auto", 0, "gpu"),
        ("gpu", "cuda", 61, "cpu"),
        ("cpu", "auto", 0, "cpu"),
        ("gpu-of-somebody", "cuda", 0, "cpu"),
    ],
)
def test_only_a_gpu_worker_seen_lately_gets_train_and_never_the_stages_before(db, installation, queues, device, ago_s, queue):
    see(db, "worker", queues, device, ago_s)
    with db.reading() as session:
        chosen = [routing.queue_for(session, installation.settings, stage) for stage in ("ingest", "poses", "train", "compress")]
    assert chosen == ["cpu", "cpu", queue, queue]


def test_without_a_gpu_worker_one_claim_goes_on_into_train(db, installation, job_id):
    held = bring_to_train(db, installation.settings, job_id)
    assert (held.stage, held.queue) == ("train", "cpu")
    assert row(db, job_id).state == "running"


def test_with_a_gpu_worker_the_job_waits_for_it_and_stays_with_it_to_the_end(db, installation, job_id):
    settings = installation.settings
    see(db, "g", "gpu")
    assert bring_to_train(db, settings, job_id) is None
    waiting = row(db, job_id)
    assert (waiting.state, waiting.stage, waiting.queue, waiting.dispatched_at) == ("queued", "train", "gpu", None)
    assert claim(db, settings, job_id, "cpu") is None
    held = claim(db, settings, job_id, "gpu")
    see(db, "g", "gpu", ago_s=1000)  # its sign of life is late; the files are there all the same
    following = finish(db, settings, held)
    assert (following.stage, following.queue, following.fence) == ("compress", "gpu", held.fence)


def test_a_worker_that_trained_on_its_cpu_compresses_too_although_a_gpu_worker_came(db, installation, job_id):
    held = bring_to_train(db, installation.settings, job_id)
    see(db, "g", "gpu")
    following = finish(db, installation.settings, held)
    assert (following.stage, following.queue) == ("compress", "cpu")


def test_a_waiting_job_leaves_the_queue_of_gpu_workers_gone_silent_and_its_old_bell_does_nothing(db, installation, job_id):
    settings = installation.settings
    see(db, "g", "gpu")
    bring_to_train(db, settings, job_id)
    with db.writing() as session:
        session.execute(update(Job).values(dispatched_at=now(session)))
    assert redirect(db, settings) == []
    see(db, "g", "gpu", ago_s=settings.gpu_wait_s - 5)
    assert redirect(db, settings) == [], "not before its time is over"
    see(db, "g", "gpu", ago_s=settings.gpu_wait_s + 1)
    assert redirect(db, settings) == [job_id]
    moved = row(db, job_id)
    assert (moved.state, moved.queue, moved.dispatched_at, moved.fence) == ("queued", "cpu", None, 1)
    assert claim(db, settings, job_id, "gpu") is None
    assert claim(db, settings, job_id, "cpu").stage == "train"
    with db.reading() as session:
        said = [event.data for event in events.after(session, job_id, 0) if event.type == "queue"]
    assert said == [{"queue": "cpu", "reason": "no GPU worker was seen for 60 s"}]


def test_a_job_that_waits_for_a_cpu_goes_to_a_gpu_worker_that_comes(db, installation, job_id):
    settings = installation.settings
    held = bring_to_train(db, settings, job_id)
    with db.writing() as session:
        leases.release(session, held)
    see(db, "g", "gpu")
    assert redirect(db, settings) == [job_id]
    assert row(db, job_id).queue == "gpu"
    assert redirect(db, settings) == []


def test_running_jobs_and_stages_for_the_cpu_are_left_where_they_are(db, installation, job_id):
    settings = installation.settings
    other = make_job(db, settings)
    bring_to_train(db, settings, job_id)
    see(db, "g", "gpu")
    assert redirect(db, settings) == []
    assert (row(db, job_id).queue, row(db, other).queue) == ("cpu", "cpu")


def test_a_job_claimed_between_look_and_move_stays_with_its_holder(db, installation, job_id, monkeypatch):
    settings = installation.settings
    see(db, "g", "gpu")
    bring_to_train(db, settings, job_id)
    held = claim(db, settings, job_id, "gpu")
    see(db, "g", "gpu", ago_s=1000)
    monkeypatch.setattr(routing, "misrouted", lambda *_: {"cpu": [job_id]})  # what a look before the claim would have said
    assert redirect(db, settings) == []
    assert row(db, job_id).queue == "gpu"
    assert finish(db, settings, held).fence == held.fence
