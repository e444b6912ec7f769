"""What is found in a photo."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.sfm.context import Context, Deadline, Photo
from engine.sfm.features import Features, rooted, search


def dots() -> Image.Image:
    """Return bright discs on grey, 1600×1200, each of them a feature; also when shrunk to a quarter."""
    random = np.random.default_rng(0)
    photo = Image.new("L", (1600, 1200), 90)
    draw = ImageDraw.Draw(photo)
    for _ in range(60):
        (x, y), radius, shade = random.integers((80, 80), (1520, 1120)), int(random.integers(16, 40)), int(random.integers(150, 255))
        draw.ellipse([int(x) - radius, int(y) - radius, int(x) + radius, int(y) + radius], fill=shade)
    return photo


def shrunk(photo: Image.Image) -> Image.Image:
    return photo.resize((photo.width // 4, photo.height // 4), Image.Resampling.BOX)


def found(folder: Path, photo: Image.Image, mask: Image.Image | None = None) -> Features:
    photo.save(folder / "one.png")
    masks = None
    if mask is not None:
        masks = folder / "masks"
        masks.mkdir()
        mask.save(masks / "one.png.png")
    record = Photo("one.png", "one.png", photo.width, photo.height, None, 1, None)
    return search(Context(folder, folder, [record], 0, 1, Deadline.after(60), masks), record)


def test_a_disc_is_found_at_its_middle_in_pixels_whose_centres_are_at_a_half(tmp_path: Path) -> None:
    photo = Image.new("L", (800, 640), 60)
    ImageDraw.Draw(photo).ellipse([396, 236, 443, 283], fill=220)  # 48 pixels wide, its middle at 420, 260
    features = found(tmp_path, shrunk(photo))
    middle = features.keypoints[np.abs(features.keypoints[:, :2] - [105.0, 65.0]).max(axis=1) < 1]
    assert len(middle)
    np.testing.assert_allclose(middle[:, :2].mean(axis=0), [105.0, 65.0], atol=0.15)


def test_large_photos_are_searched_smaller_and_told_in_their_own_pixels(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    few, many = found(tmp_path / "small", shrunk(dots())).keypoints, found(tmp_path / "large", dots()).keypoints
    assert many[:, 0].max() > 1200
    near = np.abs(few[:, None, :2] * 4 - many[None, :, :2]).max(axis=2).min(axis=1)
    assert np.mean(near < 2.0) > 0.5


def test_nothing_is_found_where_the_mask_is_black(tmp_path: Path) -> None:
    mask = Image.new("L", (400, 300), 0)
    mask.paste(255, (0, 0, 200, 300))
    keypoints = found(tmp_path, shrunk(dots()), mask).keypoints
    assert len(keypoints) > 5
    assert keypoints[:, 0].max() < 201


def test_a_plain_photo_has_no_features(tmp_path: Path) -> None:
    features = found(tmp_path, Image.new("L", (200, 150), 128))
    assert features.keypoints.shape == (0, 4)
    assert features.descriptors.shape == (0, 128)


def test_rooted_descriptors_have_length_512() -> None:
    raw = np.random.default_rng(0).integers(0, 200, (50, 128)).astype(np.float32)
    lengths = np.linalg.norm(rooted(raw).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 512, rtol=0.01)
    assert (rooted(np.zeros((1, 128), np.float32)) == 0).all()
