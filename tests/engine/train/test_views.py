"""What the trainer is given of masked photos and cut-outs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.formats.colmap import write_reconstruction
from engine.options import TrainOptions
from engine.scene import Camera, Points3D, Reconstruction
from engine.scene import Image as Posed
from engine.train.evaluate import evaluate, fitted_mse
from engine.train.views import PhotoCache, load_mask, load_split
from kernels.step import Device

WIDTH, HEIGHT = 64, 48


@pytest.fixture
def undistorted(tmp_path: Path) -> Path:
    """Three photos: a whole one, one with its left half hidden, one cut out (over black)."""
    for folder in ("images", "masks", "alpha"):
        (tmp_path / folder).mkdir()
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "images" / "a.png")
    hidden = grey.copy()
    hidden[:, : WIDTH // 2 + 1] = (255, 0, 0)
    Image.fromarray(hidden).save(tmp_path / "images" / "b.png")
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, : WIDTH // 2 + 1] = 0
    Image.fromarray(mask).save(tmp_path / "masks" / "b.png.png")
    cover = np.zeros((HEIGHT, WIDTH), np.uint8)
    cover[8:40, 8:40] = 255
    Image.fromarray(np.where(cover[..., None] > 0, grey, 0).astype(np.uint8)).save(tmp_path / "images" / "c.png")
    Image.fromarray(cover).save(tmp_path / "alpha" / "c.png.png")
    pose = np.concatenate([np.eye(3), np.zeros((3, 1))], axis=1)
    images = [Posed(number, 1, f"{name}.png", pose) for number, name in enumerate("abc", start=1)]
    points = Points3D(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), np.zeros(0, np.int64))
    camera = Camera(1, "PINHOLE", WIDTH, HEIGHT, (50.0, 50.0, WIDTH / 2, HEIGHT / 2))
    write_reconstruction(tmp_path / "sparse", Reconstruction({1: camera}, images, points))
    return tmp_path


def test_masks_and_alpha_come_with_the_photos_they_belong_to(undistorted: Path) -> None:
    split, _ = load_split(undistorted, 640, 0)
    cache = PhotoCache(split.train)
    masks, alphas = [cache.mask(index, 0) for index in range(3)], [cache.alpha(index, 0) for index in range(3)]
    assert [each is None for each in masks] == [True, False, True]
    assert [each is None for each in alphas] == [True, True, False]
    assert masks[1] is not None
    assert alphas[2] is not None
    assert set(masks[1].flatten().tolist()) == {0, 1}
    assert int(masks[1].sum()) == HEIGHT * (WIDTH // 2 - 1)
    assert int((alphas[2] == 255).sum()) == 32 * 32
    assert masks[1] is cache.mask(1, 0)
    assert cache.pixels(1, 0) is not cache.pixels(1, 1)


def test_no_pixel_that_mixes_hidden_ones_in_is_compared_at_any_level(undistorted: Path) -> None:
    split, _ = load_split(undistorted, 640, 0)
    for level in (1, 2):
        mask = load_mask(split.train[1], level)
        # The hidden part ends in the middle of a pixel of each level: that pixel is out.
        assert mask[:, : (WIDTH // 2 >> level) + 1].sum() == 0
        assert mask[:, (WIDTH // 2 >> level) + 1 :].all()


def test_what_a_mask_hides_is_not_measured(undistorted: Path) -> None:
    split, _ = load_split(undistorted, 640, 0)
    device = Device(n_threads=1)
    black = torch.zeros((1, 64))
    black[0, 2], black[0, 6], black[0, 10] = -5.0, 1.0, -10.0  # behind the camera, so the picture is black
    whole, masked, _ = evaluate(device, black, split.train, TrainOptions(sh_degree=0), None)
    # Grey 128 against black, with and without the red half: the same error where both are grey.
    assert masked["psnr_db"] == pytest.approx(whole["psnr_db"], abs=0.01)
    # One grey explains all of what is left, but not grey and red together.
    mask = load_mask(split.train[1])
    pixels = PhotoCache(split.train).pixels(1, 0)
    image = torch.rand((3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0))
    assert fitted_mse(image, pixels, mask) < 1e-6
    assert fitted_mse(image, pixels) > 1e-2
    assert fitted_mse(image, pixels, torch.zeros_like(mask)) == 0.0
