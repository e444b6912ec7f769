"""Poses that came with the photos, masks and cut-outs through the poses stage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import Image

from engine.events import Event, Warned
from engine.formats.colmap import read_observations, read_reconstruction
from engine.geometry import Array
from engine.scene import Camera, PinholeView, Points3D, Reconstruction
from engine.scene import Image as Posed
from engine.sfm import given
from engine.sfm.context import Photo
from engine.sfm.masks import write_feature_masks
from engine.workspace import Workspace
from tests.data.cameras import Walk
from tests.data.make_data import Truth, make_capture
from tests.engine.sfm.test_poses import reconstruct

HIDDEN = 120  # columns at the left that masks hide


def write_transforms(path: Path, views: dict[str, PinholeView]) -> None:
    """Write true views as Nerfstudio would."""
    frames = []
    for name, view in views.items():
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = view.cam_from_world[:, :3].T @ np.diag([1.0, -1.0, -1.0])
        world_from_cam[:3, 3] = -view.cam_from_world[:, :3].T @ view.cam_from_world[:, 3]
        lens = {"fl_x": view.fx, "fl_y": view.fy, "cx": view.cx, "cy": view.cy, "w": view.width, "h": view.height}
        frames.append({"file_path": f"photos/{name}", "transform_matrix": world_from_cam.tolist(), **lens})
    path.write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}))


class Capture:
    """Six photos of the made-up plaza with their true poses beside them; the first two have a mask."""

    def __init__(self, folder: Path) -> None:
        self.truth: Truth = make_capture(folder / "photos", Walk(6, 400, 300))
        write_transforms(folder / "transforms.json", self.truth.views)
        (folder / "masks").mkdir()
        for name in sorted(self.truth.views)[:2]:
            view = self.truth.views[name]
            levels = np.full((view.height, view.width), 255, np.uint8)
            levels[:, :HIDDEN] = 0
            Image.fromarray(levels).save(folder / "masks" / f"{name}.png")
        self.workspace = Workspace.at(folder / "work", folder / "photos")
        self.events = reconstruct(self.workspace.root, self.workspace.photos)
        self.stats: dict[str, Any] = self.events[-1].get("stats", {})


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return Capture(tmp_path_factory.mktemp("given"))


def test_given_poses_come_back_untouched_in_their_own_frame(capture: Capture) -> None:
    assert capture.stats["source"] == "given"
    assert capture.stats["similarity"] == {"scale": 1.0, "rotation": np.eye(3).tolist(), "translation": [0.0, 0.0, 0.0]}
    model = read_reconstruction(capture.workspace.undistorted / "sparse")
    names = {record["name"]: record["source_name"] for record in json.loads(capture.workspace.images_index.read_text())}
    assert len(model.images) == 6
    for image in model.images:
        truth = capture.truth.views[names[image.name]]
        assert image.cam_from_world == pytest.approx(truth.cam_from_world, abs=1e-9)
        camera = model.cameras[image.camera_id]
        assert (camera.width, camera.height) == (truth.width, truth.height)
        assert camera.params == pytest.approx((truth.fx, truth.fy, truth.cx, truth.cy))


def test_points_are_triangulated_where_the_given_cameras_saw_them(capture: Capture) -> None:
    model = read_reconstruction(capture.workspace.sparse)
    assert capture.stats["points"] == "triangulated"
    assert len(model.points.xyz) > given.LEAST_POINTS
    assert np.median(model.points.error_px) < 1.0
    assert capture.stats["n_scattered"] == 0


def test_nothing_is_seen_through_a_mask_and_masks_reach_the_trainer(capture: Capture) -> None:
    masks = sorted((capture.workspace.undistorted / "masks").iterdir())
    assert len(masks) == 2
    seen = read_observations(capture.workspace.sparse)
    for path in masks:
        levels = np.asarray(Image.open(path))
        with Image.open(capture.workspace.undistorted / "images" / path.stem) as photo:
            assert levels.shape == (photo.height, photo.width)
        assert (levels[:, :HIDDEN] == 0).all()
        assert (levels[:, HIDDEN:] == 255).all()
        places = seen[path.stem].xy
        assert len(places) > 20
        assert (places[:, 0] >= HIDDEN - 1).all()


def ring(n: int = 6, radius: float = 4.0, centre: Array | None = None) -> given.Posed:
    """Cameras in a circle that look at its middle."""
    middle = np.zeros(3) if centre is None else centre
    images = []
    for index in range(n):
        angle = 2 * np.pi * index / n
        eye = middle + radius * np.array([np.sin(angle), 0.0, -np.cos(angle)])
        ahead = (middle - eye) / radius
        rotation = np.stack([np.cross([0.0, 1.0, 0.0], ahead), [0.0, 1.0, 0.0], ahead])
        images.append(Posed(index + 1, 1, f"{index}.jpg", np.concatenate([rotation, -(rotation @ eye)[:, None]], axis=1)))
    camera = Camera(1, "PINHOLE", 400, 300, (400.0, 400.0, 200.0, 150.0))
    none = Points3D(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), np.zeros(0, np.int64))
    cameras = {image.name: given.camera_at(camera, 200, 150) for image in images}
    return given.Posed(Reconstruction({1: camera}, images, none), cameras)


def test_scattered_points_fill_what_the_cameras_see_together() -> None:
    posed, events = ring(), list[Event]()
    model = given.with_given_points(posed)
    assert given.scatter(model, posed, 0, events.append) == given.SCATTERED
    points = np.array([point.xyz for point in model.points3D.values()])
    # The middle of the circle, within the 37° by 53° that every camera sees: no further out than half the radius.
    assert np.linalg.norm(points, axis=1).max() < 2.6
    assert np.linalg.norm(points.std(axis=0)) > 0.5
    assert [event.code for event in events if isinstance(event, Warned)] == ["capture.few_points"]


def test_a_frame_that_files_can_hold_is_kept_and_another_is_moved() -> None:
    def frame(posed: given.Posed) -> tuple[Any, list[Event]]:
        events: list[Event] = []
        model = given.with_given_points(posed)
        model.add_point3D(posed.model.images[0].centre_in_world * 0.0, pycolmap.Track(), np.zeros(3, np.uint8))
        return given.kept_frame(model, events.append), events

    similarity, events = frame(ring())
    assert (similarity.scale, similarity.rotation.tolist(), similarity.translation.tolist()) == (1.0, np.eye(3).tolist(), [0, 0, 0])
    assert not events
    similarity, events = frame(ring(radius=1e4))
    assert similarity.scale == pytest.approx(2.0 / 1e4)
    assert [event.code for event in events if isinstance(event, Warned)] == ["capture.frame_moved"]


def test_a_camera_is_brought_to_the_size_of_the_photo() -> None:
    camera = given.camera_at(Camera(1, "OPENCV", 800, 600, (800.0, 810.0, 400.0, 300.0, 0.1, 0.0, 0.0, 0.0)), 400, 300)
    assert list(camera.params) == pytest.approx([400.0, 405.0, 200.0, 150.0, 0.1, 0.0, 0.0, 0.0])


def test_features_stay_within_a_cut_out_and_out_of_its_mask(tmp_path: Path) -> None:
    masks, alpha = tmp_path / "masks", tmp_path / "alpha"
    for folder in (masks, alpha):
        folder.mkdir()
    cover = np.zeros((100, 100), np.uint8)
    cover[20:80, 20:80] = 255
    Image.fromarray(cover).save(alpha / "a.png.png")
    hidden = np.full((100, 100), 255, np.uint8)
    hidden[:, :50] = 0
    Image.fromarray(hidden).save(masks / "a.png.png")
    photos = [Photo(name, name, 100, 100, None, 1, None) for name in ("a.png", "b.jpg")]
    written = write_feature_masks(photos, masks, alpha, tmp_path / "out")
    assert written is not None
    # COLMAP leaves photos out that lack a mask where others have one.
    assert (np.asarray(Image.open(written / "b.jpg.png")) == 255).all()
    allowed = np.asarray(Image.open(written / "a.png.png")) > 0
    expected = np.zeros((100, 100), bool)
    expected[20:80, 50:80] = True
    assert (allowed == expected).all()
    assert write_feature_masks(photos[1:], masks, alpha, tmp_path / "none") is None
