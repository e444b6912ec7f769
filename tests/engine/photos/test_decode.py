"""One photo decoded: upright whatever its format, and never half of one without a word."""

import numpy as np
import pytest
from PIL import Image

from engine.options import IngestOptions
from engine.photos.decode import UPRIGHT, PhotoError, decode, formats, open_photo
from tests.faults.bad_inputs import encode

ORIENTATION = 0x0112


def read(path, posed_size=None):
    return decode(open_photo(path, formats(), IngestOptions()), 1600, posed_size)


def turned(path, kind: str, orientation: int) -> Image.Image:
    """Write a picture that is to be turned; return it as stored."""
    stored = encode.picture(1)
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    stored.save(path, kind, exif=tags, **({"quality": 100} if kind != "TIFF" else {"compression": "tiff_lzw"}))
    return stored


def differ(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_a_photo_of_any_format_is_turned_once(tmp_path, kind, orientation):
    stored = turned(tmp_path / "photo", kind, orientation)
    upright = stored.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else stored
    decoded = read(tmp_path / "photo")
    assert differ(decoded.pixels, upright) < 5
    assert (decoded.source_width, decoded.source_height) == upright.size
    assert decoded.orientation == orientation


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_photo_whose_pose_is_of_the_stored_pixels_stays_as_stored(tmp_path, kind):
    stored = turned(tmp_path / "photo", kind, 6)
    assert differ(read(tmp_path / "photo", posed_size=(400, 300)).pixels, stored) < 5
    assert read(tmp_path / "photo", posed_size=(300, 400)).pixels.size == (300, 400)


@pytest.mark.parametrize("at", [0.3, 0.5, 0.9])
def test_a_png_with_one_wrong_bit_is_no_photo(tmp_path, at):
    data = bytearray(encode.encoded(encode.picture(2), "PNG"))
    data[int(len(data) * at)] ^= 1
    (tmp_path / "photo").write_bytes(data)
    with pytest.raises(PhotoError) as caught:
        read(tmp_path / "photo")
    assert caught.value.code in ("photo.unreadable", "photo.truncated")
