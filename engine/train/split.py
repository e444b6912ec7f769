"""Two gaussians in place of one."""

import torch

from engine.train.recipe import Recipe

MEAN, LOG_SCALE, QUAT, LOGIT = slice(0, 3), slice(3, 6), slice(6, 10), 10


def split(rows: torch.Tensor, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:  # [C, 64] -> two [C, 64]
    """Return the two halves of each gaussian, moved apart along its longest axis and shrunk there: the picture hardly changes.

    Opacity of a half: 1 - sqrt(1 - o) would keep the middle's alpha if the halves coincided; moved apart they overlap less, hence the
    milder exponent of the recipe.
    """
    longest = rows[:, LOG_SCALE].argmax(dim=1)
    picked = torch.arange(len(rows), device=rows.device)
    sigma = rows[picked, 3 + longest].exp()
    axis = rotations(rows[:, QUAT])[picked, :, longest]
    halves = (rows.clone(), rows.clone())
    opacity = torch.sigmoid(rows[:, LOGIT])
    shared = 1.0 - (1.0 - opacity).clamp_min(1e-6) ** recipe.split_opacity
    for half, side in zip(halves, (1.0, -1.0), strict=True):
        half[:, MEAN] += side * recipe.split_offset * sigma[:, None] * axis
        half[picked, 3 + longest] += torch.full((), recipe.split_shrink, device=rows.device).log()
        half[:, LOGIT] = torch.logit(shared.clamp(1e-4, 1.0 - 1e-4))
    return halves


def split_at_random(rows: torch.Tensor, shrink: float, generator: torch.Generator) -> torch.Tensor:  # [C, 64] -> [2 C, 64]
    """Return two smaller copies of each gaussian at places drawn from it (3DGS section 5.2)."""
    both = rows.repeat(2, 1)
    drawn = torch.randn((len(both), 3), generator=generator, device="cpu").to(rows.device, non_blocking=True)
    local = drawn * both[:, LOG_SCALE].exp()
    both[:, MEAN] += (rotations(both[:, QUAT]) @ local.unsqueeze(2)).squeeze(2)
    both[:, LOG_SCALE] -= torch.full((), shrink, device=rows.device).log()
    return both


def rotations(quats: torch.Tensor) -> torch.Tensor:  # [C, 4] wxyz -> [C, 3, 3]
    """Return rotation matrices; columns are the gaussian's axes in the world."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    entries = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, dim=1).view(-1, 3, 3)
