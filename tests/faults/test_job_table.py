"""The job table under everything that may happen to it, in any order: claims, beats, reports, ends, losses, cancels, retries, deletes.

Hypothesis draws the orders. Holders are never told that they lost a job: they go on as zombies, and whatever they write must be refused.
"""

import itertools
import os
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from api.db import now, open_database
from api.errors import RequestError
from api.models import Asset, Capture, Job, JobEvent, JobStage, Photo
from api.services import assets, headway, jobs, leases
from api.services.jobs import TERMINAL, TRANSITIONS
from api.services.leases import Claim, Finished, Holder, LeaseLostError
from engine.errors import CapacityError, CaptureError, InternalError
from engine.options import STAGES, preset
from tests.services import installed

N_EXAMPLES = int(os.environ.get("SPLATWORKS_TEST_EXAMPLES", "6"))  # so that the suite stays quick; a hundred for an hour of doubt
EXAMPLES = settings(
    max_examples=N_EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)
ERRORS = {
    "mine": InternalError("internal.something", "Broken", "a stage broke"),
    "yours": CaptureError("capture.low_overlap", "Too little overlap", "the photos do not overlap"),
    "memory": CapacityError("capacity.killed", "Out of memory", "it was killed"),
}
RESULTS = ("scene.ply", "report.json")


