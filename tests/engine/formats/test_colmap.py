"""COLMAP's binary model: golden bytes, round trip, an independent reader, and whatever is damaged."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.formats.colmap import read_observations, read_reconstruction, write_reconstruction
from engine.geometry import rotation_from_quat
from engine.scene import Camera, Image, Points3D, Reconstruction

FILES = ("cameras.bin", "images.bin", "points3D.bin")


def small_scene() -> Reconstruction:
    random = np.random.default_rng(0)
    cameras = {
        1: Camera(1, "PINHOLE", 640, 480, (500.0, 501.0, 320.0, 240.0)),
        7: Camera(7, "OPENCV", 100, 50, tuple(float(v) for v in range(8))),
    }
    rotations = rotation_from_quat(random.normal(size=(3, 4)))
    poses = [np.concatenate([r, random.normal(size=(3, 1))], axis=1) for r in rotations]
    images = [Image(4, 1, "a.jpg", poses[0]), Image(2, 7, "b/ü.jpg", poses[1]), Image(9, 1, "c.jpg", poses[2])]
    rgb = random.integers(0, 256, (5, 3)).astype(np.uint8)
    return Reconstruction(cameras, images, Points3D(random.normal(size=(5, 3)), rgb, random.uniform(size=5), np.zeros(5, np.int64)))


def golden_files(folder: Path) -> None:
    """One camera, two images (the second with two observations), one point with a track of two, packed by hand from the documentation."""
    folder.mkdir(exist_ok=True)
    (folder / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 3, 1, 640, 480, 500, 501, 320, 240))
    first = struct.pack("<I7dI", 5, 1, 0, 0, 0, 0.5, -1, 2, 3) + b"z.jpg\0" + struct.pack("<Q", 0)
    half = 0.5**0.5
    second = struct.pack("<I7dI", 6, half, 0, half, 0, 0, 0, 0, 3) + b"a.jpg\0" + struct.pack("<Qddqddq", 2, 1.5, 2.5, 11, 3.0, 4.0, -1)
    (folder / "images.bin").write_bytes(struct.pack("<Q", 2) + first + second)
    (folder / "points3D.bin").write_bytes(struct.pack("<QQ3d3BdQ4I", 1, 11, 1, 2, 3, 10, 20, 30, 0.25, 2, 5, 0, 6, 1))


def test_read_understands_golden_bytes(tmp_path: Path) -> None:
    golden_files(tmp_path)
    scene = read_reconstruction(tmp_path)
    assert scene.cameras == {3: Camera(3, "PINHOLE", 640, 480, (500.0, 501.0, 320.0, 240.0))}
    assert [image.name for image in scene.images] == ["a.jpg", "z.jpg"]
    # A quarter turn about y maps the world's z onto the camera's x.
    np.testing.assert_allclose(scene.images[0].cam_from_world[:, :3] @ [0, 0, 1.0], [1.0, 0, 0], atol=1e-15)
    np.testing.assert_array_equal(scene.images[1].cam_from_world[:, 3], [0.5, -1.0, 2.0])
    np.testing.assert_array_equal(scene.points.xyz, [[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(scene.points.rgb, [[10, 20, 30]])
    assert (scene.points.error_px[0], scene.points.tracks[0]) == (0.25, 2)


def test_observations_are_read_where_they_belong_to_a_point(tmp_path: Path) -> None:
    golden_files(tmp_path)
    seen = read_observations(tmp_path)
    assert seen["a.jpg"].xy.tolist() == [[1.5, 2.5]]
    assert seen["a.jpg"].point.tolist() == [11]
    assert len(seen["z.jpg"].point) == 0


def test_truncated_observations_are_refused(tmp_path: Path) -> None:
    golden_files(tmp_path)
    whole = (tmp_path / "images.bin").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "images.bin").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"images\.bin"):
            read_observations(tmp_path)


def test_write_then_read_keeps_everything_but_tracks(tmp_path: Path) -> None:
    scene = small_scene()
    write_reconstruction(tmp_path / "model", scene)
    again = read_reconstruction(tmp_path / "model")
    assert again.cameras == scene.cameras
    for mine, theirs in zip(scene.images, again.images, strict=True):
        assert (mine.image_id, mine.camera_id, mine.name) == (theirs.image_id, theirs.camera_id, theirs.name)
        np.testing.assert_allclose(mine.cam_from_world, theirs.cam_from_world, atol=1e-12)
    for name in ("xyz", "rgb", "error_px", "tracks"):
        np.testing.assert_array_equal(getattr(again.points, name), getattr(scene.points, name))


def test_written_bytes_are_those_of_the_documentation(tmp_path: Path) -> None:
    pose = np.concatenate([np.eye(3), [[0.5], [-1.0], [2.0]]], axis=1)
    points = Points3D(np.array([[1.0, 2, 3]]), np.array([[10, 20, 30]], np.uint8), np.array([0.25]), np.array([2]))
    write_reconstruction(
        tmp_path, Reconstruction({3: Camera(3, "PINHOLE", 640, 480, (500.0, 501.0, 320.0, 240.0))}, [Image(5, 3, "z.jpg", pose)], points)
    )
    assert (tmp_path / "cameras.bin").read_bytes() == struct.pack("<QIiQQ4d", 1, 3, 1, 640, 480, 500, 501, 320, 240)
    image = struct.pack("<QI7dI", 1, 5, 1, 0, 0, 0, 0.5, -1, 2, 3) + b"z.jpg\0" + struct.pack("<Q", 0)
    assert (tmp_path / "images.bin").read_bytes() == image
    assert (tmp_path / "points3D.bin").read_bytes() == struct.pack("<QQ3d3BdQ", 1, 1, 1, 2, 3, 10, 20, 30, 0.25, 0)


# The wheel's own zlib breaks a process that it enters first (research/sfm.md B2), so pycolmap gets one of its own.
THEIR_READER = """
import sys, zlib, json
import PIL.Image
import pycolmap
model = pycolmap.Reconstruction(sys.argv[1])
images = {i.name: [i.cam_from_world().matrix().tolist(), i.camera.model_name] for i in model.images.values()}
print(json.dumps([model.num_points3D(), images]))
"""


def test_colmap_itself_reads_what_we_write(tmp_path: Path) -> None:
    scene = small_scene()
    write_reconstruction(tmp_path, scene)
    done = subprocess.run([sys.executable, "-c", THEIR_READER, str(tmp_path)], capture_output=True, check=True, text=True)
    n_points, images = json.loads(done.stdout)
    assert n_points == 5
    for image in scene.images:
        pose, model = images[image.name]
        np.testing.assert_allclose(pose, image.cam_from_world, atol=1e-12)
        assert model == scene.cameras[image.camera_id].model


@pytest.mark.parametrize("name", FILES)
def test_read_refuses_every_prefix_and_an_extra_byte(name: str, tmp_path: Path) -> None:
    golden_files(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for data in [*(whole[:size] for size in range(len(whole))), whole + b"\0"]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_reconstruction(tmp_path)
        assert caught.value.code == "input.colmap_invalid"
        assert name in caught.value.detail


@pytest.mark.parametrize("name", FILES)
def test_read_refuses_absurd_counts_without_allocating(name: str, tmp_path: Path) -> None:
    golden_files(tmp_path)
    (tmp_path / name).write_bytes(struct.pack("<Q", 2**62) + bytes(200))
    with pytest.raises(InputError, match="more than the file can hold"):
        read_reconstruction(tmp_path)


@pytest.mark.parametrize(
    ("name", "offset", "value", "words"),
    [
        ("cameras.bin", 12, struct.pack("<i", 99), "model 99 is unknown"),
        ("cameras.bin", 16, struct.pack("<Q", 0), "a camera of 0×480"),
        ("cameras.bin", 32, struct.pack("<d", float("nan")), "not finite"),
        ("images.bin", 12, struct.pack("<4d", 0, 0, 0, 0), "pose is not finite"),
        ("images.bin", 44, struct.pack("<d", float("inf")), "pose is not finite"),
        ("images.bin", 68, struct.pack("<I", 8), "which cameras.bin lacks"),
        ("images.bin", 72, b"\xff", "not UTF-8"),
        ("images.bin", 72, b"a", "two images have one name"),
        ("points3D.bin", 16, struct.pack("<d", float("nan")), "a point is not finite"),
        ("points3D.bin", 51, struct.pack("<Q", 2**63), "more bytes"),
    ],
)
def test_read_says_what_is_wrong(name: str, offset: int, value: bytes, words: str, tmp_path: Path) -> None:
    golden_files(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[offset : offset + len(value)] = value
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_reconstruction(tmp_path)


def test_read_names_the_missing_file(tmp_path: Path) -> None:
    golden_files(tmp_path)
    (tmp_path / "images.bin").unlink()
    with pytest.raises(InputError, match=r"images\.bin is missing") as caught:
        read_reconstruction(tmp_path)
    assert caught.value.code == "input.colmap_missing"
