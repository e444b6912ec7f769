"""What steps cost on this machine: a few of each kind, taken on copies of the run's own gaussians and on its own photos.

The copies are grown to the counts that the schedule will reach by splitting at random. That keeps the picture nearly as it is, and with it
how many gaussians a pixel meets, which real growth keeps too. Over whole runs such steps and real ones differ by a tenth or less.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from engine.device import finish
from engine.train.density import put_in_order
from engine.train.recipe import Recipe
from engine.train.schedule import StepPlan
from engine.train.split import split
from engine.train.step import TrainState

Seconds = npt.NDArray[np.float64]  # [2]: by the wall's clock and by the CPU's (all threads)
Read = Callable[[int, int], object]  # index of the photo, level
Take = Callable[[TrainState, int, StepPlan], object]  # state, index of the photo, plan

N_REPEATS = 2  # the least of them counts, so that what else the machine does is left out: once is off by half on a busy one
SH_REST = "step_sh_rest"
FLAGS = (*(spec.name for spec in fields(StepPlan) if spec.type is bool), SH_REST)
LAST = ("refine", "reset")  # tried after the others: they change the rows


@dataclass(frozen=True)
class Point:
    """What a step costs with ``n`` gaussians at one size: a plain one, and what each flag of its plan adds."""

    n: int
    plain: Seconds
    extra: dict[str, Seconds]


@dataclass(frozen=True)
class LevelCost:
    """What steps cost at one size: points by rising count; what a photo adds that is not in memory; what one adds new to the loss."""

    read: Seconds
    prepare: Seconds
    points: list[Point]

    def of(self, counts: npt.NDArray[np.int64], flags: dict[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
        """Return seconds [S, 2] of steps with these counts [S] and flags ([S] each), linear in the count between the points."""
        total = _between(counts, {point.n: point.plain for point in self.points})
        for name, raised in flags.items():
            tried = {point.n: point.extra[name] for point in self.points if name in point.extra}
            if tried:
                total += _between(counts, tried) * raised[:, None]
        return total


def _between(counts: npt.NDArray[np.int64], tried: dict[int, Seconds]) -> npt.NDArray[np.float64]:  # [S] -> [S, 2]
    ns = list(tried)
    return np.stack([np.interp(counts, ns, [seconds[clock] for seconds in tried.values()]) for clock in (0, 1)], axis=1)


@dataclass(frozen=True)
class Trial:
    """How to try: on which photos (what a pixel costs differs from view to view), how gaussians split, what takes a step."""

    photos: list[int]
    recipe: Recipe
    read: Read
    take: Take
    tell: Callable[[], None]  # called between the trials: shows that work goes on, and may raise to end it

    def least(self, state: TrainState, index: int, planned: StepPlan) -> Seconds:
        """Return the least time of a step by each clock."""
        least: Seconds = np.min([timed(self.take, state, index, planned) for _ in range(N_REPEATS)], axis=0)
        return least


def try_level(state: TrainState, trial: Trial, plans: dict[int, StepPlan], flags: list[str]) -> LevelCost:
    """Return the cost of steps at one size, for the flags that occur there; ``state`` is left as it was.

    ``plans`` has a typical plan for each count to try.
    """
    counts = sorted(plans)
    level, began = plans[counts[0]].level, clocks()
    for index in trial.photos:
        trial.read(index, level)
    read = (clocks() - began) / len(trial.photos)
    first, points = np.zeros(2), []
    for n in counts:
        trial.tell()
        twin, planned = grown_copy(state, n, trial.recipe), plans[n]
        if n == counts[0]:
            first = np.mean([timed(trial.take, twin, index, with_only(planned, n)) for index in trial.photos], axis=0)
        # What the flags add is tried with the fewest and the most alone.
        points.append(try_point(twin, trial, planned, flags if n in (counts[0], counts[-1]) else []))
    return LevelCost(read, np.maximum(first - points[0].plain, 0.0), points)


def try_point(state: TrainState, trial: Trial, planned: StepPlan, flags: list[str]) -> Point:
    """Return the cost of steps with as many gaussians as ``state`` has, which is used up."""
    n = len(state.rows)
    plain = [trial.least(state, index, with_only(planned, n)) for index in trial.photos]
    extra = {}
    for flag in sorted(flags, key=lambda name: name in LAST):
        flagged = trial.least(state, trial.photos[0], with_only(planned, n, flag))
        extra[flag] = np.maximum(flagged - plain[0], 0.0)
    return Point(n, np.mean(plain, axis=0), extra)


def grown_copy(state: TrainState, n: int, recipe: Recipe) -> TrainState:
    """Return a copy with ``n`` gaussians (or as many as there are, if more), split at random from those of ``state``."""
    twin = copy.deepcopy(state)
    chance = torch.Generator().manual_seed(n)
    while len(twin.rows) < n:
        have = len(twin.rows)
        parents = torch.randperm(have, generator=chance, device="cpu")[: n - have].to(twin.rows.device)
        first, second = split(twin.rows[parents], recipe)
        twin.rows[parents] = first
        twin.resize_rows(torch.arange(have, device=twin.rows.device), second)
    put_in_order(twin)
    return twin


def with_only(planned: StepPlan, n: int, flag: str = "") -> StepPlan:
    """Return the plan with all flags down but one, its target the count there is."""
    down = {name: name == flag for name in FLAGS if name != SH_REST}
    return replace(planned, adam=replace(planned.adam, step_sh_rest=flag == SH_REST), n_target=n, **down)


def timed(take: Take, state: TrainState, index: int, planned: StepPlan) -> Seconds:
    """Return the time of one step."""
    finish(state.rows.device)
    began = clocks()
    take(state, index, planned)
    finish(state.rows.device)
    return clocks() - began


def clocks() -> Seconds:
    """Return the readings [2] of the wall's clock and of this process's CPU clock."""
    return np.array([time.monotonic(), time.process_time()])
