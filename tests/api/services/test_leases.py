"""Claims, fences and counters on real rows: what a holder may write, and what becomes of its job when it may not."""

from datetime import timedelta
from itertools import product

import pytest
from sqlalchemy import select, update

from api.db import Database, now
from api.models import Asset, Job, JobEvent
from api.services import assets, captures, events, jobs, leases, photos, standing
from api.services.assets import Stored
from api.services.headway import lost_in_vain
from api.services.inspect import PhotoInfo
from api.services.leases import Claim, Finished, Holder, LeaseLostError
from api.services.photos import Examined, Received
from engine.errors import CapacityError, InputError
from engine.options import STAGES, preset

HERE = Holder("here", 1, "s")
DONE = Finished(1.0, is_skipped=False, stats={"n": 1})


@pytest.fixture
def job_id(db: Database, installation) -> str:
    return make_job(db, installation.settings)


def make_job(db: Database, settings) -> str:
    with db.writing() as session:
        capture = captures.create(session, "x")
        files = [Received(f"{n}.jpg", settings.incoming / "none", 10, f"{n:064x}") for n in range(3)]
        photos.add(session, settings, capture, [Examined(file, file.name, PhotoInfo("jpeg", 400, 300), None) for file in files])
        return jobs.create(session, settings, capture.id, preset("draft")).id


def claim(db: Database, settings, job_id: str, queue: str = "cpu", holder: Holder = HERE) -> Claim | None:
    with db.writing() as session:
        return leases.claim(session, settings, job_id, queue, holder)


def row(db: Database, job_id: str) -> Job:
    with db.reading() as session:
        return session.get_one(Job, job_id)


def lapse(db: Database, job_id: str) -> None:
    """Make the lease a second old."""
    with db.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=now(session) - timedelta(seconds=1)))


def expire(db: Database, settings) -> list[str]:
    with db.writing() as session:
        return leases.expire(session, settings)


def test_only_one_claim_succeeds_and_each_raises_the_fence(db, installation, job_id):
    first = claim(db, installation.settings, job_id)
    assert first is not None
    assert claim(db, installation.settings, job_id) is None
    with db.writing() as session:
        leases.release(session, first)
    second = claim(db, installation.settings, job_id)
    assert second is not None
    assert second.fence == first.fence + 1


def test_a_claim_by_the_wrong_queue_or_of_nothing_does_nothing(db, installation, job_id):
    assert claim(db, installation.settings, job_id, "gpu") is None
    assert claim(db, installation.settings, "01890000-0000-7000-8000-000000000000") is None
    assert row(db, job_id).state == "queued"


def test_every_write_of_a_holder_that_lost_its_lease_is_refused(db, installation, job_id):
    settings = installation.settings
    stale = claim(db, settings, job_id)
    lapse(db, job_id)
    assert expire(db, settings) == [job_id]
    holder = claim(db, settings, job_id)
    before = row(db, job_id)
    error = CapacityError("capacity.memory", "Out of memory", "x").to_dict()

    def publish(session):
        assets.record(session, job_id, [Stored("scene.ply", "k", "0" * 64, 1)])
        leases.finish_stage(session, settings, stale, DONE)

    writes = [
        lambda session: leases.beat(session, settings, stale),
        lambda session: leases.report(session, settings, stale, "progress", {"fraction": 0.9}),
        lambda session: leases.finish_stage(session, settings, stale, DONE),
        lambda session: leases.end_attempt(session, settings, stale, error),
        lambda session: leases.end_cancelled(session, stale),
        lambda session: leases.release(session, stale),
        publish,
    ]
    for write in writes:
        with pytest.raises(LeaseLostError), db.writing() as session:
            write(session)
    after = row(db, job_id)
    assert (after.state, after.fence, after.event_seq, after.stage) == ("running", holder.fence, before.event_seq, "ingest")
    with db.reading() as session:
        assert session.scalars(select(Asset)).all() == []
        assert [stage.state for stage in standing.stages_of(session, [job_id])[job_id]] == ["running", "pending", "pending", "pending"]


def test_a_cancelled_job_can_no_longer_succeed(db, installation, job_id):
    settings = installation.settings
    held = claim(db, settings, job_id)
    with db.writing() as session:
        assert jobs.request_cancel(session, job_id).state == "cancelling"
    with db.writing() as session:
        assert leases.beat(session, settings, held) == "cancelling"
    with pytest.raises(LeaseLostError), db.writing() as session:
        leases.finish_stage(session, settings, held, DONE)
    with db.writing() as session:
        leases.end_cancelled(session, held)
    assert row(db, job_id).state == "cancelled"


def test_stages_follow_each_other_and_the_last_makes_the_job_succeed(db, installation, job_id):
    held = claim(db, installation.settings, job_id)
    for stage in STAGES:
        assert held.stage == stage
        with db.writing() as session:
            following = leases.finish_stage(session, installation.settings, held, DONE, {"photos": 3} if stage == "compress" else None)
        held = following or held
    assert following is None
    ended = row(db, job_id)
    assert (ended.state, ended.result, ended.lease_until, ended.holder_pid) == ("succeeded", {"photos": 3}, None, None)
    with db.reading() as session:
        found = events.after(session, job_id, 0)
    assert [event.seq for event in found] == list(range(1, ended.event_seq + 1))


