"""Random walks over the moves of jobs: whatever holders, people and clocks do, the invariants hold."""

import random
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select, update

from api.db import now
from api.errors import Conflict
from api.models import Job
from api.services import events, headway, jobs, leases, routing, system
from api.services.leases import Claim, Finished, Holder, LeaseLostError
from engine.errors import CapacityError
from tests.api.services.test_leases import make_job, row

STEPS = 80
ERROR = CapacityError("capacity.memory", "t", "d").to_dict()


class Walk:
    """A job, everybody who ever claimed it, and what they may try."""

    def __init__(self, db, settings, seed: int) -> None:
        self.db, self.settings, self.random = db, settings, random.Random(seed)
        self.job_id = make_job(db, settings)
        self.claims: list[Claim] = []
        self.n_refused = 0
        # Every third walk is unlucky: its stages break more often than they end.
        self.weights = [6, 6, 2, 3, 1, 1, 6, 1, 2, 0.1, 1] if seed % 3 == 2 else [6, 6, 2, 3, 6, 6, 1, 1, 2, 0.15, 1]
        self.moves = [
            self.claim,
            self.claim,
            self.beat,
            self.report,
            self.finish,
            self.finish,
            self.fail,
            self.release,
            self.lapse,
            self.cancel,
            self.turn,
        ]

    def step(self) -> None:
        """Do one random thing; being refused is an answer too."""
        move = self.random.choices(self.moves, self.weights)[0]
        try:
            with self.db.writing() as session:
                move(session)
        except (LeaseLostError, Conflict):
            self.n_refused += 1

    def any_claim(self) -> Claim | None:
        """Mostly the newest claim, sometimes a stale one."""
        if not self.claims:
            return None
        return self.claims[-1] if self.random.random() < 0.7 else self.random.choice(self.claims)

    def claim(self, session) -> None:
        session.execute(update(Job).where(Job.id == self.job_id).values(not_before=None))
        waits_in = session.scalars(select(Job.queue).where(Job.id == self.job_id)).one()
        queue = waits_in if self.random.random() < 0.8 else self.random.choice(["cpu", "gpu"])  # sometimes an old bell
        taken = leases.claim(session, self.settings, self.job_id, queue, Holder("h", self.random.randrange(3), "s"))
        if taken is not None:
            self.claims.append(taken)

    def beat(self, session) -> None:
        if held := self.any_claim():
            leases.beat(session, self.settings, held)

    def report(self, session) -> None:
        if held := self.any_claim():
            leases.report(session, self.settings, held, "progress", {"fraction": self.random.random()})

    def finish(self, session) -> None:
        if held := self.any_claim():
            following = leases.finish_stage(session, self.settings, held, Finished(1.0, is_skipped=False, stats={}), {})
            if following is not None:
                self.claims.append(following)

    def fail(self, session) -> None:
        if held := self.any_claim():
            leases.end_attempt(session, self.settings, held, ERROR)

    def release(self, session) -> None:
        if held := self.any_claim():
            leases.release(session, held)

    def lapse(self, session) -> None:
        session.execute(update(Job).where(Job.lease_until.is_not(None)).values(lease_until=now(session) - timedelta(seconds=1)))
        leases.expire(session, self.settings)

    def turn(self, session) -> None:
        if self.random.random() < 0.5:
            system.see_process(session, f"gpu worker of {self.job_id}"[:36], system.Alive("worker", "h", 1, "gpu", "cuda"))
        else:
            system.forget_process(session, f"gpu worker of {self.job_id}"[:36])
        routing.redirect(session, self.settings)

    def cancel(self, session) -> None:
        jobs.request_cancel(session, self.job_id)


def in_vain(db, job_id: str) -> int:
    with db.reading() as session:
        return headway.lost_in_vain(session, job_id)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_invariants_of_a_job_hold(db, installation, seed):
    walk = Walk(db, installation.settings, seed)
    before = row(db, walk.job_id)
    for _ in range(STEPS):
        walk.step()
        after = row(db, walk.job_id)
        assert after.fence >= before.fence
        assert after.event_seq >= before.event_seq
        if before.state in jobs.TERMINAL:
            assert after == before or (after.state, after.finished_at, after.event_seq) == (
                before.state,
                before.finished_at,
                before.event_seq,
            )
        assert (after.lease_until is None) == (after.state not in leases.HELD)
        assert after.error_attempts <= installation.settings.max_error_attempts
        assert in_vain(db, walk.job_id) < installation.settings.max_lost_leases
        before = after
    with db.reading() as session:
        found = events.after(session, walk.job_id, 0, 10_000)
    assert [event.seq for event in found] == list(range(1, before.event_seq + 1))
    states = [event.data["state"] for event in found if event.type == "state"]
    assert states[0] == "queued"
    assert all(to in jobs.TRANSITIONS[state] for state, to in pairwise(states))
    assert states[-1] == before.state


def test_the_walks_reach_every_end_and_are_refused_on_the_way(db, installation):
    walks = [Walk(db, installation.settings, seed) for seed in range(6)]
    for walk in walks:
        for _ in range(STEPS):
            walk.step()
    assert {row(db, walk.job_id).state for walk in walks} >= {"succeeded", "failed"}
    assert sum(walk.n_refused for walk in walks) > 50
