"""A worker whose disk is full: the job waits, uncounted, loses nothing, and goes on by itself once there is space."""

import shutil
import subprocess
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from api.db import now
from api.models import Asset, Job
from api.services import leases
from api.services.leases import DISK_ATTEMPTS, Holder
from engine.errors import CapacityError
from tests.faults.test_naughty import RESULTS, bench  # noqa: F401 (a fixture)
from worker import stage

SIZE = "600k"


@pytest.fixture
def small_disk(bench):  # noqa: F811
    """Give the workspaces a disk of their own, a small one."""
    work = bench.settings.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(work)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes rights that are not here")
    yield bench
    subprocess.run(["umount", "-l", str(work)], check=True)


def test_a_job_waits_for_space_uncounted_and_goes_on_by_itself(small_disk):
    bench = small_disk  # noqa: F811
    job_id = bench.new_job()
    ballast = bench.settings.work / "ballast"
    with ballast.open("wb") as handle, pytest.raises(OSError, match="No space left"):
        handle.write(b"x" * (1 << 20))
    for attempt in range(1, 5):  # more often than an error may come
        stage.run(bench.runtime(), job_id, "cpu")
        with bench.db.writing() as session:
            job = session.get_one(Job, job_id)
            assert (job.state, job.waits_for, job.error_attempts) == ("queued", "disk", 0), f"{attempt}: {job.error}"
            assert not session.scalars(select(Asset).where(Asset.job_id == job_id)).all()
            session.execute(update(Job).where(Job.id == job_id).values(not_before=now(session) - timedelta(seconds=1)))
    ballast.unlink()
    stage.run(bench.runtime(), job_id, "cpu")
    bench.recover(job_id)
    bench.check(job_id, "after there was space again")
    with bench.db.reading() as session:
        assert session.get_one(Job, job_id).waits_for is None
        assert {row.name for row in session.scalars(select(Asset).where(Asset.job_id == job_id))} == RESULTS


def test_a_job_that_fills_every_disk_does_not_wait_for_ever(bench):  # noqa: F811
    job_id, full = bench.new_job(), CapacityError("capacity.disk", "Disk full", "compress found no space left on the disk").to_dict()
    states = []
    for _ in range(DISK_ATTEMPTS + 3):
        with bench.db.writing() as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=None))
            claim = leases.claim(session, bench.settings, job_id, "cpu", Holder("here", 1, "then"))
            states.append(leases.end_attempt(session, bench.settings, claim, full))
            if states[-1] == "failed":
                break
    assert states == ["queued"] * (len(states) - 1) + ["failed"]
    assert len(states) > bench.settings.max_error_attempts
    with bench.db.reading() as session:
        assert session.get_one(Job, job_id).error["code"] == "capacity.disk"