def test_an_input_error_fails_at_once_and_a_capacity_error_after_three_attempts_with_growing_pauses(db, installation, job_id):
    settings = installation.settings.model_copy(update={"retry_backoff_s": 20.0})  # longer than a slow machine takes for the next line
    other = make_job(db, settings)
    with db.writing() as session:
        held = leases.claim(session, settings, other, "cpu", HERE)
        assert leases.end_attempt(session, settings, held, InputError("input.x", "t", "d").to_dict()) == "failed"
    error = CapacityError("capacity.memory", "t", "d").to_dict()
    pauses = []
    for attempt in (1, 2, 3):
        held = claim(db, settings, job_id)
        with db.writing() as session:
            state = leases.end_attempt(session, settings, held, error)
        job = row(db, job_id)
        assert job.error_attempts == attempt
        if state == "queued":
            assert claim(db, settings, job_id) is None, "not before its pause is over"
            with db.writing() as session:
                pauses.append((job.not_before - now(session)).total_seconds())
                session.execute(update(Job).values(not_before=None))
    assert state == "failed"
    assert row(db, job_id).error["attempt"] == 3
    assert pauses[0] < pauses[1] <= settings.retry_backoff_s * 2


def test_the_fifth_lost_worker_fails_a_job_and_says_so(db, installation, job_id):
    for lost in range(1, 6):
        assert claim(db, installation.settings, job_id) is not None
        lapse(db, job_id)
        assert expire(db, installation.settings) == [job_id]
        assert row(db, job_id).lost_leases == lost
    job = row(db, job_id)
    assert (job.state, job.error["code"]) == ("failed", "internal.worker_lost")


def test_workers_lost_after_something_was_kept_are_not_lost_in_vain(db, installation, job_id):
    settings = installation.settings
    for lost in range(1, 10):
        held = claim(db, settings, job_id)
        with db.writing() as session:
            leases.report(session, settings, held, "checkpoint", {"step": lost})
        lapse(db, job_id)
        assert expire(db, settings) == [job_id]
        assert (row(db, job_id).state, row(db, job_id).lost_leases) == ("queued", lost)
    with db.writing() as session:
        assert lost_in_vain(session, job_id) == 1
    held = claim(db, settings, job_id)
    with db.writing() as session:
        leases.finish_stage(session, settings, held, Finished(1.0, False, {}))
    for lost in range(10, 15):
        lapse(db, job_id)
        expire(db, settings)
        assert row(db, job_id).lost_leases == lost
        claim(db, settings, job_id)
    assert row(db, job_id).state == "failed"
    assert row(db, job_id).error["detail"].startswith("5 workers disappeared one after another")


def test_a_cancelling_job_whose_worker_is_lost_is_cancelled(db, installation, job_id):
    claim(db, installation.settings, job_id)
    with db.writing() as session:
        jobs.request_cancel(session, job_id)
    lapse(db, job_id)
    expire(db, installation.settings)
    assert row(db, job_id).state == "cancelled"


def test_jobs_of_dead_processes_of_this_machine_come_back_at_once(db, installation, job_id):
    settings = installation.settings
    other = make_job(db, settings)
    claim(db, settings, job_id, holder=Holder("here", 7, "dead"))
    claim(db, settings, other, holder=Holder("elsewhere", 7, "dead"))
    with db.writing() as session:
        assert leases.release_dead(session, settings, "here", lambda _pid, start: start != "dead") == [job_id]
    assert (row(db, job_id).state, row(db, other).state) == ("queued", "running")


def test_a_living_lease_is_not_expired(db, installation, job_id):
    claim(db, installation.settings, job_id)
    assert expire(db, installation.settings) == []


def test_progress_never_goes_back_within_an_attempt_and_begins_anew_with_the_next(db, installation, job_id):
    settings = installation.settings
    held = claim(db, settings, job_id)
    for fraction in (0.5, 0.2, 7.0):
        with db.writing() as session:
            leases.report(session, settings, held, "progress", {"fraction": fraction, "message": "m\0", "data": {"step": 1}})
    with db.reading() as session:
        shown = [event.data["fraction"] for event in events.after(session, job_id, 0) if event.type == "progress"]
        assert shown == [0.5, 1.0], "an event at each whole per cent, once"
    with db.writing() as session:
        leases.release(session, held)
    claim(db, settings, job_id)
    with db.reading() as session:
        begun = standing.stages_of(session, [job_id])[job_id][0]
        assert (begun.progress, begun.message, begun.data) == (0.0, "", None)


def test_only_moves_in_the_table_are_made_and_each_is_an_event(db, job_id):
    n_moves = 0
    for state, to in product(jobs.TRANSITIONS, jobs.TRANSITIONS):
        is_allowed = to in jobs.TRANSITIONS[state]
        with db.writing() as session:
            session.execute(update(Job).values(state=state))
        with db.writing() as session:
            assert jobs.move(session, job_id, to, said={}) == is_allowed, (state, to)
        assert row(db, job_id).state == (to if is_allowed else state)
        n_moves += is_allowed
    with db.reading() as session:
        assert len(session.scalars(select(JobEvent)).all()) == 1 + n_moves
