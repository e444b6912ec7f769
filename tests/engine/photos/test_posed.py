"""Poses that come with the photos: found, matched by name, kept with the photos they belong to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from engine.errors import InputError
from engine.events import Event, Warned
from engine.formats.colmap import read_reconstruction, write_reconstruction
from engine.options import PosesOptions, RunOptions
from engine.photos import ingest
from engine.scene import Camera, Points3D, Reconstruction
from engine.scene import Image as Posed
from engine.workspace import Workspace
from tests.engine.photos.draw import jpeg_bytes, texture, write_photos


class Run:
    """One run of the stage and what came of it."""

    def __init__(self, folder: Path, photos: str = "photos", source: str = "auto") -> None:
        self.workspace = Workspace.at(folder / "work", folder / photos)
        self.events: list[Event] = []
        options = RunOptions(poses=PosesOptions(source=source), threads=2)
        self.stats = ingest.run(self.workspace, options, self.events.append)
        self.records = {record["source_name"]: record for record in json.loads(self.workspace.images_index.read_text())}

    def given(self) -> Reconstruction:
        return read_reconstruction(self.workspace.given)

    def warned(self, code: str) -> str:
        return " ".join(event.detail for event in self.events if isinstance(event, Warned) and event.code == code)


def write_transforms(path: Path, names: list[str], **shared: Any) -> None:
    """Poses at x = 0, 1, 2, … in the order of ``names``."""
    frames = []
    for x, name in enumerate(names):
        pose = np.eye(4)
        pose[0, 3] = x
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    path.write_text(json.dumps({"camera_angle_x": 0.7, **shared, "frames": frames}))


def centres(run: Run) -> dict[str, float]:
    return {image.name: round(float(image.centre_in_world[0]), 6) for image in run.given().images}


@pytest.mark.parametrize("form", ["./images/IMG_{}.jpg", "images/IMG_{}", "IMG_{}", "elsewhere/img_{}.PNG", "IMG_{}.jpg"])
def test_poses_find_their_photos_by_any_usual_name(form: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "capture" / "images", 3)
    write_transforms(tmp_path / "capture" / "transforms.json", [form.format(n) for n in range(3)])
    for photos in ("capture", "capture/images"):
        run = Run(tmp_path, photos)
        assert run.stats["poses"] == "transforms.json"
        assert [centres(run)[record["name"]] for record in run.records.values()] == [0.0, 1.0, 2.0]
        assert run.given().cameras[1].model == "PINHOLE"


def test_photos_without_pose_and_poses_without_photo_are_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 4)
    write_transforms(tmp_path / "photos" / "transforms.json", ["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg", "ghost.jpg"])
    run = Run(tmp_path)
    assert run.records["IMG_3.jpg"]["reason"] == "photo.no_pose"
    assert "IMG_3.jpg" in run.warned("photo.no_pose")
    assert "ghost.jpg" in run.warned("capture.pose_without_photo")
    assert len(run.given().images) == 3


def test_poses_of_other_photos_and_missing_poses_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    with pytest.raises(InputError) as missing:
        Run(tmp_path, source="given")
    assert missing.value.code == "input.no_poses"
    write_transforms(tmp_path / "photos" / "transforms.json", ["a.jpg", "b.jpg"])
    with pytest.raises(InputError) as unmatched:
        Run(tmp_path)
    assert unmatched.value.code == "input.poses_unmatched"
    assert not Run(tmp_path, source="estimate").workspace.given.exists()


def test_a_damaged_file_stops_the_job_unless_poses_are_to_be_estimated(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    (tmp_path / "photos" / "transforms.json").write_text("{")
    with pytest.raises(InputError, match=r"transforms\.json"):
        Run(tmp_path)
    assert Run(tmp_path, source="estimate").stats["n_photos"] == 3


def colmap_model(names: list[str], focal: float = 500.0) -> Reconstruction:
    images = [
        Posed(n + 1, 1, name, np.concatenate([np.eye(3), np.array([[-float(n)], [0.0], [0.0]])], axis=1)) for n, name in enumerate(names)
    ]
    points = Points3D(np.ones((5, 3)), np.zeros((5, 3), np.uint8), np.ones(5), np.zeros(5, np.int64))
    return Reconstruction({1: Camera(1, "OPENCV", 800, 600, (focal, focal, 400.0, 300.0, 0.1, 0.0, 0.0, 0.0))}, images, points)


@pytest.mark.parametrize("folder", ["capture/sparse/0", "capture/sparse"])
def test_a_colmap_model_brings_cameras_of_its_own_size_and_points(folder: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "capture" / "images", 3)
    write_reconstruction(tmp_path / folder, colmap_model(["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"]))
    run = Run(tmp_path, "capture")
    assert run.stats["n_files"] == 3
    assert centres(run) == {"images-IMG_0.jpg": 0.0, "images-IMG_1.jpg": 1.0, "images-IMG_2.jpg": 2.0}
    assert run.given().cameras[1].width == 800
    assert len(run.given().points.xyz) == 5


def test_cameras_without_sense_and_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    write_reconstruction(tmp_path / "photos" / "sparse", colmap_model(["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"], focal=1e-6))
    with pytest.raises(InputError) as caught:
        Run(tmp_path)
    assert caught.value.code == "input.bad_poses"
    far = colmap_model(["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"])
    far.points.xyz[0, 0] = 1e30
    write_reconstruction(tmp_path / "photos" / "sparse", far)
    with pytest.raises(InputError, match="has a point"):
        Run(tmp_path)
    (tmp_path / "photos" / "IMG_9.jpg").write_bytes(jpeg_bytes(texture(9, 400, 400)))
    write_reconstruction(tmp_path / "photos" / "sparse", colmap_model(["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg", "IMG_9.jpg"]))
    assert Run(tmp_path).records["IMG_9.jpg"]["reason"] == "photo.pose_size"


@pytest.mark.parametrize(("size", "upright"), [({}, False), ({"w": 400, "h": 304}, False), ({"w": 304, "h": 400}, True)])
def test_a_posed_photo_is_turned_only_if_its_pose_is_of_the_upright_photo(size: dict[str, int], upright: bool, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "photos" / "IMG_3.jpg").write_bytes(jpeg_bytes(texture(3, 400, 304), exif=exif))
    names = [f"IMG_{n}.jpg" for n in range(4)]
    write_transforms(tmp_path / "photos" / "transforms.json", names, **size)
    run = Run(tmp_path) if not size else None
    if run is None:
        # The others have another shape than the pose speaks of: only the turned one counts here.
        for n in range(3):
            (tmp_path / "photos" / f"IMG_{n}.jpg").write_bytes(jpeg_bytes(texture(n, size["w"], size["h"])))
        run = Run(tmp_path)
    record = run.records["IMG_3.jpg"]
    assert record["accepted"]
    assert (record["width"], record["height"]) == ((304, 400) if upright else (400, 304))
