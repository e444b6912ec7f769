"""The classic adaptive density control of 3D Gaussian Splatting (Kerbl et al. 2023, section 5.2), for comparison and for the paper's sake.

Whatever moves a lot on the screen is too coarse: small gaussians are cloned, large ones split at random. There is no budget;
``max_gaussians`` is only a ceiling. From time to time all opacities fall, and what does not recover is removed.
"""

import torch

from engine.train.split import LOG_SCALE, LOGIT, split_at_random
from engine.train.step import TrainState

GRADIENT = 2e-4  # of the loss by the centre on the screen in NDC, mean over the views
LARGE = 0.01  # of the camera extent: split from here on, clone below
FAINT = 0.005
SHRINK = 1.6
RESET_OPACITY = 0.01


def refine_classic(state: TrainState, extent: float, ceiling: int, largest: float) -> None:
    """Clone, split and prune by the gradients seen since the last time; ``largest`` (of the extent) is removed too."""
    size = state.rows[:, LOG_SCALE].max(dim=1).values.exp()
    hot = hottest(state.density, ceiling - len(state.rows))
    cloned, divided = hot & (size <= LARGE * extent), hot & (size > LARGE * extent)
    born = torch.cat([state.rows[cloned], split_at_random(state.rows[divided], SHRINK, state.generator)])
    state.resize_rows((~divided).nonzero().squeeze(1), born)
    keep = torch.sigmoid(state.rows[:, LOGIT]) >= FAINT
    keep &= state.rows[:, LOG_SCALE].max(dim=1).values.exp() <= largest * extent
    if keep.any():  # a scene of nothing could never come back
        state.resize_rows(keep.nonzero().squeeze(1), state.rows[:0])


def hottest(density: torch.Tensor, room: int) -> torch.Tensor:  # [N, 4] float32 -> [N] bool
    """Return which gaussians have a mean gradient above the threshold: where the ceiling leaves less room, those with most."""
    gradient = density[:, 0] / density[:, 1].clamp_min(1.0)
    hot = gradient >= GRADIENT
    if int(hot.sum()) > room:
        chosen = torch.topk(gradient, max(0, room)).indices
        hot = torch.zeros_like(hot)
        hot[chosen] = True
    return hot


def reset_opacity(state: TrainState) -> None:
    """Let no opacity be above ``RESET_OPACITY``, and forget its momentum."""
    state.rows[:, LOGIT].clamp_(max=float(torch.logit(torch.tensor(RESET_OPACITY, device="cpu"))))
    state.optimizer.moment1[:, LOGIT] = 0.0
    state.optimizer.moment2[:, LOGIT] = 0.0
