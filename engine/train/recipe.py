"""The recipe: every constant of a training run, in one place, so that each can be changed alone and measured (bench/ablation.py)."""

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
    sh_speed: float = 5 / 3  # degrees rise evenly, the last one at 1 / sh_speed of the run
    lr_exposure: float = 1e-2  # of log gains and offsets of the photos, where corrected
    lr_exposure_end: float = 0.1  # share of lr_exposure at the last step
    hold_every: int = 200  # steps between raising sizes to the floor; once more after the last
    floor_px: float = 0.3  # least standard deviation, in pixels of the photo that shows a gaussian finest; 0: none
    ssim_weight: float = 0.2
    levels: tuple[tuple[float, int], ...] = ((0.10, 2), (0.35, 1))  # until this share of the run, at 1/2^level of the size

    init_opacity: float = 0.3
    init_scale: float = 0.7  # of the distance to the nearest points: neighbours just overlap
    min_points: int = 2_000  # thinner clouds are filled up to this
    shell_share: float = 0.02  # of the budget, on a sphere far behind the scene

    strategy: str = "budget"
    refine_every: int = 100
    refine_from: float = 0.05
    grow_until: float = 0.6
    relocate_until: float = 0.85
    score_views: int = 10  # the last steps before a refinement in which errors are charged to gaussians
    score_power: float = 1.0  # parents are drawn with probability in proportion to this power of the error charged to them
    split_offset: float = 0.8  # of the longest standard deviation, to each side
    split_shrink: float = 0.6  # of the longest standard deviation; 0.8² + 0.6² = 1 keeps the variance along the axis
    split_opacity: float = 0.5**0.5  # a half gets 1 - (1 - o)^this
    opacity_decay: float = 0.0  # taken off every opacity at a refinement, falling to nothing over the run
    opacity_reg: float = 0.0  # of the mean opacity (3DGS-MCMC has 0.01: here it cost 0.1 to 0.2 dB)
    scale_reg: float = 0.0  # of the mean scale, in units of the camera extent (likewise)
    reg_until: float = 0.85
    noise_until: float = 0.9
    noise_every: int = 10
    noise_scale: float = 5e5  # of the position's learning rate (3DGS-MCMC)

    reset_every: float = 0.0  # share of the run between opacity resets of the classic strategy
    largest: float = 0.1  # of the camera extent: the classic strategy removes larger ones, once opacities have been reset


BUDGET = Recipe()

# Kerbl et al. 2023, sections 5.2 and 7.1. What is counted there in steps of a run of 30,000 (start, end, resets, colour degrees) is a share
# of the run here; refining stays at every 100 steps, which the gradient threshold is made for.
ADC = Recipe(
    strategy="adc",
    most_haste=1.0,
    lr_opacity=5e-2,
    sh_rest_share=0.05,
    sh_rest_every=1,
    sh_speed=10.0,
    floor_px=0.0,
    levels=(),
    init_opacity=0.1,
    init_scale=1.0,
    min_points=0,
    shell_share=0.0,
    refine_from=500 / 30_000,
    grow_until=0.5,
    relocate_until=0.5,
    opacity_reg=0.0,
    scale_reg=0.0,
    noise_until=0.0,
    reset_every=0.1,
)


def recipe_of(options: TrainOptions) -> Recipe:
    """Return the recipe that the options ask for."""
    return ADC if options.strategy == "adc" else BUDGET
