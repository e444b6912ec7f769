"""A posed set of any size without photos: made-up surfaces, drawn by our own kernels from a round of cameras."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from bench.kernel_scene import rows_of
from engine.formats.colmap import write_reconstruction
from engine.render import render_rows, to_bytes
from engine.scene import Camera, Image, PinholeView, Points3D, Reconstruction
from kernels.step import Device
from tests.data.cameras import look_at

SH_C0 = 0.28209479177387814
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # the scene's y points down; look_at wants z up
WAVES = ((2.1, 3.3, -1.2), (-2.7, 1.9, 2.4), (1.4, -2.2, 3.1))  # radians a unit


@dataclass(frozen=True)
class MadeSet:
    """What to make."""

    gaussians: int = 300_000
    n_photos: int = 80
    width: int = 1280
    height: int = 720
    n_points: int = 30_000  # sparse points to start from


def views_of(plan: MadeSet) -> list[PinholeView]:
    """Return cameras on a wavy arc before the scene, all turned to its middle."""
    views = []
    for index in range(plan.n_photos):
        share = index / max(1, plan.n_photos - 1)
        angle = np.radians(-155 + 130 * share)  # in front: the wall is behind the scene
        eye = np.array([4.6 * np.cos(angle), 4.6 * np.sin(angle), 0.7 + 0.6 * np.sin(9 * share)])
        pose = look_at(eye, np.array([0.0, 0.3 * np.sin(5 * share), -0.1]))
        views.append(
            PinholeView(
                np.hstack([pose[:, :3] @ Z_UP, pose[:, 3:]]),
                0.8 * plan.width,
                0.8 * plan.width,
                plan.width / 2,
                plan.height / 2,
                plan.width,
                plan.height,
            )
        )
    return views


def make_set(folder: Path, plan: MadeSet, device: Device) -> Path:
    """Write ``folder``/undistorted as the poses stage would, photos as PNG; return ``folder``."""
    undistorted = folder / "undistorted"
    (undistorted / "images").mkdir(parents=True, exist_ok=True)
    rows = torch.from_numpy(rows_of(plan.gaussians, 3))
    rows[:, 3:6] += 0.5 * float(np.log(300_000 / plan.gaussians)) + 0.5  # so that surfaces are closed at any count
    rows[:, 10] += 3.0
    waves = torch.stack([torch.sin(rows[:, :3] @ torch.tensor(wave)) for wave in WAVES], dim=1)
    rows[:, 11:14] = 0.9 * waves + 0.4 * rows[:, 11:14]  # colours that photos have: smooth, with grain
    views, images = views_of(plan), []
    on_device = rows.to(device.tensors)
    for index, view in enumerate(views):
        name = f"{index:04d}.png"
        picture = render_rows(device, on_device, view, 3).clamp(0.0, 1.0).permute(1, 2, 0).cpu().numpy()
        PillowImage.fromarray(to_bytes(np.ascontiguousarray(picture))).save(undistorted / "images" / name, compress_level=1)
        images.append(Image(index + 1, 1, name, view.cam_from_world))
    first = views[0]
    camera = Camera(1, "PINHOLE", plan.width, plan.height, (first.fx, first.fy, first.cx, first.cy))
    write_reconstruction(undistorted / "sparse", Reconstruction({1: camera}, images, sparse_points(rows.numpy(), plan.n_points)))
    (folder / "poses.json").write_text("{}\n")
    return folder


def sparse_points(rows: np.ndarray, count: int) -> Points3D:
    """Return some gaussians' centres as sparse points, in their colours."""
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    n = len(chosen)
    colours = np.clip(0.5 + SH_C0 * rows[chosen, 11:14], 0.0, 1.0)
    return Points3D(rows[chosen, :3].astype(np.float64), np.rint(255 * colours).astype(np.uint8), np.full(n, 0.5), np.full(n, 3, np.int64))
