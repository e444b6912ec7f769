"""The same training step in plain torch, as gsplat's fallback does it: autograd projection, tiles blended by cumulative products.

Only for comparison. It takes the specification's projection and loss (kernels/reference.py) and differs in the rasteriser alone, which
there needs gaussians × pixels of memory.
"""

import time
from dataclasses import dataclass

import torch

from kernels import reference
from kernels.step import CameraParams
from kernels.tensors import GaussianTensors, from_rows

TILE = 16


@dataclass(frozen=True)
class Example:
    """One photo and the camera it was taken with."""

    camera: CameraParams
    pixels: torch.Tensor  # [H, W, 3] uint8


def cpu_seconds_per_step(rows: torch.Tensor, examples: list[Example], sh_degree: int) -> float:
    """Return the CPU seconds of one step (forward, loss, backward, Adam), the mean over one step on each example, on one thread."""
    parameters = rows.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=1e-3)
    step(parameters, optimizer, examples[0], sh_degree)  # the first call pays for torch's own start
    started = time.process_time()
    for example in examples:
        step(parameters, optimizer, example, sh_degree)
    return (time.process_time() - started) / len(examples)


def step(parameters: torch.Tensor, optimizer: torch.optim.Optimizer, example: Example, sh_degree: int) -> float:
    """Take one step; return the loss before it."""
    image = render(from_rows(parameters, sh_degree), example.camera)
    loss = reference.loss(image, example.pixels, 0.2).total
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def render(gaussians: GaussianTensors, camera: CameraParams) -> torch.Tensor:
    """Return the image [3, H, W] on black."""
    projected = reference.project(gaussians, camera)
    order = torch.argsort(projected.depths.detach())
    order = order[projected.visible[order]]
    means, conics = projected.means2d[order], projected.conics[order]
    opacities, colours = projected.opacities[order], projected.colours[order]
    with torch.no_grad():
        reach = torch.sqrt(2 * torch.log(torch.clamp(opacities / reference.MIN_ALPHA, min=1.0)))
        half = reach[:, None] * torch.sqrt(torch.diagonal(projected.covs2d[order], dim1=1, dim2=2))
        low, high = means - half, means + half
    strips = []
    for y in range(0, camera.height, TILE):
        y1 = min(y + TILE, camera.height)
        in_strip = torch.nonzero((low[:, 1] < y1) & (high[:, 1] > y))[:, 0]
        tiles = []
        for x in range(0, camera.width, TILE):
            x1 = min(x + TILE, camera.width)
            chosen = in_strip[(low[in_strip, 0] < x1) & (high[in_strip, 0] > x)]
            ys, xs = torch.meshgrid(torch.arange(y, y1) + 0.5, torch.arange(x, x1) + 0.5, indexing="ij")
            tiles.append(_blend(means[chosen], conics[chosen], opacities[chosen], colours[chosen], torch.stack([xs, ys])))
        strips.append(torch.cat(tiles, dim=2))
    return torch.cat(strips, dim=1)


def _blend(means: torch.Tensor, conics: torch.Tensor, opacities: torch.Tensor, colours: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return one tile's colours [3, h, w] at the pixel centres ``at`` [2, h, w]; gaussians are front to back."""
    d = at[None] - means[:, :, None, None]
    power = conics[:, 0, 0, None, None] * d[:, 0] ** 2 + conics[:, 1, 1, None, None] * d[:, 1] ** 2
    power = 0.5 * power + conics[:, 0, 1, None, None] * d[:, 0] * d[:, 1]
    alpha = torch.clamp(opacities[:, None, None] * torch.exp(-power), max=reference.MAX_OPACITY)
    alpha = torch.where(alpha >= reference.MIN_ALPHA, alpha, torch.zeros_like(alpha))
    before = torch.cumprod(torch.cat([torch.ones_like(alpha[:1]), 1 - alpha[:-1]]), dim=0)
    return torch.einsum("nhw,nc->chw", alpha * before, colours)
