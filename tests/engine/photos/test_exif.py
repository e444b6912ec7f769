"""EXIF facts and the focal prior, on tags that are right, odd and damaged."""

import io
import math

import numpy as np
import pytest
from PIL import ExifTags, Image

from engine.photos.decode import own_limits
from engine.photos.exif import Exif, focal_prior_px, read_exif
from tests.engine.photos.draw import jpeg_bytes, texture

BASE = ExifTags.Base


def reread(main: dict[int, object], detail: dict[int, object], gps: dict[int, object] | None = None) -> Exif:
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(ExifTags.IFD.Exif).update(detail)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    with Image.open(io.BytesIO(jpeg_bytes(texture(0, 64, 64), exif=exif))) as photo:
        return read_exif(photo)


def test_focal_length_in_35_mm_counts_over_the_diagonal() -> None:
    exif = reread({}, {BASE.FocalLengthIn35mmFilm: 26})
    # A 4:3 phone: 26 mm equivalent is 75° over the diagonal.
    focal = focal_prior_px(exif, 4000, 3000)
    assert focal == pytest.approx(26 / math.hypot(36, 24) * 5000)
    assert focal_prior_px(exif, 3000, 4000) == focal


def test_focal_length_over_sensor_size_survives_resizing() -> None:
    exif = reread(
        {},
        {
            BASE.FocalLength: 50.0,
            BASE.FocalPlaneXResolution: 5000 / (23.5 / 25.4),
            BASE.FocalPlaneYResolution: 3333 / (15.7 / 25.4),
            BASE.FocalPlaneResolutionUnit: 2,
            BASE.ExifImageWidth: 5000,
            BASE.ExifImageHeight: 3333,
        },
    )
    assert exif.sensor_mm == pytest.approx(23.5, rel=1e-3)
    assert focal_prior_px(exif, 1000, 667) == pytest.approx(50 / 23.5 * 1000, rel=1e-3)


@pytest.mark.parametrize("millimetres", [0, 1, 5000])
def test_absurd_focal_lengths_are_ignored(millimetres: int) -> None:
    assert focal_prior_px(reread({}, {BASE.FocalLengthIn35mmFilm: millimetres}), 4000, 3000) is None


def test_focal_length_alone_tells_nothing() -> None:
    assert focal_prior_px(reread({}, {BASE.FocalLength: 4.2}), 4000, 3000) is None


def test_words_are_cleaned_and_cut() -> None:
    exif = reread({BASE.Make: "DJI\x00\x00\x00", BASE.Model: "x" * 1000}, {BASE.DateTimeOriginal: "2024:01:02 03:04:05"})
    assert (exif.make, len(exif.model), exif.taken_at) == ("DJI", 64, "2024:01:02 03:04:05")


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (10.0, 0.0, 0.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (10.0, 0.0, 0.0)},
    ],
)
def test_positions_that_cannot_be_are_none(gps: dict[int, object]) -> None:
    assert reread({}, {}, gps).gps is None


def test_no_damage_to_the_exif_block_raises() -> None:
    exif = Image.Exif()
    exif[BASE.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif).update({BASE.FocalLength: 4.2, BASE.FocalLengthIn35mmFilm: 26})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (10.0, 30.0, 0.0), 3: "E", 4: (20.0, 0.0, 0.0)})
    whole = exif.tobytes()
    random = np.random.default_rng(0)
    photo = texture(0, 64, 64)
    for _ in range(400):
        data = bytearray(whole)
        for position in random.integers(6, len(data), 3):
            data[position] = random.integers(0, 256)
        # Damage by hand: Pillow would repair it on writing.
        damaged = Image.new("RGB", photo.size)
        damaged.info["exif"] = bytes(data)
        with own_limits():
            found = read_exif(damaged)
        assert 1 <= found.orientation <= 8
        assert found.gps is None or all(math.isfinite(value) for value in found.gps)
