"""Where gaussians are born and die: growth to a budget, by error; the dead are reborn; noise lets the faint ones wander.

Budget and noise follow 3DGS-MCMC (Kheradmand et al. 2024), growth by rendered error follows Taming-3DGS (Mallick et al. 2024); a split
along the longest axis keeps the picture nearly unchanged.
"""

import torch

from engine.order import morton_order_of
from engine.train.adc import refine_classic, reset_opacity
from engine.train.recipe import Recipe
from engine.train.schedule import StepPlan
from engine.train.split import LOG_SCALE, LOGIT, MEAN, QUAT, rotations, split
from engine.train.step import TrainState

DEAD_OPACITY = 0.005


def densify(state: TrainState, plan: StepPlan, recipe: Recipe, extent: float) -> None:
    """Change the gaussians' places and number as the plan of the step says."""
    if plan.noise:
        # Steps without noise are made up for: variances add.
        add_noise(state, recipe.noise_scale * plan.adam.lr_means * recipe.noise_every**0.5)
    if plan.refine:
        if recipe.strategy == "adc":
            refine_classic(state, extent, plan.n_target, plan.largest)
        else:
            refine(state, plan.n_target, recipe)
            fade(state, plan.fade)
        put_in_order(state)
    if plan.reset:
        reset_opacity(state)


def refine(state: TrainState, n_target: int, recipe: Recipe) -> None:
    """Replace dead gaussians and grow to ``n_target``: both by splitting those to which most error was charged."""
    alive = torch.sigmoid(state.rows[:, LOGIT]) > DEAD_OPACITY
    n_alive = int(alive.sum())
    n_births = min(max(0, n_target - n_alive), n_alive)
    keep = alive.nonzero().squeeze(1)
    if n_births == 0:
        state.resize_rows(keep, state.rows[:0])
        return
    parents = choose_parents(state.scores[keep] ** recipe.score_power, n_births, state.generator)
    chosen = keep[parents]
    first, second = split(state.rows[chosen], recipe)
    state.rows[chosen] = first
    # Both halves are new: the old moments describe neither.
    state.optimizer.moment1[chosen] = 0.0
    state.optimizer.moment2[chosen] = 0.0
    state.resize_rows(keep, second)


def fade(state: TrainState, amount: float) -> None:
    """Take ``amount`` off every opacity, so that only what the photos ask for stays."""
    if amount > 0:
        faded = (torch.sigmoid(state.rows[:, LOGIT]) - amount).clamp(1e-4, 1.0 - 1e-4)
        state.rows[:, LOGIT] = torch.logit(faded)


def put_in_order(state: TrainState) -> None:
    """Sort the rows along a Morton curve: the kernels then read neighbours from neighbouring lines (a fifth of the step, research)."""
    state.resize_rows(morton_order_of(state.rows[:, MEAN]), state.rows[:0])


def choose_parents(scores: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:  # [N] float32 -> [count] int64
    """Return ``count`` different indices drawn with probability in proportion to the scores, in order.

    Weighted sampling without replacement by exponential keys (Efraimidis and Spirakis 2006).
    """
    weights = scores.double().clamp_min(0.0) + 1e-12
    drawn = torch.rand(len(weights), generator=generator, dtype=torch.float64, device="cpu").to(weights.device, non_blocking=True)
    keys = drawn.log() / weights
    return torch.topk(keys, count).indices.sort().values


def add_noise(state: TrainState, strength: float) -> None:
    """Move faint gaussians at random within their own shape (3DGS-MCMC eq. 9): noise ~ strength · gate(opacity) · Σ · N(0, 1)."""
    opacity = torch.sigmoid(state.rows[:, LOGIT])
    # The gate 1 / (1 + exp(100 (o - 0.005))) is below 1e-4 from here on: most gaussians need no work.
    faint = (opacity < 0.1).nonzero().squeeze(1)
    if len(faint) == 0:
        return
    rows = state.rows[faint]
    gate = torch.sigmoid(-100.0 * (opacity[faint] - DEAD_OPACITY))
    axes = rotations(rows[:, QUAT])
    normal = torch.randn((len(faint), 3, 1), generator=state.generator, device="cpu").to(rows.device, non_blocking=True)
    local = (axes.transpose(1, 2) @ normal) * (2.0 * rows[:, LOG_SCALE]).exp().unsqueeze(2)
    state.rows[faint, MEAN] += strength * gate[:, None] * (axes @ local).squeeze(2)
