"""How long a run will take and how much memory: trial steps summed over the schedule, corrected by what is seen while it runs."""

import os
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.estimate.words import said
from engine.events import Progress
from engine.train import views
from engine.train.checkpoint import Checkpoint
from engine.train.schedule import Scale, StepPlan, growth_target, plan
from engine.train.trial import FLAGS, SH_REST, LevelCost, Seconds, Take, Trial, clocks, try_level
from engine.train.watch import Setup

TRUST = 0.05  # of the whole: what the forecast weighs against what was observed so far
LONG_RUN = 500  # steps; shorter ones are foreseen more coarsely
PNG_S_PER_PIXEL = 1.0e-7  # a photo and its render, to look at
PREVIEW_S = 0.05
CHECKPOINT_BYTES = 3 * 256 + 8  # a gaussian: row, two moments, counters
PLY_BYTES = 248  # a gaussian, at the most
TARGET_BYTES = 27  # a pixel, prepared for the loss (kernels/cpu/targets.h)
TARGET_CACHE_BYTES = 256 << 20  # kernels/cpu/targets.cpp
SLACK = 1.05  # memory that was freed but not given back
CLASSIC_GROWTH = 30  # of the first gaussians: what the classic strategy, which has no target, came to on photo sets without a ceiling
PROBE_BYTES = 16 << 20  # written to learn how fast the disk is


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take from the first step (or the resumed one) to its files, when nothing else runs beside."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    n_gaussians: int
    trial_seconds: float  # what it took to find out; not part of ``seconds``

    def words(self) -> str:
        """Return the estimate as a sentence."""
        return f"about {said(self.seconds)} and {self.peak_memory_bytes / 1e9:.1f} GB for {self.n_gaussians:,} gaussians"

    def beside(self, taken: Seconds) -> dict[str, Any]:
        """Return the stage's figures: what was foreseen and what it took, so that everybody can compare."""
        return {"estimate": asdict(self), "taken_seconds": round(float(taken[0]), 2), "taken_cpu_seconds": round(float(taken[1]), 2)}


@dataclass(frozen=True)
class Forecast:
    """The expected course: ``elapsed[s]`` are the seconds [2] from ``first_step`` until step ``first_step + s`` is done."""

    first_step: int
    elapsed: npt.NDArray[np.float64]  # [S + 1, 2]
    finish: Seconds
    estimate: Estimate

    def share(self, step: int, steps: int) -> float:
        """Return how much of the whole run's time is behind at a step, 0..1; steps before a resumed one count by number."""
        before = self.first_step / steps
        total = float(self.elapsed[-1, 0])
        return before + (1.0 - before) * (float(self.elapsed[step - self.first_step, 0]) / total if total > 0 else 1.0)

    def remaining_s(self, step: int, taken_s: float) -> float:
        """Return the wall seconds still to come when reaching ``step`` took ``taken_s``: the plan's, at the pace seen so far."""
        planned = float(self.elapsed[step - self.first_step, 0])
        whole = float(self.elapsed[-1, 0] + self.finish[0])
        weight = TRUST * whole
        pace = (taken_s + weight) / (planned + weight) if weight > 0 else 1.0
        return max(0.0, (whole - planned) * pace)


@dataclass(frozen=True)
class Schedule:
    """The schedule step by step: level [S], gaussians [S], flags ([S] each), and for each level a few counts with a typical plan."""

    levels: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    flags: dict[str, npt.NDArray[np.bool_]]
    typical: dict[int, dict[int, StepPlan]]


def foresee(setup: Setup, saved: Checkpoint, take: Take) -> Forecast:
    """Return what the rest of a run will take, by trial steps on copies of its state; neither it nor its random numbers change."""
    began = clocks()
    state, course = saved.state, course_of(setup, saved)
    trial = trial_of(setup, len(course.levels), take)
    costs = {}
    for level, plans in course.typical.items():
        occurring = [name for name in FLAGS if course.flags[name][course.levels == level].any()]
        costs[level] = try_level(state, trial, plans, occurring)
    steps = step_seconds(setup, course, costs)
    n_end = int(course.counts[-1]) if len(course.counts) else len(state.rows)
    disk = disk_bytes_per_s(setup.folder)
    steps *= 1.0 + clock_share(setup, course.counts, disk)[:, None]
    elapsed = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    finish = finish_seconds(setup, costs, n_end, disk)
    seconds = elapsed[-1] + finish
    trial_seconds = float((clocks() - began)[0])
    memory = int(SLACK * (peak_now_bytes() + photo_bytes(setup)))
    estimate = Estimate(round(float(seconds[0]), 2), round(float(seconds[1]), 2), memory, n_end, round(trial_seconds, 2))
    return Forecast(state.step, elapsed, finish, estimate)


