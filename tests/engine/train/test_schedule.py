import itertools
from dataclasses import replace

import pytest

from engine.options import TrainOptions
from engine.train.recipe import Recipe
from engine.train.schedule import Scale, growth_target, haste, plan

OPTIONS = TrainOptions(steps=1000, max_gaussians=50_000, sh_degree=3)
RECIPE = Recipe()
SCALE = Scale(extent=2.0, n_start=5_000, n=5_000)


def plans() -> list:
    return [plan(step, OPTIONS, RECIPE, SCALE) for step in range(1, OPTIONS.steps + 1)]


def test_the_position_rate_falls_by_equal_factors_to_its_end() -> None:
    rates = [each.adam.lr_means for each in plans()]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(haste(1000, RECIPE) * RECIPE.lr_means * SCALE.extent * RECIPE.lr_means_end)


def test_pictures_grow_to_full_size_and_never_shrink() -> None:
    levels = [each.level for each in plans()]
    assert levels[0] == 2
    assert levels[-1] == 0
    assert levels == sorted(levels, reverse=True)


def test_colour_degrees_rise_to_the_chosen_one() -> None:
    degrees = [each.sh_degree for each in plans()]
    assert degrees[0] == 0
    assert degrees[-1] == 3
    assert degrees == sorted(degrees)


def test_the_count_reaches_the_budget_and_stays() -> None:
    targets = [each.n_target for each in plans()]
    assert targets[0] == SCALE.n_start
    assert targets == sorted(targets)
    assert targets[int(RECIPE.grow_until * 1000)] == OPTIONS.max_gaussians == targets[-1]


def test_no_start_misses_the_budget_by_rounding() -> None:
    counts = [growth_target(1.0, OPTIONS, RECIPE, n_start) for n_start in range(1, 3000, 7)]
    assert set(counts) == {OPTIONS.max_gaussians}


def test_refinement_ends_before_the_run_and_follows_scoring() -> None:
    refining = [index for index, each in enumerate(plans()) if each.refine]
    assert refining
    assert max(refining) < RECIPE.relocate_until * OPTIONS.steps
    for index in refining:
        assert all(each.score for each in plans()[index - RECIPE.score_views + 1 : index + 1])


def test_regularisers_are_off_at_the_end() -> None:
    recipe = replace(RECIPE, opacity_reg=0.01, scale_reg=0.02)
    first, last = (plan(step, OPTIONS, recipe, SCALE).adam for step in (1, OPTIONS.steps))
    assert (first.opacity_reg, first.scale_reg) == pytest.approx((0.01 / SCALE.n, 0.02 / SCALE.extent / SCALE.n))
    assert (last.opacity_reg, last.scale_reg) == (0.0, 0.0)


def test_short_runs_stride_further_and_full_ones_do_not() -> None:
    assert haste(RECIPE.full_steps, RECIPE) == haste(10 * RECIPE.full_steps, RECIPE) == 1.0
    assert haste(RECIPE.full_steps // 4, RECIPE) == pytest.approx(2.0)
    assert haste(1, RECIPE) == RECIPE.most_haste
