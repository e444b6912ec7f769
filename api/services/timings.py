"""How long stages took here: written where they ran, read for what others will take."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.db import now
from api.models import Job, JobStage, StageTiming
from engine.options import RunOptions, from_dict

MOST_STEPS = 3  # times the steps asked for, so that each photo is visited often enough (engine.train.budget)
LATEST = 30  # timings of a stage that are looked at
ENOUGH = 3  # like ones, before anything is said
ALIKE = 4.0  # work up to so many times more or less counts as like


@dataclass(frozen=True)
class Measured:
    """How a stage went: on what (queue and machine), how long, most memory, what the folder held at its end."""

    device: str
    seconds: float
    peak_memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Spread:
    """Seconds that half and nine tenths of like runs stayed below, the most memory and disk of them, and how many there were."""

    p50_s: float
    p90_s: float
    peak_memory_bytes: int
    disk_bytes: int
    count: int


def work_of(stage: str, options: RunOptions, n_photos: int) -> float:
    """Return how much a stage has to do, in its own unit, from what is known beforehand; a stage's time grows about as this does."""
    train = options.train
    if stage == "ingest":
        return float(n_photos)
    if stage == "poses":
        return n_photos * (options.ingest.max_side / 1000.0) ** 2
    if stage == "train":
        steps = max(train.steps, min(MOST_STEPS * train.steps, train.min_visits * n_photos))
        return steps * train.max_side**2 / 1e6
    return train.max_gaussians / 1e6


def record(session: Session, job: Job, stage: str, measured: Measured | None) -> None:
    """Write how long a stage took, in the transaction that closes it; one that may have gone on from a killed one says nothing."""
    if measured is None:
        return
    row = session.get(JobStage, (job.id, stage), populate_existing=True)
    if measured.seconds <= 0 or (row is not None and row.attempt > 1):
        return
    session.add(
        StageTiming(
            stage=stage,
            device=measured.device,
            preset=job.preset,
            n_photos=job.n_photos,
            work=work_of(stage, from_dict(job.options), job.n_photos),
            seconds=measured.seconds,
            peak_memory_bytes=measured.peak_memory_bytes,
            disk_bytes=measured.disk_bytes,
            created_at=now(session),
        )
    )


@dataclass(frozen=True)
class Like:
    """What a stage has to do: of which preset, how much (see ``work_of``)."""

    preset: str
    work: float


def spread(session: Session, stage: str, queue: str, like: Like) -> Spread | None:
    """Return what a stage of so much work will take on a queue's machines; None while too few like it have run on any one of them.

    Of the machine seen last, those of the same preset where there are enough: seconds are scaled by the work.
    """
    alike = StageTiming.work.between(like.work / ALIKE, like.work * ALIKE)
    query = select(StageTiming).where(StageTiming.stage == stage, StageTiming.device.startswith(f"{queue}:", autoescape=True), alike)
    by_device: dict[str, list[StageTiming]] = {}
    for row in session.scalars(query.order_by(StageTiming.created_at.desc()).limit(LATEST)):
        by_device.setdefault(row.device, []).append(row)
    for rows in by_device.values():
        same = [row for row in rows if row.preset == like.preset]
        chosen = same if len(same) >= ENOUGH else rows
        if len(chosen) >= ENOUGH:
            return spread_of(chosen, like.work)
    return None


def spread_of(rows: list[StageTiming], work: float) -> Spread:
    """Return what like runs took, scaled to so much work; memory as it was: its peaks hardly depend on how long a stage goes on."""
    seconds = sorted(row.seconds * work / row.work for row in rows)
    disk = max(row.disk_bytes * max(1.0, work / row.work) for row in rows)
    return Spread(quantile(seconds, 0.5), quantile(seconds, 0.9), max(row.peak_memory_bytes for row in rows), int(disk), len(rows))


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that a share of ordered ones stays below, between neighbours in proportion."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