def trial_of(setup: Setup, n_steps: int, take: Take) -> Trial:
    """Return how much to try: little where there is little to foresee."""
    n_photos = len(setup.split.train)
    n_tried = min(3, n_photos) if n_steps >= LONG_RUN else 1
    photos = [index * n_photos // n_tried for index in range(n_tried)]

    def tell() -> None:
        setup.on_event(Progress("train", 0.0, "timing a few steps on this machine"))

    return Trial(photos, setup.recipe, setup.photos.pixels, take, tell)


def course_of(setup: Setup, saved: Checkpoint) -> Schedule:
    """Walk the schedule from the state's next step to the last."""
    options, recipe = setup.options, setup.recipe
    n = len(saved.state.rows)
    if recipe.strategy == "adc":
        options = replace(options, max_gaussians=min(options.max_gaussians, CLASSIC_GROWTH * saved.n_start))
    plans, counts = [], []
    for step in range(saved.state.step + 1, options.steps + 1):
        planned = plan(step, options, recipe, Scale(setup.extent, saved.n_start, n))
        plans.append(planned)
        counts.append(n)
        if planned.refine:
            # The classic strategy has no target; it is taken to grow in the same manner.
            # No gaussian splits twice at a time.
            n = max(n, min(2 * n, growth_target(step / options.steps, options, recipe, saved.n_start)))
    levels = np.array([planned.level for planned in plans], np.int64)
    flags = {name: np.array([is_raised(planned, name) for planned in plans], bool) for name in FLAGS}
    return Schedule(levels, np.array(counts, np.int64), flags, typical_plans(plans, counts))


def is_raised(planned: StepPlan, flag: str) -> bool:
    """Return a flag of a plan."""
    return bool(planned.adam.step_sh_rest if flag == SH_REST else getattr(planned, flag))


def typical_plans(plans: list[StepPlan], counts: list[int]) -> dict[int, dict[int, StepPlan]]:
    """Return for each level the least, the middle and the largest count that occur in it, each with a plan of that moment."""
    typical: dict[int, dict[int, StepPlan]] = {}
    for level in sorted({planned.level for planned in plans}, reverse=True):
        steps = [index for index, planned in enumerate(plans) if planned.level == level]
        low, high = counts[steps[0]], counts[steps[-1]]
        middle = next(index for index in steps if 2 * counts[index] >= low + high)
        chosen = (steps[0], middle, steps[-1]) if high > 2 * low else (steps[0], steps[-1]) if high > 1.2 * low else (steps[-1],)
        typical[level] = {counts[index]: plans[index] for index in chosen}
    return typical


def step_seconds(setup: Setup, course: Schedule, costs: dict[int, LevelCost]) -> npt.NDArray[np.float64]:
    """Return the seconds [S, 2] of each step, first visits and those of photos that do not fit the caches included."""
    seconds = np.zeros((len(course.levels), 2))
    n_photos = len(setup.split.train)
    for level, cost in costs.items():
        at = np.flatnonzero(course.levels == level)
        seconds[at] = cost.of(course.counts[at], {name: raised[at] for name, raised in course.flags.items()})
        pixels = level_pixels(setup, level)
        for extra, held in ((cost.read, views.CACHE_BYTES / (3 * pixels)), (cost.prepare, TARGET_CACHE_BYTES / (TARGET_BYTES * pixels))):
            # Photos come in random order: what is not held is the share of visits that must do the work again.
            missed = max(0.0, 1.0 - held)
            seconds[at] += missed * extra
            seconds[at[:n_photos]] += (1.0 - missed) * extra
    return seconds


def clock_share(setup: Setup, counts: npt.NDArray[np.int64], disk: float) -> npt.NDArray[np.float64]:  # [S] -> [S]
    """Return what checkpoints and previews add, as a share of the time between them."""
    options = setup.options
    share = np.zeros(len(counts))
    if options.checkpoint_s:
        share += counts * CHECKPOINT_BYTES / disk / options.checkpoint_s
    if options.preview_s:
        share += PREVIEW_S / options.preview_s
    return np.minimum(share, 1.0)


def finish_seconds(setup: Setup, costs: dict[int, LevelCost], n: int, disk: float) -> Seconds:
    """Return the seconds [2] after the last step: measuring on photos, pictures to look at, the file."""
    if not costs:
        return np.zeros(2)
    photos = setup.split.test or setup.split.train
    finest = costs[min(costs)]
    pixels = photos[0].view.width * photos[0].view.height
    each = finest.read + finest.prepare + finest.of(np.array([n]), {})[0] + PNG_S_PER_PIXEL * pixels
    finish: Seconds = len(photos) * each + PREVIEW_S + np.array([n * PLY_BYTES / disk, 0.0])
    return finish


def disk_bytes_per_s(folder: Path) -> float:
    """Return how fast a file is written and flushed in ``folder``."""
    path = folder / f".probe.{os.getpid()}.part"
    began = time.monotonic()
    try:
        with path.open("wb") as handle:
            handle.write(os.urandom(PROBE_BYTES))
            os.fsync(handle.fileno())
    finally:
        path.unlink(missing_ok=True)
    return PROBE_BYTES / max(1e-4, time.monotonic() - began)


def level_pixels(setup: Setup, level: int) -> int:
    """Return the pixels of all photos at 1/2^level of their size."""
    return sum(max(1, photo.view.width >> level) * max(1, photo.view.height >> level) for photo in setup.split.train)


def photo_bytes(setup: Setup) -> int:
    """Return the bytes that a run comes to hold of its photos: decoded, and prepared for the loss."""
    pixels = sum(level_pixels(setup, level) for level in {0, *(level for _, level in setup.recipe.levels)})
    return min(views.CACHE_BYTES, 3 * pixels) + min(TARGET_CACHE_BYTES, TARGET_BYTES * pixels)


def peak_now_bytes() -> int:
    """Return the most memory this process has held: after trial steps with the last count, what training needs beside the photos."""
    unit = 1024 if os.uname().sysname == "Linux" else 1
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
