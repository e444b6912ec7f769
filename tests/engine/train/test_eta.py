from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import Cancelled
from engine.events import Event, Progress
from engine.options import TrainOptions, preset
from engine.train import train, views
from engine.train.checkpoint import Checkpoint
from engine.train.eta import Estimate, Forecast, course_of, foresee, step_seconds
from engine.train.recipe import Recipe
from engine.train.step import TrainState
from engine.train.trial import FLAGS, LevelCost, Point, grown_copy, with_only
from engine.train.views import PhotoCache, load_split
from engine.train.watch import Setup
from engine.workspace import Workspace
from kernels.step import Device

OPTIONS = TrainOptions(steps=1200, max_gaussians=3000, max_side=80, sh_degree=1, min_psnr_db=5.0, preview_s=0.0)


@pytest.fixture
def setup(posed_workspace: Workspace) -> Setup:
    split, _ = load_split(posed_workspace.undistorted, OPTIONS.max_side, 8)
    posed_workspace.train.mkdir()
    photos = PhotoCache(split.train)
    return Setup(Device(n_threads=1), split, photos, 2.0, Recipe(), OPTIONS, "key", posed_workspace.train, lambda _: None)


def saved_at(step: int, n: int = 500) -> Checkpoint:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn((n, 64), generator=generator)
    rows[:, 3:6] = -3.0
    state = TrainState.fresh(rows, generator)
    state.step = step
    return Checkpoint("key", state, [], n, 0.0, OPTIONS.steps, OPTIONS.max_gaussians)


def takes(setup: Setup):
    buffers: dict = {}
    return lambda state, index, planned: train.one_step(setup, state, index, planned, buffers)


def line(seconds_per_step: float, steps: int, first_step: int = 0) -> Forecast:
    elapsed = np.outer(np.arange(steps + 1), [seconds_per_step, 2 * seconds_per_step])
    return Forecast(first_step, elapsed, np.zeros(2), Estimate(0.0, 0.0, 0, 0, 0.0))


def test_foreseeing_changes_neither_the_state_nor_its_random_numbers(setup: Setup) -> None:
    saved = saved_at(0)
    before = [each.clone() for each in (saved.state.rows, saved.state.optimizer.moment1, saved.state.generator.get_state())]
    forecast = foresee(setup, saved, takes(setup))
    after = (saved.state.rows, saved.state.optimizer.moment1, saved.state.generator.get_state())
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert saved.state.step == 0
    assert forecast.estimate.n_gaussians == OPTIONS.max_gaussians
    assert forecast.elapsed.shape == (OPTIONS.steps + 1, 2)
    assert (np.diff(forecast.elapsed, axis=0) > 0).all()
    # A process that holds torch alone is larger than 100 MB.
    assert 100e6 < forecast.estimate.peak_memory_bytes < 100e9
    assert [path.name for path in setup.folder.iterdir()] == []


def test_a_resumed_run_is_foreseen_from_where_it_stands(setup: Setup) -> None:
    forecast = foresee(setup, saved_at(1100, 3000), takes(setup))
    assert (forecast.first_step, len(forecast.elapsed)) == (1100, 101)
    assert forecast.share(1100, 1200) == pytest.approx(1100 / 1200)
    assert forecast.share(1200, 1200) == 1.0


def test_a_run_tells_its_estimate_first_then_how_long_is_left_then_how_it_was(posed_workspace: Workspace) -> None:
    events: list[Event] = []
    chosen = replace(preset("draft"), threads=1, train=replace(OPTIONS, steps=150))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.train.watch.REPORT_S", 0.0)
        stats = train.run(posed_workspace, chosen, events.append)
    told = [event.data for event in events if isinstance(event, Progress)]
    first = next(index for index, data in enumerate(told) if "estimate" in data)
    assert not any("step" in data for data in told[:first])
    assert told[first]["estimate"] == stats["estimate"]
    left = [data["eta_s"] for data in told if "eta_s" in data]
    assert len(left) == 150
    assert 0.0 <= left[-1] < left[0]
    assert stats["taken_seconds"] > 0.0
    assert stats["taken_cpu_seconds"] > 0.0
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)


