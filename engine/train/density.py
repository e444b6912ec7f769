"""Where gaussians are born and die: growth to a budget, by error; the dead are reborn; noise lets the faint ones wander.

Budget and noise follow 3DGS-MCMC (Kheradmand et al. 2024), growth by rendered error follows Taming-3DGS (Mallick et al. 2024); a split
along the longest axis keeps the picture nearly unchanged.
"""

import torch

from engine.order import morton_order
from engine.train.step import TrainState

MEAN, LOG_SCALE, QUAT, LOGIT = slice(0, 3), slice(3, 6), slice(6, 10), 10
DEAD_OPACITY = 0.005
SPLIT_OFFSET = 0.5  # of the longest standard deviation, to each side
SPLIT_SHRINK = 0.6  # of the longest standard deviation; keeps the variance along the axis about right


def refine(state: TrainState, n_target: int) -> None:
    """Replace dead gaussians and grow to ``n_target``: both by splitting those to which most error was charged."""
    alive = torch.sigmoid(state.rows[:, LOGIT]) > DEAD_OPACITY
    n_alive = int(alive.sum())
    n_births = min(max(0, n_target - n_alive), n_alive)
    keep = alive.nonzero().squeeze(1)
    if n_births == 0:
        state.resize_rows(keep, state.rows[:0])
        return
    parents = choose_parents(state.scores[keep], n_births, state.generator)
    chosen = keep[parents]
    first, second = split(state.rows[chosen])
    state.rows[chosen] = first
    # Both halves are new: the old moments describe neither.
    state.optimizer.moment1[chosen] = 0.0
    state.optimizer.moment2[chosen] = 0.0
    state.resize_rows(keep, second)


def put_in_order(state: TrainState) -> None:
    """Sort the rows along a Morton curve: the kernels then read neighbours from neighbouring lines (a fifth of the step, research)."""
    order = torch.from_numpy(morton_order(state.rows[:, MEAN].numpy()))
    state.resize_rows(order, state.rows[:0])


def choose_parents(scores: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:  # [N] float32 -> [count] int64
    """Return ``count`` different indices drawn with probability in proportion to the scores, in order.

    Weighted sampling without replacement by exponential keys (Efraimidis and Spirakis 2006).
    """
    weights = scores.double().clamp_min(0.0) + 1e-12
    keys = torch.rand(len(weights), generator=generator, dtype=torch.float64).log() / weights
    return torch.topk(keys, count).indices.sort().values


def split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # [C, 64] -> two [C, 64]
    """Return the two halves of each gaussian, moved apart along its longest axis and shrunk there.

    Opacity of a half: 1 - sqrt(1 - o) would keep the middle's alpha if the halves coincided; moved apart they overlap less, hence the
    milder exponent 1 / sqrt 2.
    """
    longest = rows[:, LOG_SCALE].argmax(dim=1)
    picked = torch.arange(len(rows))
    sigma = rows[picked, 3 + longest].exp()
    axis = rotations(rows[:, QUAT])[picked, :, longest]
    halves = (rows.clone(), rows.clone())
    opacity = torch.sigmoid(rows[:, LOGIT])
    shared = 1.0 - (1.0 - opacity).clamp_min(1e-6) ** (1.0 / 2**0.5)
    for half, side in zip(halves, (1.0, -1.0), strict=True):
        half[:, MEAN] += side * SPLIT_OFFSET * sigma[:, None] * axis
        half[picked, 3 + longest] += torch.tensor(SPLIT_SHRINK).log()
        half[:, LOGIT] = torch.logit(shared.clamp(1e-4, 1.0 - 1e-4))
    return halves


def rotations(quats: torch.Tensor) -> torch.Tensor:  # [C, 4] wxyz -> [C, 3, 3]
    """Return rotation matrices; columns are the gaussian's axes in the world."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    entries = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, dim=1).view(-1, 3, 3)


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
    normal = torch.randn((len(faint), 3, 1), generator=state.generator)
    local = (axes.transpose(1, 2) @ normal) * (2.0 * rows[:, LOG_SCALE]).exp().unsqueeze(2)
    state.rows[faint, MEAN] += strength * gate[:, None] * (axes @ local).squeeze(2)
