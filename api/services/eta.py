"""When a job will probably be done, from what stages like its own took here before; nothing is said without such a history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, JobStage, StageCache
from api.queue import CPU_QUEUE, GPU_QUEUE
from api.services import routing, standing, system, timings
from api.services.timings import Spread
from engine.options import RunOptions, from_dict

MOST_AHEAD = 50  # jobs; for one further back nothing is said
OVER = ("done", "skipped")
STEPS_S = ((60.0, 5.0), (600.0, 15.0), (3600.0, 60.0), (float("inf"), 300.0))  # up to, rounded to


@dataclass(frozen=True)
class Eta:
    """Seconds to the end that half and nine tenths of jobs like this one stay below; ``basis``: history, progress or queue."""

    p50_s: float
    p90_s: float
    basis: str

    def plus(self, other: "Eta", share: float = 1.0) -> "Eta":
        """Return this and a share of another's seconds together, on this one's basis."""
        return Eta(self.p50_s + share * other.p50_s, self.p90_s + share * other.p90_s, self.basis)

    def rounded(self) -> "Eta":
        """Return what may be shown: no more digits than are known, and the same for some seconds, so that answers can be compared."""
        p50_s = coarse(self.p50_s)
        return Eta(p50_s, max(p50_s, coarse(self.p90_s)), self.basis)


NOTHING = Eta(0.0, 0.0, "history")


@dataclass
class Forecast:
    """What is asked of the tables once for all jobs of an answer."""

    session: Session

    @cached_property
    def _moment(self) -> datetime:
        return now(self.session)

    @cached_property
    def _workers(self) -> dict[str, int]:
        rows = [row for row in system.processes(self.session) if row.kind == "worker"]
        return {queue: sum(routing.listens(row, queue) for row in rows) for queue in (CPU_QUEUE, GPU_QUEUE)}

    def of(self, job: Job, stages: Sequence[JobStage]) -> Eta | None:
        """Return when a job will be done; None for one that has ended or is being stopped, and while there is too little history."""
        if job.state not in ("queued", "running"):
            return None
        own = self.remaining(job, stages)
        if own is None or job.state == "running":
            return own.rounded() if own is not None else None
        before = self.ahead(job)
        return own.plus(before, 1.0 / self._workers[job.queue]).rounded() if before is not None else None

    def ahead(self, job: Job) -> Eta | None:
        """Return what the jobs before this one in its queue still take together; None where no worker takes any."""
        if not self._workers.get(job.queue):
            return None
        at_work = and_(Job.state == "running", Job.queue == job.queue)
        query = select(Job).where(or_(at_work, standing.is_before(job)), Job.id != job.id).limit(MOST_AHEAD + 1)
        others = list(self.session.scalars(query))
        if len(others) > MOST_AHEAD:
            return None
        stages = standing.stages_of(self.session, [each.id for each in others])
        total = Eta(0.0, 0.0, "queue")
        for each in others:
            left = self.remaining(each, stages[each.id])
            if left is None:
                return None
            total = total.plus(left)
        return total

    def remaining(self, job: Job, stages: Sequence[JobStage]) -> Eta | None:
        """Return the seconds of work that are left of a job, waiting not counted."""
        options = from_dict(job.options)
        total = Eta(0.0, 0.0, "progress" if job.state == "running" else "queue")
        for stage in stages:
            left = NOTHING if stage.state in OVER else self.stage_left(job, stage, options)
            if left is None:
                return None
            total = total.plus(left)
        return total

    def stage_left(self, job: Job, stage: JobStage, options: RunOptions) -> Eta | None:
        """Return the seconds that are left of one stage."""
        if stage.state != "running" and self.is_kept(job, stage):
            return NOTHING
        queue = GPU_QUEUE if stage.name in routing.GPU_STAGES and self._workers[GPU_QUEUE] else CPU_QUEUE
        work = timings.work_of(stage.name, options, job.n_photos)
        found = timings.spread(self.session, stage.name, queue, timings.Like(job.preset, work))
        if found is None or stage.state != "running" or stage.started_at is None:
            return Eta(found.p50_s, found.p90_s, "history") if found is not None else None
        # An attempt that went on from a checkpoint did not do all of its progress itself.
        elapsed_s = (self._moment - stage.started_at).total_seconds() if stage.attempt == 1 else 0.0
        return blended(found, elapsed_s, stage.progress)

    def is_kept(self, job: Job, stage: JobStage) -> bool:
        """Tell whether a stage need not run because its result is kept."""
        if stage.cache_key is None or standing.is_forced(job, stage.name):
            return False
        return self.session.scalars(select(StageCache.key).where(StageCache.key == stage.cache_key)).one_or_none() is not None


def blended(usual: Spread, elapsed_s: float, progress: float) -> Eta:
    """Return what is left of a running stage: by what is usual at its beginning, by its own progress from the middle on."""
    trust = min(1.0, 2.0 * progress) if elapsed_s > 0 else 0.0
    if trust == 0.0:
        return Eta((1.0 - progress) * usual.p50_s, (1.0 - progress) * usual.p90_s, "progress")
    widening = usual.p90_s / usual.p50_s if usual.p50_s > 0 else 1.0
    by_progress = elapsed_s * (1.0 - progress) / progress
    by_usual = [max(0.0, usual_s - elapsed_s) for usual_s in (usual.p50_s, usual.p90_s)]
    low = trust * by_progress + (1.0 - trust) * by_usual[0]
    return Eta(low, max(low, trust * by_progress * widening + (1.0 - trust) * by_usual[1]), "progress")


def coarse(seconds: float) -> float:
    """Return seconds rounded the more the longer they are."""
    step = next(step for limit, step in STEPS_S if seconds < limit)
    return step * max(1, round(seconds / step))
