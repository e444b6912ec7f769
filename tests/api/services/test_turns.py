"""Whose turn it is, how long ended jobs are kept, and what keeps a job waiting."""

from datetime import timedelta

from sqlalchemy import update

from api.db import Database, now
from api.models import Job
from api.services import events, jobs, leases, standing
from api.services.jobs import Again, Asked
from api.services.leases import Holder
from engine.options import preset
from tests.api.services.test_leases import make_job
from worker.dispatcher import due

HERE = Holder("here", 1, "s")


def make(db: Database, settings, **asked) -> str:
    """Make a job over the capture of another."""
    with db.writing() as session:
        capture_id = session.get_one(Job, make.first).capture_id
        return jobs.create(session, settings, capture_id, preset("draft"), Asked(**asked)).id


def take(db: Database, settings, rung: str) -> str | None:
    with db.writing() as session:
        taken = leases.claim_next(session, settings, rung, "cpu", HERE)
        return taken.job_id if taken is not None else None


def row(db: Database, job_id: str) -> Job:
    with db.reading() as session:
        return session.get_one(Job, job_id)


def test_the_more_urgent_job_goes_first_and_among_equals_the_older(db, installation):
    settings = installation.settings
    make.first = plain = make_job(db, settings)
    low, urgent, plain_too, urgent_too = (make(db, settings, priority=each) for each in (-10, 10, 0, 10))
    order = [urgent, urgent_too, plain, plain_too, low]
    with db.reading() as session:
        assert [standing.queue_position(session, jobs.get(session, each)) for each in order] == [1, 2, 3, 4, 5]
        assert [job_id for job_id, _queue in due(session, settings)] == order
    assert [take(db, settings, low) for _ in range(6)] == [*order, None]


def test_a_job_that_may_not_start_yet_or_waits_elsewhere_is_passed_over(db, installation):
    settings = installation.settings
    make.first = plain = make_job(db, settings)
    paused, elsewhere, gone = (make(db, settings, priority=5) for _ in range(3))
    with db.writing() as session:
        session.execute(update(Job).where(Job.id == paused).values(not_before=now(session) + timedelta(hours=1)))
        session.execute(update(Job).where(Job.id == elsewhere).values(queue="gpu"))
        session.execute(update(Job).where(Job.id == gone).values(deleted_at=now(session)))
    assert take(db, settings, paused) == plain
    assert take(db, settings, paused) is None


def test_an_ended_job_is_deleted_when_its_time_is_over_and_the_time_counts_from_its_end(db, installation):
    settings = installation.settings
    make.first = forever = make_job(db, settings)
    kept = make(db, settings, ttl_hours=2)
    asked_at = row(db, kept).created_at
    assert row(db, kept).expires_at == asked_at + timedelta(hours=2)
    assert row(db, forever).expires_at is None
    with db.writing() as session:
        session.execute(
            update(Job).where(Job.id == kept).values(created_at=asked_at - timedelta(hours=5), expires_at=asked_at - timedelta(hours=3))
        )
        assert jobs.expire_kept(session) == []  # it has not ended
        for job_id in (kept, forever):
            jobs.request_cancel(session, job_id)
        assert jobs.expire_kept(session) == []
    ended = row(db, kept)
    assert ended.expires_at == ended.finished_at + timedelta(hours=2)
    with db.writing() as session:
        session.execute(update(Job).where(Job.id == kept).values(expires_at=now(session) - timedelta(seconds=1)))
        assert jobs.expire_kept(session) == [kept]
        assert jobs.expire_kept(session) == []
    assert row(db, kept).deleted_at is not None
    assert row(db, forever).deleted_at is None


def test_a_retry_is_as_urgent_and_kept_as_long_as_the_job_before(db, installation):
    settings = installation.settings
    make.first = make_job(db, settings)
    first = make(db, settings, priority=4, ttl_hours=3)
    with db.writing() as session:
        jobs.request_cancel(session, first)
        again = jobs.retry(session, settings, first, Again())
        assert again.priority == 4
        assert again.expires_at - again.created_at == timedelta(hours=3)


def test_the_setting_keeps_jobs_for_as_long_as_it_says_unless_asked_otherwise(db, installation):
    settings = installation.settings.model_copy(update={"job_ttl_hours": 24.0})
    make.first = make_job(db, settings)
    assert row(db, make.first).expires_at - row(db, make.first).created_at == timedelta(hours=24)
    other = row(db, make(db, settings, ttl_hours=0.5))
    assert other.expires_at - other.created_at == timedelta(minutes=30)


def test_a_job_that_waits_for_disk_says_so_once_and_is_rung_for_again(db, installation):
    settings = installation.settings
    make.first = job_id = make_job(db, settings)
    for _ in range(2):
        with db.writing() as session:
            jobs.wait_for_disk(session, settings, job_id)
    waiting = row(db, job_id)
    assert (waiting.state, waiting.waits_for, waiting.dispatched_at) == ("queued", "disk", None)
    with db.writing() as session:
        assert [event.type for event in events.after(session, job_id, 0)] == ["state", "waiting"]
        session.execute(update(Job).where(Job.id == job_id).values(not_before=now(session)))
    assert take(db, settings, job_id) == job_id
    assert row(db, job_id).waits_for is None


def test_a_job_at_work_is_not_made_to_wait(db, installation):
    settings = installation.settings
    make.first = job_id = make_job(db, settings)
    assert take(db, settings, job_id) == job_id
    with db.writing() as session:
        jobs.wait_for_disk(session, settings, job_id)
    assert row(db, job_id).waits_for is None
