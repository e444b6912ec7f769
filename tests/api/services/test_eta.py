"""Forecasts: nothing without history, then what like stages took, then their own progress."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from api.db import Database, now
from api.models import Job, JobStage, StageTiming, new_id
from api.services import eta, jobs, leases, standing, system, timings
from api.services.eta import blended, coarse
from api.services.leases import Finished, Holder
from api.services.system import Alive
from api.services.timings import Like, Measured, Spread, quantile
from engine.options import STAGES, preset
from tests.api.services.test_leases import make_job

DRAFT = preset("draft")
SECONDS = {"ingest": 2.0, "poses": 20.0, "train": 200.0, "compress": 10.0}


def put(db: Database, stage: str, seconds: float, *, device: str = "cpu: box", work: float | None = None, named: str = "draft") -> None:
    with db.writing() as session:
        done = work or timings.work_of(stage, preset(named), 3)
        row = StageTiming(stage=stage, device=device, preset=named, n_photos=3, work=done, seconds=seconds)
        row.peak_memory_bytes, row.disk_bytes, row.created_at = 1000, 500, now(session)
        session.add(row)


def put_history(db: Database, count: int = 3) -> None:
    for stage in STAGES:
        for n in range(count):
            put(db, stage, SECONDS[stage] * (1 + n / 10))


def put_worker(db: Database, queues: str = "cpu") -> None:
    with db.writing() as session:
        system.see_process(session, new_id(), Alive("worker", "here", 1, queues))


def eta_of(db: Database, job_id: str):
    with db.reading() as session:
        return eta.Forecast(session).of(jobs.get(session, job_id), standing.stages_of(session, [job_id])[job_id])


def test_nothing_is_said_until_each_stage_was_timed_three_times_and_a_worker_is_there(db, installation):
    job_id = make_job(db, installation.settings)
    put_worker(db)
    put_history(db, 2)
    assert eta_of(db, job_id) is None
    for stage in STAGES:
        assert eta_of(db, job_id) is None
        put(db, stage, SECONDS[stage])
    found = eta_of(db, job_id)
    assert found.basis == "queue"
    assert 225 <= found.p50_s <= 260
    assert found.p50_s <= found.p90_s <= 280


def test_a_queue_without_workers_gets_no_forecast(db, installation):
    job_id = make_job(db, installation.settings)
    put_history(db)
    put_worker(db, "gpu")
    assert eta_of(db, job_id) is None


def test_jobs_ahead_are_waited_for_by_all_workers_together(db, installation):
    first, second, third = (make_job(db, installation.settings) for _ in range(3))
    put_history(db)
    put_worker(db)
    alone, after_one, after_two = (eta_of(db, each).p50_s for each in (first, second, third))
    assert after_one == pytest.approx(2 * alone, abs=30)
    assert after_two == pytest.approx(3 * alone, abs=45)
    put_worker(db)
    assert eta_of(db, third).p50_s == pytest.approx(2 * alone, abs=45)


def test_a_running_job_goes_by_its_own_progress_and_an_ended_one_has_none(db, installation):
    job_id = make_job(db, installation.settings)
    put_history(db)
    with db.writing() as session:
        taken = leases.claim(session, installation.settings, job_id, "cpu", Holder("h", 1, "s"))
        for _ in STAGES[:2]:
            taken = leases.finish_stage(session, installation.settings, taken, Finished(1.0, is_skipped=False, stats={}))
        begun = now(session) - timedelta(seconds=1000)
        session.execute(update(JobStage).where(JobStage.name == "train").values(progress=0.5, started_at=begun))
    found = eta_of(db, job_id)
    assert found.basis == "progress"
    assert found.p50_s == pytest.approx(1010, abs=60)
    with db.writing() as session:
        jobs.request_cancel(session, job_id)
    assert eta_of(db, job_id) is None


@pytest.mark.parametrize(
    ("elapsed_s", "progress", "expected_s"),
    [(0.0, 0.0, 100), (50, 0.5, 50), (25, 0.25, 75), (500, 0.5, 500), (99, 0.99, 1), (0.0, 0.4, 60)],
)
def test_what_is_left_follows_the_usual_first_and_progress_later(elapsed_s, progress, expected_s):
    found = blended(Spread(100, 150, 1, 1, 3), elapsed_s, progress)
    assert found.p50_s == pytest.approx(expected_s, rel=0.02)
    assert found.p90_s >= found.p50_s


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, 5), (1, 5), (12, 10), (100, 105), (3000, 3000), (5000, 5100)])
def test_no_more_digits_are_shown_than_are_known(seconds, shown):
    assert coarse(seconds) == shown


def test_timings_scale_with_the_work_and_only_like_ones_count(db):
    for seconds in (100, 110, 120):
        put(db, "train", seconds, work=10.0)
    for _ in range(3):
        put(db, "train", 5, work=1000.0)
        put(db, "train", 1, work=10.0, device="gpu: card")
    with db.reading() as session:
        assert timings.spread(session, "train", "cpu", Like("draft", 10.0)).p50_s == 110
        assert timings.spread(session, "train", "cpu", Like("draft", 20.0)).p50_s == 220
        assert timings.spread(session, "train", "gpu", Like("draft", 10.0)).p50_s == 1
        assert timings.spread(session, "train", "cpu", Like("draft", 80.0)) is None
        assert timings.spread(session, "poses", "cpu", Like("draft", 10.0)) is None


def test_machines_are_not_mixed_and_the_one_seen_last_counts(db):
    for _ in range(3):
        put(db, "ingest", 100, device="cpu: old")
    for _ in range(2):
        put(db, "ingest", 10, device="cpu: new")
    with db.reading() as session:
        assert timings.spread(session, "ingest", "cpu", Like("draft", 3.0)).p50_s == 100
    put(db, "ingest", 10, device="cpu: new")
    with db.reading() as session:
        assert timings.spread(session, "ingest", "cpu", Like("draft", 3.0)).p50_s == 10


def test_a_stage_that_may_have_gone_on_from_another_attempt_is_no_timing(db, installation):
    job_id = make_job(db, installation.settings)
    with db.writing() as session:
        job = session.get_one(Job, job_id)
        session.execute(update(JobStage).where(JobStage.job_id == job_id).values(attempt=1))
        resumed = (JobStage.job_id == job_id, JobStage.name.in_(("poses", "train")))
        session.execute(update(JobStage).where(*resumed).values(attempt=2))
        for stage in STAGES:
            timings.record(session, job, stage, Measured("cpu: box", 3.0, 1, 1))
    with db.reading() as session:
        kept = {stage for stage in STAGES if session.query(StageTiming).filter_by(stage=stage).count()}
    assert kept == {"ingest", "compress"}


def test_work_grows_with_photos_steps_and_pixels():
    assert timings.work_of("train", DRAFT, 10) == 3000 * 640**2 / 1e6
    assert timings.work_of("train", DRAFT, 150) == 6000 * 640**2 / 1e6
    assert timings.work_of("train", DRAFT, 5000) == 9000 * 640**2 / 1e6
    assert timings.work_of("poses", preset("high"), 10) > timings.work_of("poses", DRAFT, 10)


def test_quantiles_lie_between_neighbours():
    assert quantile([1.0], 0.9) == 1.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([0.0, 10.0], 0.9) == 9.0
