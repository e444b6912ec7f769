import math

import pytest
import torch

from engine.options import TrainOptions
from engine.train.adc import FAINT, GRADIENT, LARGE, RESET_OPACITY, SHRINK, refine_classic, reset_opacity
from engine.train.recipe import ADC
from engine.train.schedule import Scale, StepPlan, plan
from engine.train.step import TrainState

EXTENT = 2.0
STEPS = 3000


def state_of(sizes: list[float], gradients: list[float], opacities: list[float]) -> TrainState:
    """Return gaussians one unit apart, each seen in four views."""
    n = len(sizes)
    rows = torch.zeros((n, 64))
    rows[:, 0] = torch.arange(n)
    rows[:, 3:6] = (torch.tensor(sizes) * EXTENT).log()[:, None]
    rows[:, 6] = 1.0
    rows[:, 10] = torch.logit(torch.tensor(opacities))
    state = TrainState.fresh(rows, torch.Generator().manual_seed(0))
    state.density[:, 0], state.density[:, 1] = 4.0 * torch.tensor(gradients), 4.0
    state.optimizer.moment1.fill_(1.0)
    return state


def test_small_gaussians_that_move_are_cloned_and_large_ones_split() -> None:
    state = state_of([LARGE / 2, 2 * LARGE, 2 * LARGE], [2 * GRADIENT, 2 * GRADIENT, GRADIENT / 2], [0.5, 0.5, 0.5])
    before = state.rows.clone()
    refine_classic(state, EXTENT, 100, largest=math.inf)
    assert len(state.rows) == 5
    still, calm, clone, *halves = state.rows
    assert torch.equal(still, before[0])
    assert torch.equal(calm, before[2])
    assert torch.equal(clone, before[0])
    for half in halves:
        assert torch.allclose(half[3:6].exp(), before[1, 3:6].exp() / SHRINK)
        assert half[10] == before[1, 10]
        assert 0.0 < (half[:3] - before[1, :3]).norm() < 5 * 2 * LARGE * EXTENT
    assert not state.optimizer.moment1[2:].any()
    assert not state.density.any()


def test_the_faint_go_and_after_a_reset_the_huge_go_too() -> None:
    def left(largest: float) -> int:
        state = state_of([LARGE, LARGE, 2 * ADC.largest], [0.0, 0.0, 0.0], [0.5, FAINT / 2, 0.5])
        refine_classic(state, EXTENT, 100, largest)
        return len(state.rows)

    assert (left(math.inf), left(ADC.largest)) == (2, 1)


def test_not_all_are_removed_at_once() -> None:
    state = state_of([LARGE, LARGE], [0.0, 0.0], [FAINT / 2, FAINT / 3])
    refine_classic(state, EXTENT, 100, largest=math.inf)
    assert len(state.rows) == 2


def test_at_the_ceiling_those_with_the_largest_gradient_go_first() -> None:
    state = state_of([LARGE / 2] * 4, [2 * GRADIENT, 5 * GRADIENT, 3 * GRADIENT, 4 * GRADIENT], [0.5] * 4)
    refine_classic(state, EXTENT, 6, largest=math.inf)
    assert state.rows[4:, 0].tolist() == [1.0, 3.0]
    full = state_of([LARGE / 2] * 4, [2 * GRADIENT] * 4, [0.5] * 4)
    refine_classic(full, EXTENT, 3, largest=math.inf)
    assert len(full.rows) == 4


def test_a_reset_lowers_opacities_and_forgets_their_momentum() -> None:
    state = state_of([LARGE, LARGE], [0.0, 0.0], [0.5, RESET_OPACITY / 2])
    reset_opacity(state)
    assert torch.sigmoid(state.rows[:, 10]).tolist() == pytest.approx([RESET_OPACITY, RESET_OPACITY / 2])
    assert not state.optimizer.moment1[:, 10].any()
    assert state.optimizer.moment1[:, 9].all()


def plans() -> list[StepPlan]:
    options = TrainOptions(steps=STEPS, max_gaussians=50_000, sh_degree=3, strategy="adc")
    return [plan(step, options, ADC, Scale(extent=EXTENT, n_start=1000, n=1000)) for step in range(1, STEPS + 1)]


def test_the_classic_plan_is_the_papers_scaled_to_the_run() -> None:
    each = plans()
    refined = [index + 1 for index, planned in enumerate(each) if planned.refine]
    assert refined == list(range(100, STEPS // 2 + 1, 100))
    assert [index + 1 for index, planned in enumerate(each) if planned.reset] == [300, 600, 900, 1200]
    assert [planned.largest for planned in each].index(ADC.largest) == 300
    assert all(planned.measure for planned in each[: STEPS // 2])
    assert not any(planned.measure for planned in each[STEPS // 2 :])
    assert not any(planned.noise or planned.score or planned.level for planned in each)
    assert [planned.sh_degree for planned in each][99::100][:4] == [1, 2, 3, 3]
    assert {planned.adam.opacity_reg for planned in each} == {0.0}
    assert each[0].adam.lr_means == pytest.approx(1.6e-4 * EXTENT, rel=0.01)
    assert each[-1].adam.lr_means == pytest.approx(1.6e-6 * EXTENT)
