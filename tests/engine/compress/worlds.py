"""A small world to compress: gaussians on a ball and a floor, photographed from a ring of cameras; and the workspace of such a run."""

from pathlib import Path

import numpy as np

from engine.formats.colmap import write_reconstruction
from engine.formats.ply import write_ply
from engine.gaussians import Gaussians
from engine.scene import Camera, Image, PinholeView, Points3D, Reconstruction
from engine.workspace import Workspace

SIDE = (96, 72)


def ball_and_floor(n: int = 1500, degree: int = 2, seed: int = 0) -> Gaussians:
    """Gaussians on a coloured ball of radius 1 and a floor below it (y down), with some shine."""
    random = np.random.default_rng(seed)
    half = n // 2
    ball = random.standard_normal((half, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    floor = np.stack([random.uniform(-2.5, 2.5, n - half), np.full(n - half, 1.1), random.uniform(-2.5, 2.5, n - half)], axis=1)
    means = np.concatenate([ball, floor])
    sh = 0.02 * random.standard_normal((n, (degree + 1) ** 2, 3))
    sh[:, 0] += 1.2 * np.sin(3.0 * means + [0.0, 1.0, 2.0])
    size = 1.6 / np.sqrt(n)
    return Gaussians(
        means=means.astype(np.float32),
        log_scales=(np.log(size) + 0.3 * random.standard_normal((n, 3))).astype(np.float32),
        quats=random.standard_normal((n, 4)).astype(np.float32),
        opacity_logits=random.uniform(0.0, 4.0, n).astype(np.float32),
        sh=sh.astype(np.float32),
    )


def looking_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return cam_from_world [3, 4] of a camera at ``centre`` that looks at ``target``, y of the world pointing down."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1)


def ring_of_cameras(n: int = 9, radius: float = 4.0) -> Reconstruction:
    width, height = SIDE
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    centres = [np.array([radius * np.cos(a), -1.0 - 0.3 * np.sin(3 * a), radius * np.sin(a)]) for a in angles]
    images = [Image(i + 1, 1, f"photo_{i:02}.jpg", looking_at(centre, np.zeros(3))) for i, centre in enumerate(centres)]
    points = np.random.default_rng(1).standard_normal((50, 3))
    return Reconstruction(
        {1: Camera(1, "PINHOLE", width, height, (90.0, 90.0, width / 2, height / 2))},
        images,
        Points3D(points, np.zeros((50, 3), np.uint8), np.ones(50), np.full(50, 3, np.int64)),
    )


def views_of(scene: Reconstruction) -> list[PinholeView]:
    width, height = SIDE
    return [PinholeView(image.cam_from_world, 90.0, 90.0, width / 2, height / 2, width, height) for image in scene.images]


def make_workspace(root: Path, gaussians: Gaussians, cameras: Reconstruction | None = None) -> Workspace:
    """Return a workspace as the train stage leaves it."""
    workspace = Workspace.at(root)
    scene = cameras or ring_of_cameras()
    write_reconstruction(workspace.sparse, scene)
    write_reconstruction(workspace.undistorted / "sparse", scene)
    workspace.train.mkdir()
    write_ply(workspace.train / "gaussians.ply", gaussians)
    return workspace
