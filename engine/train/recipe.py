"""The recipe: every constant of a training run, in one place, so that each can be changed alone and measured."""

from dataclasses import dataclass

from engine.options import TrainOptions


@dataclass(frozen=True)
class Recipe:
    """Constants of the recipe. Shares are of the whole run; rates are per step of a run of ``full_steps``, shorter runs stride further.

    Their origins: 3DGS, 3DGS-MCMC, gsplat's defaults; changed where our own runs were better (docs/benchmarks.md).
    """

    full_steps: int = 30_000
    most_haste: float = 4.0

    lr_means: float = 1.6e-4  # of the camera extent
    lr_means_end: float = 0.01  # share of lr_means at the last step
    lr_log_scales: float = 5e-3
    lr_quats: float = 1e-3
    lr_opacity: float = 2.5e-2
    lr_sh_dc: float = 2.5e-3
    sh_rest_share: float = 0.1  # lr of the higher bases relative to the constant one
    sh_rest_every: int = 4  # the higher bases are three quarters of all memory traffic and change slowly
    ssim_weight: float = 0.2
    opacity_reg: float = 0.01  # of the mean opacity (3DGS-MCMC)
    scale_reg: float = 0.01  # of the mean scale, in units of the camera extent
    reg_until: float = 0.85
    refine_every: int = 100
    refine_from: float = 0.05
    grow_until: float = 0.6
    relocate_until: float = 0.85
    noise_until: float = 0.9
    noise_every: int = 10
    noise_scale: float = 5e5  # of the position's learning rate (3DGS-MCMC)
    score_views: int = 10  # the last steps before a refinement in which errors are charged to gaussians
    levels: tuple[tuple[float, int], ...] = ((0.10, 2), (0.35, 1))  # until this share of the run, at 1/2^level of the size


BUDGET = Recipe()
ADC = Recipe()


def recipe_of(options: TrainOptions) -> Recipe:
    """Return the recipe that the options ask for."""
    return ADC if options.strategy == "adc" else BUDGET
