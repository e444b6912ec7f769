"""transforms.json in the conventions of three programs, and as attackers write it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.formats.transforms import Frame, read_transforms

ANGLE = 0.7


def matrix(position: tuple[float, float, float] = (0.0, 0.0, 4.0)) -> list[list[float]]:
    """An OpenGL camera that looks along -z."""
    return [[1.0, 0.0, 0.0, position[0]], [0.0, 1.0, 0.0, position[1]], [0.0, 0.0, 1.0, position[2]], [0.0, 0.0, 0.0, 1.0]]


def document(**changes: Any) -> dict[str, Any]:
    return {"camera_angle_x": ANGLE, "frames": [{"file_path": "./train/r_0", "transform_matrix": matrix()}], **changes}


def read(tmp_path: Path, values: Any) -> list[Frame]:
    path = tmp_path / "transforms.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return read_transforms(path)


def refusal(tmp_path: Path, values: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, values)
    assert caught.value.code == "input.bad_poses"
    return caught.value.detail


def test_a_nerf_camera_sees_what_lies_before_it(tmp_path: Path) -> None:
    frame = read(tmp_path, document())[0]
    assert frame.path == "train/r_0"
    # A point at the origin lies 4 units ahead; one above it (+y) appears above, which is -y in OpenCV axes.
    assert frame.cam_from_world @ np.array([0.0, 0.0, 0.0, 1.0]) == pytest.approx([0.0, 0.0, 4.0])
    assert frame.cam_from_world @ np.array([0.5, 1.0, 0.0, 1.0]) == pytest.approx([0.5, -1.0, 4.0])
    camera = frame.lens.camera(7, (400, 300))
    assert (camera.camera_id, camera.model, camera.width, camera.height) == (7, "PINHOLE", 400, 300)
    focal = 200 / math.tan(ANGLE / 2)
    assert camera.params == pytest.approx((focal, focal, 200.0, 150.0))


def test_nerfstudio_intrinsics_may_be_of_each_frame_with_distortion(tmp_path: Path) -> None:
    own = {"file_path": "images/b.jpg", "transform_matrix": matrix(), "fl_x": 500.0, "fl_y": 510.0, "k1": 0.0}
    shared = {"fl_x": 400, "fl_y": 401, "cx": 300, "cy": 200, "w": 640, "h": 480, "k1": -0.1, "k2": 0.01, "p1": 1e-3, "p2": -1e-3}
    values = {**shared, "camera_model": "OPENCV", "frames": [document()["frames"][0], own]}
    first, second = (frame.lens.camera(1, (1, 1)) for frame in read(tmp_path, values))
    assert (first.model, first.width, first.height) == ("OPENCV", 640, 480)
    assert first.params == (400, 401, 300, 200, -0.1, 0.01, 1e-3, -1e-3)
    assert second.params == (500, 510, 300, 200, 0.0, 0.01, 1e-3, -1e-3)


def test_fisheye_and_third_radial_terms_get_their_models(tmp_path: Path) -> None:
    fisheye = read(tmp_path, document(camera_model="OPENCV_FISHEYE", k1=0.1, k3=0.2, k4=0.3))[0].lens.camera(1, (400, 300))
    assert (fisheye.model, fisheye.params[4:]) == ("OPENCV_FISHEYE", (0.1, 0.0, 0.2, 0.3))
    full = read(tmp_path, document(k1=0.1, k3=0.2))[0].lens.camera(1, (400, 300))
    assert (full.model, full.params[4:]) == ("FULL_OPENCV", (0.1, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"transform_matrix": [[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "no rotation"),
        ({"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]}, "mirror image"),
        ({"transform_matrix": matrix((1e30, 0, 0))}, "position"),
        ({"transform_matrix": [[1e308, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "no rotation"),
        ({"transform_matrix": [[10**400, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "finite number"),
        ({"transform_matrix": [["1", 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "finite number"),
        ({"transform_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "not 4×4"),
        ({"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]}, "last row"),
        ({"transform_matrix": None}, "not 4×4"),
        ({"file_path": "../../etc/passwd"}, "leads out"),
        ({"file_path": "images/../../secret.jpg"}, "leads out"),
        ({"file_path": "/etc/passwd"}, "leads out"),
        ({"file_path": "C:\\photos\\a.jpg"}, "leads out"),
        ({"file_path": "..\\a.jpg"}, "leads out"),
        ({"file_path": "a\x00b"}, "no file name"),
        ({"file_path": "./."}, "no file name"),
        ({"file_path": "a" * 5000}, "no file name"),
        ({"file_path": 7}, "no file_path"),
        ({"fl_x": -5.0}, "fl_x"),
        ({"fl_x": 1e300}, "fl_x"),
        ({"w": 0}, "w is 0"),
        ({"cx": 1e9}, "cx"),
        ({"k1": 1e9}, "distortion"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model"),
        ({"camera_angle_x": 4.0}, "camera_angle_x"),
    ],
)
def test_hostile_frames_are_refused_by_name(frame: dict[str, Any], words: str, tmp_path: Path) -> None:
    values = document()
    values["frames"][0].update(frame)
    detail = refusal(tmp_path, values)
    assert words in detail
    assert "r_0" in detail or "frame 0" in detail


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(word: str, tmp_path: Path) -> None:
    refusal(tmp_path, json.dumps(document()).replace("4.0", word))


@pytest.mark.parametrize(
    "values",
    ["", "[]", "{}", '{"frames": []}', '{"frames": 5}', '{"frames": [5]}', '{"frames": [{}]}', "[" * 100_000, "\xff", "9" * 10_000],
)
def test_files_that_are_no_list_of_poses_are_refused(values: str, tmp_path: Path) -> None:
    refusal(tmp_path, values)


def test_no_prefix_of_a_file_is_taken(tmp_path: Path) -> None:
    whole = json.dumps(document())
    for size in range(0, len(whole), 7):
        refusal(tmp_path, whole[:size])


def test_a_million_frames_and_doubled_frames_are_refused(tmp_path: Path) -> None:
    frame = document()["frames"][0]
    assert "two poses" in refusal(tmp_path, document(frames=[frame, frame]))
    assert "frames" in refusal(tmp_path, '{"frames": [' + ",".join(["0"] * 1_000_000) + "]}")


def test_a_camera_without_focal_length_is_refused(tmp_path: Path) -> None:
    assert "neither" in refusal(tmp_path, {"frames": document()["frames"]})
