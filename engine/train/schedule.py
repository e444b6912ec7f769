"""What each step does, as a pure function of its number."""

import math
from dataclasses import dataclass

from engine.options import TrainOptions
from engine.train.recipe import Recipe
from kernels.step import AdamParams


@dataclass(frozen=True)
class StepPlan:
    """One step: rates, the size to render at, and what happens around it."""

    adam: AdamParams
    level: int
    sh_degree: int
    score: bool
    noise: bool
    refine: bool
    n_target: int
    fade: float  # taken off every opacity at a refinement
    measure: bool  # collect the kernels' density statistics
    reset: bool  # of opacities, in the classic strategy
    largest: float  # of the camera extent: what is larger is removed by the classic strategy
    hold_sizes: bool  # above what the photos can show
    lr_exposure: float


@dataclass(frozen=True)
class Scale:
    """What the rates are relative to: camera extent (world units), the count before any growth, the count now."""

    extent: float
    n_start: int
    n: int


def plan(step: int, options: TrainOptions, recipe: Recipe, scale: Scale) -> StepPlan:
    """Return the plan of step 1..steps."""
    share = step / options.steps
    refining = recipe.refine_from <= share <= recipe.relocate_until
    is_classic = recipe.strategy == "adc"
    period = max(1, round(recipe.reset_every * options.steps))
    until_refine = (-step) % recipe.refine_every
    return StepPlan(
        adam=adam_params(step, options, recipe, scale),
        level=next((level for until, level in recipe.levels if share <= until), 0),
        sh_degree=min(options.sh_degree, int(share * recipe.sh_speed * options.sh_degree)),
        score=not is_classic and refining and until_refine < recipe.score_views,
        noise=share <= recipe.noise_until and step % recipe.noise_every == 0,
        refine=refining and until_refine == 0,
        n_target=options.max_gaussians if is_classic else growth_target(share, options, recipe, scale.n_start),
        fade=recipe.opacity_decay * (1.0 - share),
        measure=is_classic and share <= recipe.relocate_until,
        reset=is_classic and share < recipe.relocate_until and step % period == 0,
        largest=recipe.largest if step > period else math.inf,
        hold_sizes=recipe.floor_px > 0 and (step % recipe.hold_every == 0 or step == options.steps),
        lr_exposure=recipe.lr_exposure * recipe.lr_exposure_end**share,
    )


def haste(steps: int, recipe: Recipe) -> float:
    """Return the factor on the rates of positions and sizes: 1 for a full run, growing as the run gets shorter.

    A random walk of n steps gets sqrt(n) strides far, hence the square root.
    """
    return min(recipe.most_haste, max(1.0, math.sqrt(recipe.full_steps / steps)))


def adam_params(step: int, options: TrainOptions, recipe: Recipe, scale: Scale) -> AdamParams:
    """Return the rates of a step; the position's falls exponentially, the rest are constant."""
    share = step / options.steps
    # Regularisers act on the mean over all gaussians; the kernel wants what falls on one of them.
    regularised = float(share <= recipe.reg_until) / max(1, scale.n)
    stride = haste(options.steps, recipe)
    return AdamParams(
        step=step,
        lr_means=stride * recipe.lr_means * scale.extent * recipe.lr_means_end**share,
        lr_log_scales=stride * recipe.lr_log_scales,
        lr_quats=recipe.lr_quats,
        lr_opacity=recipe.lr_opacity,
        lr_sh_dc=recipe.lr_sh_dc,
        lr_sh_rest=recipe.lr_sh_dc * recipe.sh_rest_share * recipe.sh_rest_every,
        opacity_reg=recipe.opacity_reg * regularised,
        scale_reg=recipe.scale_reg / scale.extent * regularised,
        step_sh_rest=step % recipe.sh_rest_every == 0,
    )


def growth_target(share: float, options: TrainOptions, recipe: Recipe, n_start: int) -> int:
    """Return how many gaussians there should be: from the start to the budget by equal factors, then constant."""
    if n_start >= options.max_gaussians or share < recipe.refine_from:
        return min(n_start, options.max_gaussians)
    done = min(1.0, (share - recipe.refine_from) / (recipe.grow_until - recipe.refine_from))
    factor: float = (options.max_gaussians / max(1, n_start)) ** done
    return round(n_start * factor)
