"""The shared frame: where is down, what is the size of things."""

import numpy as np
import pytest

from engine.geometry import Similarity, rotation_from_quat
from engine.sfm.frame import down_by_gps, down_in_world, normalising_similarity

DOWN = np.array([0.0, 0.0, -1.0])


def look_at(eye: np.ndarray, target: np.ndarray, roll_deg: float = 0.0) -> np.ndarray:
    """A camera, world z up; looking straight down its top is north."""
    ahead = (target - eye) / np.linalg.norm(target - eye)
    sideways = np.cross(DOWN, ahead)
    sideways = sideways / np.linalg.norm(sideways) if np.linalg.norm(sideways) > 1e-6 else np.array([1.0, 0, 0])
    down = np.cross(ahead, sideways)
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    rotation = np.stack([c * sideways + s * down, c * down - s * sideways, ahead])
    return np.concatenate([rotation, -(rotation @ eye)[:, None]], axis=1)


def orbit(pitch: float, rolls: np.ndarray) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, len(rolls), endpoint=False)
    eyes = np.stack([np.cos(angles) * np.cos(pitch), np.sin(angles) * np.cos(pitch), np.full(len(rolls), np.sin(pitch))], axis=1) * 5
    return np.stack([look_at(eye, np.zeros(3), roll) for eye, roll in zip(eyes, rolls, strict=True)])


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(first @ second, -1, 1))))


@pytest.mark.parametrize("pitch_deg", [0, 30, 60, 85])
def test_orbit_at_any_height_finds_down(pitch_deg: float) -> None:
    rolls = np.random.default_rng(0).normal(0, 3, 30)
    assert angle_deg(down_in_world(orbit(np.radians(pitch_deg), rolls)[:, :, :3]), DOWN) < 3.0


def test_forward_facing_photos_take_the_mean_of_their_own_down() -> None:
    random = np.random.default_rng(1)
    eyes = random.normal(0, 0.3, (20, 3)) + np.array([0, -4.0, 0])
    poses = np.stack([look_at(eye, np.zeros(3), roll) for eye, roll in zip(eyes, random.normal(0, 3, 20), strict=True)])
    assert angle_deg(down_in_world(poses[:, :, :3]), DOWN) < 6.0


def test_drone_looking_down_from_all_headings_finds_down() -> None:
    headings = np.radians([0, 90, 180, 270, 45, 200])
    rotations = []
    for heading in headings:
        sideways = np.array([np.cos(heading), np.sin(heading), 0])
        rotations.append(np.stack([sideways, np.cross(DOWN, sideways), DOWN]))
    assert angle_deg(down_in_world(np.array(rotations)), DOWN) < 1.0


def test_normalised_frame_is_centred_scaled_and_upright() -> None:
    random = np.random.default_rng(2)
    poses, points = orbit(0.4, random.normal(0, 2, 25)), random.normal(0, 0.7, (3000, 3))
    # The same scene as structure from motion might hand it over: any rotation, scale and place.
    moved = Similarity(0.03, rotation_from_quat(random.normal(size=4)), np.array([40.0, -7, 3]))
    poses = np.stack([moved.apply_to_pose(pose) for pose in poses])
    points = moved.apply(points)
    found = normalising_similarity(poses, points)
    normal_poses = np.stack([found.apply_to_pose(pose) for pose in poses])
    normal_points = found.apply(points)
    np.testing.assert_allclose(np.median(normal_points, axis=0), 0, atol=0.05)
    centres = -np.einsum("mji,mj->mi", normal_poses[:, :, :3], normal_poses[:, :, 3])
    distances = np.linalg.norm(centres[:, None] - normal_points[None], axis=2)
    assert np.median(distances) == pytest.approx(2.0, rel=0.02)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)
    # The cameras look down at the scene from above: above is negative y.
    assert np.all(centres[:, 1] < 0)
    assert normal_poses[:, 1, 1].min() > 0.5


def test_frame_needs_cameras_and_points() -> None:
    with pytest.raises(ValueError, match="at least one"):
        normalising_similarity(np.zeros((0, 3, 4)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="at least one"):
        normalising_similarity(np.zeros((1, 3, 4)), np.zeros((0, 3)))


def drone_grid(noise_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Twenty photos straight down, all heading north, 60 m up; positions in a turned frame, and by GPS in metres."""
    random = np.random.default_rng(3)
    metres = np.array([[10.0 * (i % 5), 10.0 * (i // 5), 60.0] for i in range(20)]) + random.normal(0, 0.5, (20, 3))
    pose = np.stack([[1.0, 0, 0], [0, -1.0, 0], DOWN])
    turned = rotation_from_quat(np.array([0.3, 0.5, -0.2, 0.7]))
    poses = np.stack([np.concatenate([pose @ turned.T, -(pose @ centre)[:, None] * 0.1], axis=1) for centre in metres])
    return poses, metres + random.normal(0, noise_m, (20, 3))


def test_drone_that_never_turned_is_upright_by_gps() -> None:
    poses, metres = drone_grid(0.5)
    metres[3] = np.nan
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    true_down = rotation_from_quat(np.array([0.3, 0.5, -0.2, 0.7])) @ DOWN
    found = down_by_gps(centres, metres)
    assert found is not None
    assert angle_deg(found, true_down) < 3.0
    # Without GPS their own down is all there is, and that is the horizon here.
    assert angle_deg(down_in_world(poses[:, :, :3]), true_down) > 80
    upright = normalising_similarity(poses, centres + true_down * 6, metres)
    np.testing.assert_allclose(upright.rotation @ true_down, [0, 1, 0], atol=0.06)


@pytest.mark.parametrize("case", ["coarse", "line", "few", "one place"])
def test_gps_that_cannot_tell_is_not_used(case: str) -> None:
    poses, metres = drone_grid(8.0 if case == "coarse" else 0.3)
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    if case == "line":
        poses, metres, centres = poses[:5], metres[:5], centres[:5]
    elif case == "few":
        metres[3:] = np.nan
    elif case == "one place":
        metres[:] = metres[0]
    assert down_by_gps(centres, metres) is None
