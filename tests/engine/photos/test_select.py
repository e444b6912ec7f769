"""Copies, blank photos and blur on thumbnails and pixels made for the purpose."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from engine.photos.select import blurred, content_problem, find_copies, measure
from tests.engine.photos.draw import jpeg_bytes, texture


def reencoded(photo: Image.Image, scale: float, quality: int) -> Image.Image:
    small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    with Image.open(io.BytesIO(jpeg_bytes(small, quality))) as again:
        again.load()
        return again


@pytest.mark.parametrize(("scale", "quality"), [(1.0, 70), (0.5, 80), (1.0, 40)])
def test_reencoded_photo_is_a_copy_of_the_larger(scale: float, quality: int) -> None:
    photos = [texture(seed, 640, 480) for seed in range(3)]
    photos.append(reencoded(photos[1], scale, quality))
    thumbs = np.stack([measure(photo).thumb for photo in photos])
    sizes = np.array([photo.width * photo.height for photo in photos])
    assert find_copies(thumbs, sizes) == {3: 1}


def test_the_largest_of_copies_is_kept_whatever_its_place() -> None:
    photo = texture(0, 640, 480)
    thumbs = np.stack([measure(each).thumb for each in (reencoded(photo, 0.5, 90), photo, photo)])
    assert find_copies(thumbs, np.array([10, 40, 40])) == {2: 1, 0: 1}


def test_plain_photos_are_compared_more_strictly() -> None:
    plain = np.full((32, 32), 100.0, np.float32)
    plain[10:20, 10:20] = 130.0
    moved = np.roll(plain, 0)
    moved[10, 10:20] = 127.0
    assert find_copies(np.stack([plain, moved]), np.array([1, 1])) == {}


def test_no_photos_have_no_copies() -> None:
    assert find_copies(np.zeros((0, 32, 32), np.float32), np.zeros(0, np.int64)) == {}


def test_sharpness_falls_with_blur() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8))
    values = [measure(noise.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert blurred([values[0]] * 4 + [values[3]]) == [4]
    assert blurred([values[0], values[3]]) == []


@pytest.mark.parametrize(("level", "code"), [(0, "photo.too_dark"), (15, "photo.too_dark"), (128, "photo.blank"), (255, "photo.blank")])
def test_photos_of_one_level_show_nothing(level: int, code: str) -> None:
    problem = content_problem(measure(Image.new("RGB", (400, 300), (level, level, level))))
    assert problem is not None
    assert problem[0] == code


def test_photo_with_a_small_bright_object_on_black_has_content() -> None:
    black = Image.new("RGB", (400, 300))
    black.paste(texture(1, 100, 80), (150, 100))
    assert content_problem(measure(black)) is None
