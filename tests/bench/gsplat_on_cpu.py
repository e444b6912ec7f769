"""gsplat without a card: its own rasterization() and strategy, its own torch forms of its kernels where it calls the compiled ones.

Only blending, relocation and SelectiveAdam have no torch form there that runs on a CPU; they are written here from what gsplat documents.
"""

import importlib
import math
import os
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from bench.gpu_opponent import find_gsplat

MAX_ALPHA, MIN_ALPHA, STOP = 0.999, 1.0 / 255.0, 1e-4


def gsplat_on_cpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return gsplat of the folder that GSPLAT names, its compiled calls answered on the CPU; skip the test without one."""
    for name in ("CUDA_HOME", "TORCH_EXTENSIONS_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that what finding it sets is undone
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = os.environ.get("GSPLAT", "")
    gsplat = find_gsplat(folder) if folder else None
    if gsplat is None:
        pytest.skip("GSPLAT names no folder with gsplat's wheel (docs/gpu.md)")
    plain = importlib.import_module("gsplat.cuda._torch_impl")
    rendering, ops = importlib.import_module("gsplat.rendering"), importlib.import_module("gsplat.strategy.ops")
    selective = importlib.import_module("gsplat.optimizers.selective_adam")

    def projection(means: Any, covars: Any, quats: Any, scales: Any, *cameras: Any, **given: Any) -> Any:
        assert covars is None
        assert not given["packed"]
        assert given["radius_clip"] == 0.0
        kept = {name: given[name] for name in ("eps2d", "near_plane", "far_plane", "calc_compensations", "camera_model")}
        covars, _ = plain._quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
        return plain._fully_fused_projection(means, covars, *cameras, **kept)

    def tiles(means2d: Any, radii: Any, depths: Any, size: int, across: int, down: int, **_: Any) -> Any:
        return plain._isect_tiles(means2d, radii, depths, size, across, down)

    def colours(degree: int, directions: Any, coefficients: Any, masks: Any) -> Any:
        return torch.where(masks[..., None], plain._spherical_harmonics(degree, directions, coefficients), 0.0)

    monkeypatch.setattr(rendering, "fully_fused_projection", projection)
    monkeypatch.setattr(rendering, "isect_tiles", tiles)
    monkeypatch.setattr(rendering, "isect_offset_encode", plain._isect_offset_encode)
    monkeypatch.setattr(rendering, "spherical_harmonics", colours)
    monkeypatch.setattr(rendering, "rasterize_to_pixels", blend)
    monkeypatch.setattr(ops, "quat_scale_to_covar_preci", plain._quat_scale_to_covar_preci)
    monkeypatch.setattr(ops, "compute_relocation", relocation)
    monkeypatch.setattr(selective, "adam", adam_of_the_visible)
    return gsplat


def blend(means2d: Any, conics: Any, colors: Any, opacities: Any, *tiled: Any, **given: Any) -> Any:
    """Blend one camera's tiles front to back; a pixel is done before the pair that would leave 1e-4 of it."""
    assert given["backgrounds"] is None
    width, height, size, offsets, ids = tiled
    bounds = [*offsets.flatten().tolist(), len(ids)]
    image = torch.zeros((1, height, width, 3))
    alphas = torch.zeros((1, height, width, 1))
    for tile in range(len(bounds) - 1):
        listed = ids[bounds[tile] : bounds[tile + 1]].long()
        y, x = divmod(tile, offsets.shape[-1])
        rows, columns = slice(y * size, min(height, (y + 1) * size)), slice(x * size, min(width, (x + 1) * size))
        pair = alphas_at(means2d[0, listed], conics[0, listed], opacities[0, listed], rows, columns)
        left = torch.cumprod(1.0 - pair, dim=0)
        before = torch.cat([torch.ones_like(left[:1]), left[:-1]]) if len(listed) else left
        weights = pair * before * (left > STOP)
        image[0, rows, columns] = torch.einsum("nhw,nc->hwc", weights, colors[0, listed])
        alphas[0, rows, columns, 0] = weights.sum(0)
    return image, alphas


def alphas_at(means2d: torch.Tensor, conics: torch.Tensor, opacities: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
    """Return alphas [M, h, w] at the pixel centres of a tile."""
    dx = means2d[:, 0, None, None] - (torch.arange(columns.start, columns.stop) + 0.5)[None, None, :]
    dy = means2d[:, 1, None, None] - (torch.arange(rows.start, rows.stop) + 0.5)[None, :, None]
    a, b, c = (conics[:, index, None, None] for index in range(3))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities[:, None, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    return torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, 0.0)


def relocation(opacities: torch.Tensor, scales: torch.Tensor, ratios: torch.Tensor, binoms: torch.Tensor) -> Any:
    """Return opacities and scales of gaussians of which ``ratios`` share a place (3DGS-MCMC, eq. 9)."""
    counts = ratios.clamp(1, len(binoms))
    fresh = 1.0 - (1.0 - opacities) ** (1.0 / counts)
    sums = torch.zeros_like(fresh)
    for index, count in enumerate(counts.tolist()):
        terms = [binoms[i, k] * (-1) ** k / math.sqrt(k + 1) * fresh[index] ** (k + 1) for i in range(count) for k in range(i + 1)]
        sums[index] = torch.stack(terms).sum()
    return fresh, scales * (opacities / sums)[:, None]


def adam_of_the_visible(rows: Any, grads: Any, first: Any, second: Any, visible: Any, *rates: float) -> None:
    """Step the visible rows, without correcting the moments' start, as gsplat's kernel does; it takes packed tensors only."""
    lr, beta1, beta2, eps = rates
    assert all(each.is_contiguous() for each in (rows, grads, first, second, visible))
    assert visible.dtype == torch.bool
    assert visible.shape == rows.shape[:1]
    first[visible] = beta1 * first[visible] + (1 - beta1) * grads[visible]
    second[visible] = beta2 * second[visible] + (1 - beta2) * grads[visible] ** 2
    rows[visible] -= lr * first[visible] / (second[visible].sqrt() + eps)