class JobTable(RuleBasedStateMachine):
    """Holders, people and dispatchers over one table."""

    made, claims = Bundle("made"), Bundle("claims")
    db, settings = None, None

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Job] = {}
        self.closed: dict[str, set[str]] = {}
        self.n_holders = 0

    @contextmanager
    def fenced(self, claim: Claim, *states: str):
        """Do what a holder does; it must be refused, and change nothing, when the job is not its own in one of the states."""
        before = self.picture(claim.job_id)
        job = before[0]
        may = (job["fence"], job["stage"]) == (claim.fence, claim.stage) and job["state"] in states
        try:
            yield
        except LeaseLostError:
            assert not may, f"{claim} was refused its own job: {job}"
            assert self.picture(claim.job_id) == before
        else:
            assert may, f"{claim} wrote into a job that is not its own: {job}"

    def picture(self, job_id: str) -> tuple:
        """Return every row of a job."""
        with self.db.reading() as session:
            rows = [session.get_one(Job, job_id), *session.scalars(select(JobStage).where(JobStage.job_id == job_id))]
            rows += session.scalars(select(Asset).where(Asset.job_id == job_id).order_by(Asset.name))
            rows += session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq))
            return tuple({column.name: getattr(row, column.key) for column in row.__table__.columns} for row in rows)

    @initialize()
    def photos(self) -> None:
        with self.db.writing() as session:
            capture = Capture(name="", created_at=now(session))
            session.add(capture)
            session.flush()
            self.capture_id = capture.id
            for seq in (1, 2, 3):
                words = {"name": f"{seq}.jpg", "state": "accepted", "size_bytes": 1, "sha256": f"{seq}", "storage_key": f"{seq}"}
                session.add(Photo(capture_id=capture.id, seq=seq, created_at=now(session), **words))

    @rule(target=made)
    def start(self):
        with self.db.writing() as session:
            return jobs.create(session, self.settings, self.capture_id, preset("draft")).id

    @rule(target=claims, job_id=made, is_late=st.booleans())
    def claim(self, job_id, is_late):
        if is_late:
            with self.db.writing() as session:
                session.execute(update(Job).where(Job.id == job_id).values(not_before=None))
        with self.db.reading() as session:
            job = session.get_one(Job, job_id)
            may = job.state == "queued" and job.deleted_at is None and (job.not_before is None or job.not_before <= now(session))
        self.n_holders += 1
        with self.db.writing() as session:
            taken = leases.claim(session, self.settings, job_id, "cpu", Holder("here", self.n_holders, "then"))
        assert taken is not None or not may, f"{job_id} waits and was not given"
        assert taken is None or (job.state, job.deleted_at, job.fence) == ("queued", None, taken.fence - 1)
        return multiple() if taken is None else taken

    @rule(claim=claims)
    def beat(self, claim):
        with self.fenced(claim, "running", "cancelling"), self.db.writing() as session:
            leases.beat(session, self.settings, claim)

    @rule(claim=claims, fraction=st.floats(0, 1), kind=st.sampled_from(["progress", "warning", "checkpoint"]))
    def report(self, claim, fraction, kind):
        with self.fenced(claim, "running", "cancelling"), self.db.writing() as session:
            leases.report(
                session, self.settings, claim, kind, {"fraction": fraction, "message": "on it", "code": "input.blurred", "detail": ""}
            )

    @rule(target=claims, claim=claims, is_skipped=st.booleans())
    def finish(self, claim, is_skipped):
        following = None
        with self.fenced(claim, "running"), self.db.writing() as session:
            result = None
            if claim.stage == STAGES[-1]:
                result = {"gaussians": 1}
                files = [assets.Stored(name, f"jobs/{claim.job_id}/assets/{claim.fence}/{name}", "0", 1) for name in RESULTS]
                assets.record(session, claim.job_id, files)
            following = leases.finish_stage(session, self.settings, claim, Finished(1.0, is_skipped, {}), result)
        return multiple() if following is None else following

    @rule(claim=claims, kind=st.sampled_from(sorted(ERRORS)))
    def break_(self, claim, kind):
        with self.fenced(claim, "running", "cancelling"), self.db.writing() as session:
            leases.end_attempt(session, self.settings, claim, ERRORS[kind].to_dict())

    @rule(claim=claims)
    def stop(self, claim):
        with self.fenced(claim, "cancelling"), self.db.writing() as session:
            leases.end_cancelled(session, claim)

    @rule(claim=claims)
    def give_back(self, claim):
        with self.fenced(claim, "running", "cancelling"), self.db.writing() as session:
            leases.release(session, claim)

    @rule(job_id=made)
    def fall_silent(self, job_id):
        with self.db.writing() as session:
            past = now(session) - timedelta(seconds=1)
            session.execute(update(Job).where(Job.id == job_id, Job.lease_until.is_not(None)).values(lease_until=past))
        with self.db.writing() as session:
            leases.expire(session, self.settings)

    @precondition(lambda self: self.n_holders)
    @rule(data=st.data())
    def die(self, data):
        dead = data.draw(st.integers(1, self.n_holders))
        with self.db.writing() as session:
            leases.release_dead(session, self.settings, "here", lambda pid, _start: pid != dead)

    @rule(job_id=made)
    def cancel(self, job_id):
        with self.refusing(), self.db.writing() as session:
            jobs.request_cancel(session, job_id)

    @rule(job_id=made)
    def delete(self, job_id):
        with self.refusing(), self.db.writing() as session:
            jobs.delete(session, job_id)

    @rule(target=made, job_id=made, stage=st.sampled_from([None, *STAGES]))
    def retry(self, job_id, stage):
        with self.refusing(), self.db.writing() as session:
            return jobs.retry(session, self.settings, job_id, jobs.Again(stage)).id
        return multiple()

    @contextmanager
    def refusing(self):
        """People may be told no."""
        try:
            yield
        except RequestError as error:
            if error.status not in (409, 410):
                raise

    @invariant()
    def every_job_is_in_order(self):
        with self.db.reading() as session:
            rows = session.scalars(select(Job)).all()
            for job in rows:
                self.check_row(job)
                assert headway.lost_in_vain(session, job.id) < self.settings.max_lost_leases
                self.check_history(job, list(session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq))))
                self.check_stages(job, list(session.scalars(select(JobStage).where(JobStage.job_id == job.id).order_by(JobStage.ordinal))))
                self.check_assets(job, list(session.scalars(select(Asset).where(Asset.job_id == job.id))))
                self.seen[job.id] = job
            session.expunge_all()

    def check_row(self, job: Job) -> None:
        held = job.state in leases.HELD
        assert held == (job.holder_pid is not None) == (job.lease_until is not None), f"{job.id} is {job.state}"
        assert job.error_attempts <= self.settings.max_error_attempts
        assert (job.finished_at is not None) == (job.state in TERMINAL)
        before = self.seen.get(job.id)
        if before is None:
            return
        assert job.fence >= before.fence
        assert job.event_seq >= before.event_seq
        assert job.error_attempts >= before.error_attempts
        assert job.lost_leases >= before.lost_leases
        if before.state in TERMINAL:
            assert (job.state, job.event_seq, job.fence, job.finished_at) == (
                before.state,
                before.event_seq,
                before.fence,
                before.finished_at,
            )
        if before.deleted_at is not None:
            assert job.deleted_at == before.deleted_at

    def check_history(self, job: Job, events: list[JobEvent]) -> None:
        assert [event.seq for event in events] == list(range(1, job.event_seq + 1))
        states = [event.data["state"] for event in events if event.type == "state"]
        assert states[0] == "queued"
        assert states[-1] == job.state
        assert all(later in TRANSITIONS[earlier] for earlier, later in itertools.pairwise(states))
        assert states.count("running") == job.fence, "a fence for every claim"

    def check_stages(self, job: Job, stages: list[JobStage]) -> None:
        assert [stage.name for stage in stages] == list(STAGES)
        over = [stage.state in ("done", "skipped") for stage in stages]
        assert over == sorted(over, reverse=True), "a stage is done before the one ahead of it"
        assert sum(over) == len(STAGES) if job.state == "succeeded" else STAGES[sum(over)] == job.stage
        running = [stage.name for stage in stages if stage.state == "running"]
        assert running == ([job.stage] if job.state in leases.HELD else [])
        assert all(0 <= stage.progress <= 1 for stage in stages)
        closed = {stage.name for stage in stages if stage.state in ("done", "skipped")}
        assert closed >= self.closed.setdefault(job.id, set()), "a finished stage stays finished"
        self.closed[job.id] = closed

    def check_assets(self, job: Job, rows: list[Asset]) -> None:
        assert {row.name for row in rows} == (set(RESULTS) if job.state == "succeeded" else set())
        assert {row.storage_key.split("/")[3] for row in rows} <= {str(job.fence)}


@pytest.mark.timeout(600)
def test_no_order_of_claims_losses_cancels_and_retries_breaks_the_job_table(stack, tmp_path):
    with installed(stack, tmp_path / "data", broker_url="", retry_backoff_s=0.0) as installation:
        table = open_database(installation.settings)

        class Table(JobTable):
            db, settings = table, installation.settings

            def teardown(self) -> None:
                with self.db.writing() as session:
                    for each in (JobEvent, Asset, JobStage, Job, Photo, Capture):
                        session.query(each).delete()

        try:
            run_state_machine_as_test(Table, settings=EXAMPLES)
        finally:
            table.close()
