"""A worker that was stopped for longer than its lease and wakes up again: nothing that it then writes counts."""

import os
import signal
import time

import pytest
from sqlalchemy.exc import DBAPIError

from api.db import now, open_database
from api.models import Capture, Job, Photo
from api.services import assets, jobs, leases
from api.services.leases import Claim, Finished, Holder, LeaseLostError
from api.storage import open_storage
from engine.options import preset
from tests.services import installed, until
from tests.worker.conftest import job_in, obedient, start_job

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def service(stack, tmp_path):
    with obedient(stack, tmp_path) as made:
        yield made


def test_the_finish_of_a_zombie_is_refused_and_its_results_are_taken_back(service):
    """Stop a worker with SIGSTOP in its last stage, let another finish the job, wake it: its finish is refused."""
    service.tell("compress", seconds=3)
    settings = service.installation.settings
    service.installation.start_worker()
    service.installation.start_dispatcher()
    db, storage = open_database(settings), open_storage(settings)
    with service.installation.api() as client:
        job_id = start_job(client)
        until(lambda: service.started("compress"), 60)
        with db.reading() as session:
            fence = session.get_one(Job, job_id).fence
        zombie = service.installation.processes["worker"].pid
        os.killpg(zombie, signal.SIGSTOP)
        try:
            until(lambda: client.get(f"/v1/jobs/{job_id}").json()["lost_leases"] == 1, 60)
            service.installation.start_worker("other")
            ended = job_in(client, job_id, "succeeded", timeout_s=90)
        finally:
            os.killpg(zombie, signal.SIGCONT)
        output = settings.data_dir / "worker.out"
        until(lambda: f"{job_id} is no longer ours (fence {fence})" in output.read_text(), 60)
        time.sleep(0.5)
        assert client.get(f"/v1/jobs/{job_id}").json() == ended
        shown = {asset["name"] for asset in client.get(f"/v1/jobs/{job_id}/assets").json()["items"]}
        assert {"scene.ply", "scene.sog", "report.json", "log.txt"} <= shown
        events = client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
        assert [event["data"]["state"] for event in events if event["type"] == "state"].count("succeeded") == 1
    places = {key.split("/")[3] for key, _at in storage.written(f"jobs/{job_id}/assets")}
    assert places == {str(fence + 1)}
    # The same by hand, without any process: the old claim may do nothing at all.
    old = Claim(job_id, fence, "compress", "cpu")
    with pytest.raises(LeaseLostError):
        finish_again(db, settings, old)
    with pytest.raises(LeaseLostError), db.writing() as session:
        leases.beat(session, settings, old)
    with db.reading() as session:
        assert session.get_one(Job, job_id).event_seq == len(events)
        assert {asset.name for asset in assets.of_job(session, job_id)} == shown
    db.close()


def finish_again(db, settings, claim: Claim) -> None:
    """Do what a worker does with its last stage's results."""
    with db.writing() as session:
        file = assets.Stored("again.ply", f"jobs/{claim.job_id}/assets/{claim.fence}/again.ply", "0", 1)
        assets.record(session, claim.job_id, [file])
        leases.finish_stage(session, settings, claim, Finished(1.0, False, {}), {"gaussians": 1})


def test_a_holder_stopped_in_the_middle_of_a_write_loses_its_job_all_the_same(stack, tmp_path):
    """On Postgres the server ends a transaction that stands still; without that its job's row stays locked, and the job waits for ever."""
    if stack.postgres_url is None:
        pytest.skip("SQLite has one writer: it waits for a stopped one")
    with installed(stack, tmp_path / "data", lease_s=1.0, heartbeat_s=0.4, broker_url="") as installation:
        holder, dispatcher = open_database(installation.settings), open_database(installation.settings)
        job_id = new_job(dispatcher, installation.settings)
        with dispatcher.writing() as session:
            claim = leases.claim(session, installation.settings, job_id, "cpu", Holder("here", 1, "then"))
        with pytest.raises(DBAPIError):
            beat_and_stop(holder, installation.settings, claim, lambda: expired(dispatcher, installation.settings))
        with dispatcher.reading() as session:
            assert session.get_one(Job, job_id).state == "queued"
        with pytest.raises(LeaseLostError), holder.writing() as session:
            leases.beat(session, installation.settings, claim)
        holder.close()
        dispatcher.close()


def beat_and_stop(db, settings, claim: Claim, is_over) -> None:
    """Stand still in the middle of a heartbeat, until the job is another's; then go on."""
    with db.writing() as session:
        leases.beat(session, settings, claim)
        until(is_over, 40)


def expired(db, settings) -> list[str]:
    """Take expired jobs from their holders."""
    with db.writing() as session:
        return leases.expire(session, settings)


def new_job(db, settings) -> str:
    """Return a job over three made-up photos."""
    with db.writing() as session:
        capture = Capture(name="", created_at=now(session))
        session.add(capture)
        session.flush()
        for seq in (1, 2, 3):
            words = {"name": f"{seq}.jpg", "state": "accepted", "size_bytes": 5, "sha256": f"{seq}", "storage_key": f"captures/{seq}"}
            session.add(Photo(capture_id=capture.id, seq=seq, created_at=now(session), **words))
        return jobs.create(session, settings, capture.id, preset("draft")).id
