import numpy as np
import pytest

from bench.poses import compare_poses, poses_of
from engine.geometry import Similarity, rotation_from_quat
from tests.data.cameras import Walk, walk

TRUE = {shot.name: shot.view.cam_from_world for shot in walk(Walk(12))}
MOVE = Similarity(0.37, rotation_from_quat(np.asarray((0.3, -0.5, 0.7, 0.2))), np.asarray((4.0, -2.0, 9.0)))


def moved() -> dict[str, np.ndarray]:
    return {name: MOVE.apply_to_pose(pose) for name, pose in TRUE.items()}


def test_poses_in_another_world_have_no_error():
    errors = compare_poses(moved(), TRUE)
    assert errors.n_compared == 12
    assert errors.rotation_max_deg < 1e-6
    assert errors.position_max_m < 1e-6


def test_names_are_compared_without_extension_and_strangers_left_out():
    ours = {name.replace(".jpg", ".png"): pose for name, pose in moved().items()}
    ours["stranger.png"] = ours["IMG_0001.png"]
    assert compare_poses(ours, TRUE).n_compared == 12


def test_one_turned_camera_shows_in_the_largest_error_only():
    ours = moved()
    turn = rotation_from_quat(np.asarray((np.cos(np.radians(2.5)), np.sin(np.radians(2.5)), 0.0, 0.0)))
    ours["IMG_0005.jpg"] = turn @ ours["IMG_0005.jpg"]
    errors = compare_poses(ours, TRUE)
    assert errors.rotation_max_deg == pytest.approx(5.0, abs=1e-6)
    assert errors.rotation_median_deg < 1e-6
    assert errors.position_max_m < 1e-6


def test_mirrored_poses_are_far_off():
    flip = np.diag((1.0, 1.0, -1.0))
    ours = {name: np.concatenate([flip @ pose[:, :3] @ flip, (flip @ pose[:, 3])[:, None]], axis=1) for name, pose in TRUE.items()}
    assert compare_poses(ours, TRUE).rotation_median_deg > 10


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_shared_photos_are_refused(n):
    with pytest.raises(ValueError, match="expected"):
        compare_poses(dict(list(moved().items())[:n]), TRUE)


def test_poses_are_read_from_cameras_json():
    name, pose = next(iter(TRUE.items()))
    assert np.array_equal(poses_of([{"name": name, "cam_from_world": pose.tolist()}])[name], pose)
