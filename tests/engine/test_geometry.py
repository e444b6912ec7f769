"""Alignment and rotations, against rotations made independently by Rodrigues' formula."""

import numpy as np
import pytest

from engine.geometry import Similarity, align_similarity, quat_from_rotation, rotation_error_deg, rotation_from_quat


def rodrigues(axis: np.ndarray, degrees: float) -> np.ndarray:
    axis = axis / np.linalg.norm(axis)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def random_similarity(seed: int) -> Similarity:
    random = np.random.default_rng(seed)
    return Similarity(float(random.uniform(0.1, 10)), rodrigues(random.normal(size=3), random.uniform(0, 180)), random.normal(size=3))


@pytest.mark.parametrize("seed", range(5))
def test_align_similarity_finds_the_exact_similarity(seed: int) -> None:
    truth = random_similarity(seed)
    source = np.random.default_rng(seed + 100).normal(size=(12, 3))
    found = align_similarity(source, truth.apply(source))
    assert found.scale == pytest.approx(truth.scale, rel=1e-10)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-10)
    np.testing.assert_allclose(found.translation, truth.translation, atol=1e-9)


def test_align_similarity_never_mirrors_even_when_that_would_fit_better() -> None:
    source = np.random.default_rng(0).normal(size=(20, 3))
    found = align_similarity(source, source * np.array([1.0, 1.0, -1.0]))
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_align_similarity_takes_points_of_one_plane() -> None:
    truth = random_similarity(3)
    source = np.random.default_rng(1).normal(size=(8, 3)) * np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(align_similarity(source, truth.apply(source)).apply(source), truth.apply(source), atol=1e-9)


def test_align_similarity_beats_disturbed_answers_on_noisy_points() -> None:
    random = np.random.default_rng(2)
    truth = random_similarity(2)
    source = random.normal(size=(30, 3))
    target = truth.apply(source) + random.normal(size=(30, 3)) * 0.05
    found = align_similarity(source, target)
    best = ((found.apply(source) - target) ** 2).sum()
    for _ in range(20):
        turn = rodrigues(random.normal(size=3), 0.5)
        other = Similarity(found.scale * 1.002, turn @ found.rotation, found.translation + 0.002 * random.normal(size=3))
        assert ((other.apply(source) - target) ** 2).sum() > best


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.ones((5, 3)), np.outer(np.arange(5.0), [1.0, 2.0, 3.0]), np.zeros((5, 2))])
def test_align_similarity_refuses_points_without_an_answer(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points|arrays"):
        align_similarity(points, points)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.2, 45.0, 179.0])
def test_rotation_error_is_the_angle_between(degrees: float) -> None:
    base = rodrigues(np.array([1.0, -2.0, 0.5]), 77.0)
    turned = rodrigues(np.array([0.3, 0.4, -1.0]), degrees) @ base
    assert rotation_error_deg(base, turned) == pytest.approx(degrees, abs=1e-9, rel=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 90.0, 179.999, 180.0])
def test_quaternions_and_matrices_agree_at_every_angle(degrees: float) -> None:
    for axis in (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]), np.array([1.0, -1, 2])):
        rotation = rodrigues(axis, degrees)
        quat = quat_from_rotation(rotation)
        assert quat[0] >= 0
        assert np.linalg.norm(quat) == pytest.approx(1.0)
        np.testing.assert_allclose(rotation_from_quat(quat), rotation, atol=1e-12)


def test_rotation_from_quat_takes_any_length_but_zero() -> None:
    quats = np.array([[2.0, 0, 0, 0], [0, 0, -3.0, 0]])
    np.testing.assert_allclose(rotation_from_quat(quats), [np.eye(3), np.diag([-1.0, 1.0, -1.0])], atol=1e-15)
    with pytest.raises(ValueError, match="length 0"):
        rotation_from_quat(np.zeros(4))


def test_moved_pose_sees_moved_points_where_it_saw_them() -> None:
    random = np.random.default_rng(5)
    move = random_similarity(5)
    pose = np.concatenate([rodrigues(random.normal(size=3), 30.0), random.normal(size=(3, 1))], axis=1)
    point = random.normal(size=3) + np.array([0, 0, 5.0])
    moved = move.apply_to_pose(pose)
    before = pose[:, :3] @ point + pose[:, 3]
    after = moved[:, :3] @ move.apply(point[None])[0] + moved[:, 3]
    np.testing.assert_allclose(after, move.scale * before, atol=1e-9)
