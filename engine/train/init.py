"""The first gaussians, one at each sparse point."""

import numpy as np
import torch

from engine.gaussians import Gaussians, to_rows
from engine.scene import Array, Reconstruction
from engine.train.recipe import Recipe
from kernels.step import Device

SH_C0 = 0.28209479177387814  # the constant basis function, 1 / (2 sqrt pi)


def gaussians_from_points(
    scene: Reconstruction, device: Device, recipe: Recipe, max_count: int, generator: torch.Generator
) -> torch.Tensor:
    """Return parameter rows [N, 64]: round gaussians as large as the gaps between the points, in the points' colours.

    With fewer points than the recipe's ``min_points``, copies scattered by the same gaps are added, so that thin clouds can grow evenly.
    """
    xyz, rgb = scene.points.xyz.astype(np.float32), scene.points.rgb.astype(np.float32) / 255.0
    if len(xyz) > max_count:
        chosen = torch.randperm(len(xyz), generator=generator, device="cpu")[:max_count].sort().values.numpy()
        xyz, rgb = xyz[chosen], rgb[chosen]
    gaps = point_gaps(xyz, device)
    n_extra = min(max_count, recipe.min_points) - len(xyz)
    if n_extra > 0 and len(xyz):
        spread = torch.randn((n_extra, 3), generator=generator, device="cpu").numpy()
        source = np.arange(n_extra) % len(xyz)
        xyz = np.concatenate([xyz, xyz[source] + spread * gaps[source, None]])
        rgb, gaps = np.concatenate([rgb, rgb[source]]), np.concatenate([gaps, gaps[source]])
    return torch.from_numpy(to_rows(round_gaussians(xyz, rgb, gaps * recipe.init_scale, recipe.init_opacity)))


def point_gaps(xyz: np.ndarray, device: Device) -> np.ndarray:  # [P, 3] float32 -> [P] float32
    """Return the root mean square distance to the three nearest points, kept within a sane range of the median."""
    if len(xyz) < 2:
        return np.full(len(xyz), 0.1, np.float32)
    points = torch.from_numpy(np.ascontiguousarray(xyz)).to(device.tensors)
    gaps = device.knn(points, 3).sqrt().cpu().numpy()
    median = float(np.median(gaps))
    low, high = (0.05 * median, 10.0 * median) if median > 0 else (1e-3, 1e-1)
    clipped: np.ndarray = np.clip(gaps, low, high).astype(np.float32)
    return clipped


def round_gaussians(xyz: np.ndarray, rgb: np.ndarray, scales: np.ndarray, opacity: float) -> Gaussians:  # [P, 3], [P, 3], [P] float32
    """Return round gaussians of one size each and one opacity, without view dependence."""
    n = len(xyz)
    sh = np.zeros((n, 16, 3), np.float32)
    sh[:, 0] = (rgb - 0.5) / SH_C0
    quats = np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (n, 1))
    log_scales = np.repeat(np.log(np.maximum(scales, 1e-7)).astype(np.float32)[:, None], 3, axis=1)
    logits = np.full(n, np.log(opacity / (1.0 - opacity)), np.float32)
    return Gaussians(xyz.astype(np.float32), log_scales, quats, logits, sh)


def camera_extent(centres: Array) -> float:  # [M, 3]
    """Return the radius of the cameras about their mean, times 1.1, the unit of the position's learning rate (3DGS)."""
    radius = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max())
    return max(1.1 * radius, 1e-3)
