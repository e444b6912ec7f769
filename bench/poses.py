"""Estimated camera poses against true ones: the best similarity between the two worlds, and what is left."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from engine.geometry import Array, align_similarity, rotation_error_deg


@dataclass(frozen=True)
class PoseErrors:
    """What is left after alignment: angles in degrees, distances in the true world's unit (metres for the demo)."""

    n_compared: int
    rotation_median_deg: float
    rotation_max_deg: float
    position_median_m: float
    position_max_m: float


def compare_poses(
    estimated: dict[str, Array],  # name -> [3, 4] float64 cam_from_world
    true: dict[str, Array],  # name -> [3, 4] float64 cam_from_world
) -> PoseErrors:
    """Return the errors of the photos that both have; names are compared without extension.

    Raises ``ValueError`` when fewer than 3 are shared or their centres lie on one line.
    """
    by_stem = {PurePath(name).stem: pose for name, pose in true.items()}
    pairs = [(pose, by_stem[PurePath(name).stem]) for name, pose in estimated.items() if PurePath(name).stem in by_stem]
    ours, theirs = (np.stack([pair[side] for pair in pairs]) if pairs else np.zeros((0, 3, 4)) for side in (0, 1))
    world = align_similarity(_centres(ours), _centres(theirs))
    moved = np.stack([world.apply_to_pose(pose) for pose in ours])
    turned = rotation_error_deg(moved[:, :, :3], theirs[:, :, :3])
    apart = np.linalg.norm(_centres(moved) - _centres(theirs), axis=1)
    return PoseErrors(len(pairs), float(np.median(turned)), float(turned.max()), float(np.median(apart)), float(apart.max()))


def poses_of(cameras_json: list[dict[str, Any]]) -> dict[str, Array]:
    """Return name -> cam_from_world [3, 4] of the asset cameras.json."""
    return {view["name"]: np.asarray(view["cam_from_world"], np.float64) for view in cameras_json}


def _centres(poses: Array) -> Array:
    """Return the cameras' positions [M, 3] of poses [M, 3, 4]."""
    centres: Array = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    return centres
