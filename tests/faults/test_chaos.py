"""A small chaos run on each stack, and that the harness sees what it should: a check that finds nothing in wreckage is worth nothing."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from api.models import Asset, Job, JobEvent
from tests.faults.chaos.checks import KEYS, check
from tests.faults.chaos.ledger import Ledger
from tests.faults.chaos.run import Plan, run
from tests.faults.test_naughty import bench  # noqa: F401 (a fixture)
from tests.services import Installation
from worker import stage

SEED = 5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["embedded", "production"])
def test_a_dozen_jobs_survive_every_fault_on_each_stack(name, tmp_path):
    result = run(Plan(12, SEED, name, minutes=0.4, gap_s=1.2, every_s=0.4), tmp_path / "plant")
    told = json.dumps(result, indent=1)
    assert {key: result[key] for key in KEYS} == dict.fromkeys(KEYS, 0), told
    assert result["is_clean"], told
    assert result["jobs"]["accepted"] >= 6, told  # twelve where the machine is quick enough
    assert result["n_faults"] >= 5, told
    assert result["jobs"].get("succeeded", 0) > 0, told


def shift(db, job_id: str, wreck: str) -> None:
    """Break a promise by hand."""
    with db.writing() as session:
        job = session.get_one(Job, job_id)
        if wreck == "stuck":
            job.state = "running"
        elif wreck == "doubled":
            session.add(JobEvent(job_id=job_id, seq=job.event_seq + 1, at=job.finished_at, type="state", data={"state": "succeeded"}))
            job.event_seq += 1
        elif wreck == "half_published":
            session.execute(delete(Asset).where(Asset.job_id == job_id, Asset.name == "scene.ply"))
        elif wreck == "out_of_order":
            session.execute(
                update(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq == 2).values(at=job.created_at - timedelta(hours=1))
            )


@pytest.mark.parametrize("wreck", KEYS)
def test_the_checks_see_each_kind_of_wreck(bench, wreck):  # noqa: F811
    job_id, ledger = bench.new_job(), Ledger()
    stage.run(bench.runtime(), job_id, "cpu")
    ledger.accept(job_id, "by hand")
    with Installation(None, bench.settings).api() as client:
        before, _scene = check(bench.db, bench.storage, ledger, client)
        assert {key: told for key, told in before.by_key.items() if told} == {}
        if wreck == "lost":
            ledger.accept("00000000-0000-7000-8000-000000000000", "never written")
        else:
            shift(bench.db, job_id, wreck)
        after, _scene = check(bench.db, bench.storage, ledger, client)
    assert after.by_key[wreck]
