"""When a job will probably be done, from what stages like its own took here before; nothing is said without such a history."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, JobStage, StageCache
from api.queue import CPU_QUEUE, GPU_QUEUE
from api.services import routing, standing, system, timings
from api.services.timings import Like, Spread
from engine.options import RunOptions, from_dict
from engine.workspace import ARTEFACTS

MOST_AHEAD = 30  # jobs; for one further back nothing is said
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
    _lines: dict[str, dict[str, Eta]] = field(default_factory=dict)
    _remaining: dict[str, Eta | None] = field(default_factory=dict)
    _kept: dict[str, bool] = field(default_factory=dict)
    _options: dict[str, RunOptions] = field(default_factory=dict)
    _usual: dict[tuple[str, str, Like], Spread | None] = field(default_factory=dict)

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
        before = self.line(job.queue).get(job.id)
        return own.plus(before, 1.0 / self._workers[job.queue]).rounded() if before is not None else None

    def line(self, queue: str) -> dict[str, Eta]:
        """Return for the next jobs of a queue what those before them still take together; none where no worker takes any."""
        if queue not in self._lines:
            self._lines[queue] = self._stand_in_line(queue) if self._workers.get(queue) else {}
        return self._lines[queue]

    def _stand_in_line(self, queue: str) -> dict[str, Eta]:
        ours = Job.queue == queue, Job.deleted_at.is_(None)
        at_work = self.session.scalars(select(Job).where(Job.state == "running", *ours).limit(MOST_AHEAD)).all()
        waiting = select(Job).where(Job.state == "queued", *ours).order_by(*standing.in_turn()).limit(MOST_AHEAD)
        jobs = [*at_work, *self.session.scalars(waiting)]
        stages = standing.stages_of(self.session, [each.id for each in jobs])
        self._look_for([stage for each in jobs for stage in stages[each.id]])
        found, total = {}, Eta(0.0, 0.0, "queue")
        for each in jobs:
            found[each.id] = total
            left = self.remaining(each, stages[each.id])
            if left is None:
                break
            total = total.plus(left)
        return found

    def remaining(self, job: Job, stages: Sequence[JobStage]) -> Eta | None:
        """Return the seconds of work that are left of a job, waiting not counted."""
        if job.id not in self._remaining:
            self._remaining[job.id] = self._add_up(job, stages)
        return self._remaining[job.id]

    def _add_up(self, job: Job, stages: Sequence[JobStage]) -> Eta | None:
        written = json.dumps(job.options, sort_keys=True)
        options = self._options[written] = self._options.get(written) or from_dict(job.options)
        total = Eta(0.0, 0.0, "progress" if job.state == "running" else "queue")
        for stage in stages:
            left = NOTHING if stage.state in OVER else self.stage_left(job, stage, options)
            if left is None:
                return None
            total = total.plus(left)
        return total

    def stage_left(self, job: Job, stage: JobStage, options: RunOptions) -> Eta | None:
        """Return the seconds that are left of one stage."""
        queue = GPU_QUEUE if stage.name in routing.GPU_STAGES and self._workers[GPU_QUEUE] else CPU_QUEUE
        found = self.usual(stage.name, queue, Like(job.preset, timings.work_of(stage.name, options, job.n_photos)))
        if found is None:
            return None
        if stage.state != "running" or stage.started_at is None:
            return NOTHING if self.is_kept(job, stage) else Eta(found.p50_s, found.p90_s, "history")
        # An attempt that went on from a checkpoint did not do all of its progress itself.
        elapsed_s = (self._moment - stage.started_at).total_seconds() if stage.attempt == 1 else 0.0
        return blended(found, elapsed_s, stage.progress)

    def usual(self, stage: str, queue: str, like: Like) -> Spread | None:
        """Return what like stages took."""
        if (stage, queue, like) not in self._usual:
            self._usual[stage, queue, like] = timings.spread(self.session, stage, queue, like)
        return self._usual[stage, queue, like]

    def is_kept(self, job: Job, stage: JobStage) -> bool:
        """Tell whether a stage need not run because its result is kept."""
        if stage.cache_key is None or stage.name not in ARTEFACTS or standing.is_forced(job, stage.name):
            return False
        if stage.cache_key not in self._kept:
            self._look_for([stage])
        return self._kept[stage.cache_key]

    def _look_for(self, stages: list[JobStage]) -> None:
        keys = {stage.cache_key for stage in stages if stage.cache_key is not None and stage.name in ARTEFACTS}
        found = set(self.session.scalars(select(StageCache.key).where(StageCache.key.in_(keys))))
        self._kept |= {key: key in found for key in keys}


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