def test_what_is_left_follows_the_pace_seen_so_far() -> None:
    forecast = line(1.0, 100)
    assert forecast.remaining_s(0, 0.0) == pytest.approx(100.0)
    assert forecast.remaining_s(50, 50.0) == pytest.approx(50.0)
    # Everything takes twice as long: nearly all of it is believed half way through, and little of it after one step.
    assert 90.0 < forecast.remaining_s(50, 100.0) < 100.0
    assert 99.0 < forecast.remaining_s(1, 2.0) < 140.0
    assert forecast.remaining_s(100, 200.0) == 0.0


def test_costs_lie_on_the_line_between_the_counts_tried() -> None:
    few, many = Point(100, np.array([1.0, 2.0]), {"score": np.array([1.0, 1.0])}), Point(200, np.array([3.0, 6.0]), {})
    cost = LevelCost(np.zeros(2), np.zeros(2), [few, many])
    raised = {"score": np.array([False, True, False]), "noise": np.array([True, True, True])}
    seconds = cost.of(np.array([100, 150, 400]), raised)
    assert seconds.tolist() == [[1.0, 2.0], [3.0, 5.0], [3.0, 6.0]]


def test_photos_that_fit_no_cache_are_paid_for_at_every_step(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    course = course_of(setup, saved_at(0))
    cost = LevelCost(np.array([1.0, 1.0]), np.zeros(2), [Point(500, np.zeros(2), {})])
    n_photos, levels = len(setup.split.train), sorted(course.typical)
    costs = dict.fromkeys(levels, cost)
    assert step_seconds(setup, course, costs)[:, 0].sum() == pytest.approx(n_photos * len(levels))
    monkeypatch.setattr(views, "CACHE_BYTES", 0)
    assert step_seconds(setup, course, costs)[:, 0].sum() == pytest.approx(OPTIONS.steps)


def test_the_course_is_that_of_the_schedule(setup: Setup) -> None:
    course = course_of(setup, saved_at(0))
    assert course.counts[0] == 500
    assert course.counts[-1] == OPTIONS.max_gaussians
    for level, plans in course.typical.items():
        occurring = course.counts[course.levels == level]
        assert set(plans) <= set(occurring.tolist())
        assert max(plans) == occurring[-1]
        assert all(planned.level == level for planned in plans.values())
    assert course.flags["refine"].sum() == course.flags["score"].sum() / setup.recipe.score_views


def test_a_grown_copy_has_the_count_and_leaves_the_original(setup: Setup) -> None:
    state = saved_at(0).state
    before = state.rows.clone()
    assert len(grown_copy(state, 1777, setup.recipe).rows) == 1777
    assert len(grown_copy(state, 100, setup.recipe).rows) == 500
    assert torch.equal(state.rows, before)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_trial_step_raises_one_flag(setup: Setup, flag: str) -> None:
    course = course_of(setup, saved_at(0))
    planned = next(iter(course.typical[0].values()))
    alone = with_only(planned, 500, flag)
    values = {name: getattr(alone, name) for name in FLAGS if hasattr(alone, name)} | {"step_sh_rest": alone.adam.step_sh_rest}
    assert [name for name, raised in values.items() if raised] == [flag]
    assert alone.n_target == 500


def test_a_request_to_stop_is_heard_while_steps_are_timed(setup: Setup) -> None:
    def stop(_: Event) -> None:
        raise Cancelled.by_request()

    with pytest.raises(Cancelled):
        foresee(replace(setup, on_event=stop), saved_at(0), takes(setup))


def test_nothing_more_than_doubles_at_a_refinement(setup: Setup) -> None:
    hasty = replace(setup, options=replace(OPTIONS, steps=150, max_gaussians=50_000))
    course = course_of(hasty, saved_at(0))
    assert course.flags["refine"].sum() == 1
    assert course.counts[-1] == 1000
