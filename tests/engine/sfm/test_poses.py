"""Ingest and poses on small captures, each stage in a process of its own as in real life."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.formats.colmap import read_reconstruction
from engine.geometry import align_similarity, rotation_error_deg
from engine.scene import Reconstruction
from engine.workspace import Workspace
from tests.data.cameras import Walk
from tests.data.make_data import Truth, make_capture

ENOUGH = "poses.target_registered=0.6"
ROOT = Path(__file__).parents[3]


def run_stage(stage: str, workspace: Path, photos: Path, *settings: str) -> list[dict[str, Any]]:
    """Run one stage as the worker does; return its events."""
    options = [each for setting in settings for each in ("--set", setting)]
    command = [sys.executable, "-m", "engine", "stage", stage, str(workspace), "--photos", str(photos), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events, done.stderr
    assert events[-1]["type"] in ("stage_done", "error"), done.stderr
    return events


def reconstruct(workspace: Path, photos: Path, *settings: str) -> list[dict[str, Any]]:
    """Run both stages; return the events of the second."""
    assert run_stage("ingest", workspace, photos)[-1]["type"] == "stage_done"
    return run_stage("poses", workspace, photos, *settings)


class Capture:
    """Eight photos of one made-up plaza, four of another, and what became of them."""

    def __init__(self, folder: Path) -> None:
        self.photos = folder / "photos"
        # One sideways step more than the default keeps it quick; the seventh photo is upright-format, so there are two cameras.
        # Photos of 400 px leave the turn about the chord of so short an arc to chance: 0.04° to 0.36° over ten seeds, whichever features.
        self.truth: Truth = make_capture(self.photos, Walk(8, 480, 360))
        make_capture(folder / "other", Walk(4, 400, 300, seed=3))
        for path in (folder / "other").iterdir():
            path.rename(self.photos / f"other_{path.name}")
        self.workspace = Workspace.at(folder / "work", self.photos)
        # Two thirds are enough here: the fallbacks have their own test, and cost most of the time.
        self.events = reconstruct(self.workspace.root, self.photos, ENOUGH)
        self.stats: dict[str, Any] = self.events[-1].get("stats", {})


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return Capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def model(capture: Capture) -> Reconstruction:
    return read_reconstruction(capture.workspace.undistorted / "sparse")


def test_one_scene_is_placed_whole_and_the_other_named(capture: Capture) -> None:
    assert capture.stats["registered"] == [f"IMG_{number:04}.jpg" for number in range(1, 9)]
    assert capture.stats["n_photos"] == 12
    warned = [event for event in capture.events if event["type"] == "warning"]
    left_out = {event["data"]["photo"] for event in warned if event["code"] == "photo.not_registered"}
    assert left_out == {f"other_IMG_{number:04}.jpg" for number in range(1, 5)}
    assert set(capture.stats["unregistered"]) == left_out


def test_poses_agree_with_the_truth(capture: Capture, model: Reconstruction) -> None:
    truth = [capture.truth.views[image.name].cam_from_world for image in model.images]
    mine = [image.cam_from_world for image in model.images]
    centres = np.array([-pose[:, :3].T @ pose[:, 3] for pose in truth])
    similarity = align_similarity(np.array([image.centre_in_world for image in model.images]), centres)
    moved = np.stack([similarity.apply_to_pose(pose) for pose in mine])
    assert np.median(rotation_error_deg(moved[:, :, :3], np.stack(truth)[:, :, :3])) < 0.2
    distances = np.linalg.norm(-np.einsum("mji,mj->mi", moved[:, :, :3], moved[:, :, 3]) - centres, axis=1)
    assert distances.max() < 0.02  # metres; the cameras stand 4 m from the middle


def test_the_frame_is_upright_centred_and_of_common_size(capture: Capture, model: Reconstruction) -> None:
    truth = capture.truth.views[model.images[0].name].cam_from_world[:, :3]
    # The plaza's z points up; in the shared frame y points down.
    down = model.images[0].cam_from_world[:, :3].T @ truth @ np.array([0, 0, -1.0])
    assert down[1] > np.cos(np.radians(8))
    np.testing.assert_allclose(np.median(model.points.xyz, axis=0), 0, atol=0.2)
    centres = np.array([image.centre_in_world for image in model.images])
    assert 1.0 < np.median(np.linalg.norm(centres, axis=1)) < 4.0


def test_trainer_gets_pinhole_photos_of_the_stated_size(capture: Capture, model: Reconstruction) -> None:
    assert {camera.model for camera in model.cameras.values()} == {"PINHOLE"}
    for image in model.images:
        camera = model.cameras[image.camera_id]
        with Image.open(capture.workspace.undistorted / "images" / image.name) as photo:
            assert photo.size == (camera.width, camera.height)
        view = capture.truth.views[image.name]
        assert (camera.width < camera.height) == (view.width < view.height)
        assert camera.params[0] == pytest.approx(view.fx, rel=0.02)
    assert sorted(path.name for path in capture.workspace.undistorted.iterdir()) == ["alpha", "images", "masks", "sparse"]
    assert not any(True for layer in ("alpha", "masks") for _ in (capture.workspace.undistorted / layer).iterdir())
    assert len(list((capture.workspace.undistorted / "images").iterdir())) == 8
    assert model.points.tracks.min() >= 2
    assert len(model.points.xyz) == capture.stats["n_points"] > 300


def test_sparse_model_has_the_same_poses_as_the_undistorted(capture: Capture, model: Reconstruction) -> None:
    sparse = read_reconstruction(capture.workspace.sparse)
    assert {camera.model for camera in sparse.cameras.values()} == {"SIMPLE_RADIAL"}
    for first, second in zip(sparse.images, model.images, strict=True):
        assert first.name == second.name
        np.testing.assert_allclose(first.cam_from_world, second.cam_from_world, atol=1e-9)


def test_progress_only_grows_and_nothing_is_left_behind(capture: Capture) -> None:
    fractions = [event["fraction"] for event in capture.events if event["type"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert [path.name for path in capture.workspace.root.iterdir() if path.name.startswith(".")] == [".lock"]


def test_the_same_photos_give_the_same_bytes_on_any_number_of_threads(capture: Capture, tmp_path: Path) -> None:
    again = Workspace.at(tmp_path / "work", capture.photos)
    reconstruct(again.root, capture.photos, ENOUGH, "threads=1")
    for folder in ("sparse", "undistorted/sparse", "undistorted/images"):
        files = sorted((capture.workspace.root / folder).iterdir())
        assert files
        for path in files:
            assert path.read_bytes() == (again.root / folder / path.name).read_bytes(), path.name


def noise(seed: int, width: int, height: int) -> Image.Image:
    """Detail of all sizes, so that features are found at every scale."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for step in (2, 4, 8, 16, 32):
        grid = random.normal(0, 12, (height // step + 1, width // step + 1, 3)).clip(-127, 127) + 128
        layer = Image.fromarray(grid.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer, float) - 128
    return Image.fromarray((total * 1.5 + 128).clip(0, 255).astype(np.uint8))


def test_turning_on_the_spot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    wall, focal = noise(0, 1800, 900), 300.0
    inner = np.array([[focal, 0, 180], [0, focal, 135], [0, 0, 1.0]])
    outer = np.array([[focal, 0, 900], [0, focal, 450], [0, 0, 1.0]])
    for number, (yaw, pitch) in enumerate(zip(np.radians(np.linspace(-20, 20, 5)), np.radians([0, 4, -3, 2, -4]), strict=True)):
        about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        mapping = outer @ about_y @ about_x @ np.linalg.inv(inner)
        photo = wall.transform(
            (480, 360), Image.Transform.PERSPECTIVE, (mapping / mapping[2, 2]).ravel()[:8].tolist(), Image.Resampling.BICUBIC
        )
        photo.save(tmp_path / "photos" / f"{number}.png")
    error = reconstruct(tmp_path / "work", tmp_path / "photos")[-1]["error"]
    assert error["code"] == "capture.pure_rotation"
    assert "Step sideways" in error["hint"]


def test_photos_of_different_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        noise(seed, 320, 240).save(tmp_path / "photos" / f"{seed}.png")
    last = reconstruct(tmp_path / "work", tmp_path / "photos")[-1]
    assert last["error"]["code"] == "capture.no_overlap"
    assert not (tmp_path / "work" / "sparse").exists()
