"""Rotations, quaternions and similarities in numpy, float64. Quaternions are wxyz; ``b_from_a`` names what a transform maps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """x' = ``scale`` · ``rotation`` x + ``translation``."""

    scale: float
    rotation: Array  # [3, 3] float64
    translation: Array  # [3] float64

    def apply(self, points: Array) -> Array:
        """Return the mapped points, [M, 3]."""
        moved: Array = self.scale * points @ self.rotation.T + self.translation
        return moved

    def apply_to_pose(self, cam_from_world: Array) -> Array:
        """Return the pose, [3, 4], of the same camera in the mapped world."""
        rotation = cam_from_world[:, :3] @ self.rotation.T
        centre = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
        moved = self.scale * self.rotation @ centre + self.translation
        return np.concatenate([rotation, -(rotation @ moved)[:, None]], axis=1)


def align_similarity(
    source: Array,  # [M, 3] float64
    target: Array,  # [M, 3] float64
) -> Similarity:
    """Return the similarity that maps ``source`` onto ``target`` with the least squared distance.

    Needs M ≥ 3 points that do not lie on one line. Raises ``ValueError`` for less. Source: Umeyama, PAMI 1991, equations 34 to 43.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) < 3:
        raise ValueError(f"expected two arrays [M >= 3, 3], got {source.shape} and {target.shape}")
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred_source, centred_target = source - source_mean, target - target_mean
    variance = float((centred_source**2).sum() / len(source))
    u, singular, vt = np.linalg.svd(centred_target.T @ centred_source / len(source))
    if not singular[0] > 0 or singular[1] < 1e-9 * singular[0]:
        raise ValueError("the points lie on one line; their alignment has no single answer")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / variance)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def rotation_error_deg(
    first: Array,  # [..., 3, 3] float64
    second: Array,  # [..., 3, 3] float64
) -> Array:
    """Return the angle of the rotation between two rotations, degrees, [...]; accurate for small angles."""
    chord = np.linalg.norm(first - second, axis=(-2, -1)) / np.sqrt(8.0)
    degrees: Array = np.degrees(2.0 * np.arcsin(np.clip(chord, 0.0, 1.0)))
    return degrees


def rotation_from_quat(
    quats: Array,  # [..., 4] float64 wxyz
) -> Array:
    """Return rotation matrices, [..., 3, 3]. Quaternions need not have length 1; length 0 raises ``ValueError``."""
    norm = np.linalg.norm(quats, axis=-1, keepdims=True)
    if not np.all(norm > 0):
        raise ValueError("a quaternion has length 0")
    w, x, y, z = np.moveaxis(quats / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_from_rotation(
    rotation: Array,  # [3, 3] float64
) -> Array:
    """Return the unit quaternion wxyz with w ≥ 0 of a rotation matrix, [4].

    The eigenvector of the largest eigenvalue is stable for every angle. Source: Bar-Itzhack, J. Guidance 2000.
    """
    m = rotation
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], 0, 0, 0],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], 0, 0],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    quat: Array = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    return -quat if quat[0] < 0 else quat
