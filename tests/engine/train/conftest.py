"""A small posed scene: true cameras and rough points, so that training is tested without structure from motion."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps

from engine.formats.colmap import write_reconstruction
from engine.scene import Camera, Image, Points3D, Reconstruction
from engine.workspace import Workspace
from tests.data.cameras import Walk
from tests.data.make_data import Truth, make_capture

N_POINTS = 1500


@pytest.fixture(scope="session")
def posed_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images/ and sparse/ as the poses stage leaves them in ``undistorted``."""
    root = tmp_path_factory.mktemp("posed")
    return posed_folder(root, Walk(n_photos=14, width=160, height=120, step_deg=6.0))


def posed_folder(root: Path, walk: Walk) -> Path:
    """Fill ``root`` with a capture, photos upright and true poses, and return it."""
    truth = make_capture(root / "photos", walk)
    (root / "images").mkdir()
    for name in truth.views:
        with PillowImage.open(root / "photos" / name) as opened:
            ImageOps.exif_transpose(opened).save(root / "images" / f"{Path(name).stem}.png")
    write_reconstruction(root / "sparse", reconstruction_of(truth))
    return root


def reconstruction_of(truth: Truth) -> Reconstruction:
    cameras, images = {}, []
    for index, (name, view) in enumerate(sorted(truth.views.items()), start=1):
        cameras[index] = Camera(index, "PINHOLE", view.width, view.height, (view.fx, view.fy, view.cx, view.cy))
        images.append(Image(index, index, f"{Path(name).stem}.png", view.cam_from_world))
    centres = np.stack([image.centre_in_world for image in images])
    rng = np.random.default_rng(0)
    xyz = centres.mean(axis=0) + rng.normal(size=(N_POINTS, 3)) * 0.4 * np.ptp(centres, axis=0).max()
    rgb = rng.integers(60, 200, (N_POINTS, 3), dtype=np.uint8)
    return Reconstruction(cameras, images, Points3D(xyz, rgb, np.ones(N_POINTS), np.full(N_POINTS, 3)))


@pytest.fixture
def posed_workspace(posed_scene: Path, tmp_path: Path) -> Workspace:
    """Return a workspace that is ready to train."""
    workspace = Workspace.at(tmp_path / "work")
    shutil.copytree(posed_scene / "images", workspace.undistorted / "images")
    shutil.copytree(posed_scene / "sparse", workspace.undistorted / "sparse")
    return workspace
