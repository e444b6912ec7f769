"""A made-up scene as trainings make them: flat gaussians on surfaces, sizes log-normal, opacities of two kinds, rows in Morton order."""

from dataclasses import dataclass

import numpy as np
import torch

from kernels.step import CameraParams, Device

SPHERES = ((-2.2, 0.2, 1.0, 0.9), (0.3, 0.0, 0.0, 1.1), (2.4, 0.4, 1.5, 0.7), (-0.8, 0.6, -1.6, 0.5), (1.6, 0.7, -1.2, 0.4))  # x y z radius


@dataclass(frozen=True)
class Scene:
    """Parameter rows and the camera that looks at them."""

    rows: torch.Tensor  # [N, 64] float32
    camera: CameraParams


def surface_points(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points and unit normals, [n, 3] each, on a floor, a back wall and five spheres (y points down)."""
    kind = rng.choice(3, size=n, p=[0.4, 0.25, 0.35])
    uv = rng.uniform(-1.0, 1.0, (n, 2))
    floor = np.stack([uv[:, 0] * 6.0, np.full(n, 1.2), uv[:, 1] * 6.0], axis=1)
    wall = np.stack([uv[:, 0] * 7.0, uv[:, 1] * 3.0 - 1.8, np.full(n, 6.0)], axis=1)
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    sphere = np.array(SPHERES)[rng.integers(0, len(SPHERES), n)]
    ball = sphere[:, :3] + direction * sphere[:, 3:]
    points = np.select([kind[:, None] == 0, kind[:, None] == 1], [floor, wall], ball)
    normals = np.select([kind[:, None] == 0, kind[:, None] == 1], [np.array([[0.0, -1.0, 0.0]]), np.array([[0.0, 0.0, -1.0]])], direction)
    return points, normals


def morton_order(points: np.ndarray) -> np.ndarray:
    """Return the order of [n, 3] points along a Z curve of 2^10 cells a side."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = ((points - low) / (high - low + 1e-9) * 1023).astype(np.int64)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def turn_to(normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return quaternions [n, 4] wxyz that turn the z axis to the normals, after a random turn about z."""
    half = np.stack([1.0 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=1)
    half[np.abs(half).sum(axis=1) < 1e-6] = (0.0, 1.0, 0.0, 0.0)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    angle = rng.uniform(0, np.pi, len(normals))
    w, x, y, _ = half.T
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([w * c, x * c + y * s, y * c - x * s, w * s], axis=1)


def rows_of(n: int, seed: int) -> np.ndarray:
    """Return the parameter rows, [n, 64] float32, at size one hundredth of a unit."""
    rng = np.random.default_rng(seed)
    points, normals = surface_points(n, rng)
    order = morton_order(points)
    points, normals = points[order] + rng.normal(0, 0.01, (n, 3)), normals[order]
    size = np.log(0.01) + rng.normal(0, 0.5, n)
    rows = np.zeros((n, 64), dtype=np.float32)
    rows[:, 0:3] = points
    rows[:, 3:6] = size[:, None] + rng.normal(0, 0.3, (n, 3)) + np.array([0.0, 0.0, -2.3])
    rows[:, 6:10] = turn_to(normals, rng)
    rows[:, 10] = np.where(rng.random(n) < 0.85, rng.normal(-2.5, 1.0, n), rng.normal(2.0, 1.0, n))
    rows[:, 11:14] = rng.normal(0, 0.6, (n, 3))
    for channel in range(3):
        rows[:, 16 * (channel + 1) : 16 * (channel + 1) + 15] = rng.normal(0, 0.05, (n, 15))
    return rows


def surface_scene(n: int, width: int, height: int, blended_per_pixel: float, seed: int = 0) -> Scene:
    """Return the scene with sizes such that a pixel blends that many gaussians on average (alpha ≥ 1/255, T > 1e-4)."""
    camera = CameraParams(
        (1, 0, 0, 0, 0, 1, 0, 0.6, 0, 0, 1, 5.0), 0.75 * width, 0.75 * width, width / 2, height / 2, width, height
    )  # 5 units before the middle, 0.6 above it
    rows = torch.from_numpy(rows_of(n, seed))
    device = Device("cpu")
    low, high = -3.0, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        sized = rows.clone()
        sized[:, 3:6] += middle
        device.forward(sized, camera, 0, (0.0, 0.0, 0.0), torch.empty(3, height, width))
        device.contribution(n, torch.zeros(n))
        blended = device.profile(enable=False).n_blended / (width * height)
        low, high = (middle, high) if blended < blended_per_pixel else (low, middle)
    rows[:, 3:6] += (low + high) / 2
    return Scene(rows, camera)
