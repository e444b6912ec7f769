"""The frame all files of a run share: scene in the middle, about two units from the cameras, y pointing down."""

import numpy as np

from engine.geometry import Array, Similarity, align_similarity

# Median distance from camera to point after normalising, units.
VIEW_DISTANCE = 2.0
# The cameras' sideways axes say where the horizon is only if they turn; below this share of their spread they all point one way.
_LEAST_TURN = 0.02
# GPS says where down is when it spreads this far (metres, and across over along) and fits the cameras this well (share of the spread).
_GPS_SPREAD_M = 5.0
_GPS_WIDTH = 0.2
_GPS_MISFIT = 0.1


def normalising_similarity(
    poses: Array,  # [M, 3, 4] float64, cam_from_world
    points: Array,  # [P, 3] float64
    metres: Array | None = None,  # [M, 3] float64, east, north, up of each camera by GPS; NaN rows where unknown
) -> Similarity:
    """Return the similarity into the shared frame: median point at 0, median camera-to-point distance 2, +y down, +z ahead.

    Down comes from GPS where it is good enough, else from how the cameras were held.

    Raises ``ValueError`` without cameras or points.
    """
    if not len(poses) or not len(points):
        raise ValueError("a frame needs at least one camera and one point")
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    distances = np.linalg.norm(centres[:, None] - points[:: max(1, len(points) // 2000)][None], axis=2)
    scale = VIEW_DISTANCE / max(float(np.median(distances)), 1e-12)
    by_gps = None if metres is None else down_by_gps(centres, metres)
    down = down_in_world(poses[:, :, :3]) if by_gps is None else by_gps
    rotation = _axes(down, poses[:, :, :3])
    # The median of coordinates depends on the axes, so it is taken in the final ones.
    return Similarity(scale, rotation, -scale * np.median(points @ rotation.T, axis=0))


def down_in_world(
    rotations: Array,  # [M, 3, 3] float64, cam_from_world
) -> Array:
    """Return the unit vector along which things fall, as far as the photos tell, [3].

    People hold cameras level: the sideways axes lie in the horizon, so gravity is what they are all square to. Where they all point one
    way (nobody turned) that leaves it open, and the mean of the photos' own down serves. Drones looking straight down from all sides
    have no common down in their photos; then gravity is where they look.
    """
    sideways, down, ahead = rotations[:, 0], rotations[:, 1], rotations[:, 2]
    mean_down = down.mean(axis=0)
    spread, axes = np.linalg.eigh(sideways.T @ sideways / len(sideways))
    chosen = axes[:, 0] if spread[1] > _LEAST_TURN and spread[0] < 0.5 * spread[1] else mean_down
    towards = mean_down if abs(_unit(chosen) @ mean_down) > 0.15 else ahead.mean(axis=0)
    return _unit(chosen if chosen @ towards >= 0 else -chosen)


def down_by_gps(
    centres: Array,  # [M, 3] float64
    metres: Array,  # [M, 3] float64, NaN rows where unknown
) -> Array | None:
    """Return the unit vector towards the earth, [3], or None when GPS is missing, too coarse for the capture, or along one line."""
    known = np.isfinite(metres).all(axis=1)
    if known.sum() < 4:
        return None
    centred = metres[known] - metres[known].mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False) / np.sqrt(known.sum())
    if spread[0] < _GPS_SPREAD_M or spread[1] < _GPS_WIDTH * spread[0]:
        return None
    try:
        similarity = align_similarity(centres[known], metres[known])
    except ValueError:
        return None
    misfit = np.sqrt(((similarity.apply(centres[known]) - metres[known]) ** 2).sum(axis=1).mean())
    if misfit > _GPS_MISFIT * np.linalg.norm(spread):
        return None
    down: Array = similarity.rotation.T @ np.array([0.0, 0.0, -1.0])
    return down


def _axes(down: Array, rotations: Array) -> Array:
    """World rotation with row 1 along ``down`` and row 2 as near as can be to where the cameras look."""
    ahead = rotations[:, 2].mean(axis=0)
    # Around an object the directions cancel, and the first camera decides; looking straight down, its own up does.
    candidates = (ahead, rotations[0, 2], -rotations[0, 1])
    level = [candidate - (candidate @ down) * down for candidate in candidates]
    forward = next((_unit(each) for each in level if np.linalg.norm(each) > 0.2), None)
    if forward is None:
        forward = _unit(np.cross(down, np.eye(3)[int(np.argmin(np.abs(down)))]))
    return np.stack([np.cross(down, forward), down, forward])


def _unit(vector: Array) -> Array:
    unit: Array = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit
