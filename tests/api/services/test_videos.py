"""Headers of videos, whole and cut at every byte."""

import struct

import pytest
from PIL import Image

from api.services.inspect import PhotoInfo, PhotoLimits
from api.services.photos import Received, examine
from tests.photos import encoded
from tests.videos import MOTION_JPEG, different, write_video

LIMITS = PhotoLimits(min_side_px=320, max_megapixels=120, max_bytes=100_000)
CODES = {"input.empty_file", "input.unsupported_type", "input.unreadable_photo", "input.unreadable_video"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    wanted = {"mp4": "mp4v", "mov": "mp4v", "avi": MOTION_JPEG, "mkv": "mp4v", "webm": "VP80"}
    plain = [Image.new("RGB", (400, 304))] * 2  # a few kilobytes: they are cut a thousand times
    return {kind: write_video(folder / f"a.{kind}", plain, codec=codec).read_bytes() for kind, codec in wanted.items()}


def look(tmp_path, data: bytes, name: str = "walk.mp4"):
    path = tmp_path / "file"
    path.write_bytes(data)
    (found,) = examine([Received(name, path, len(data), "0" * 64)], LIMITS)
    return found.info if found.error is None else found.error


@pytest.mark.parametrize(
    ("kind", "size"), [("mp4", (400, 304)), ("mov", (400, 304)), ("avi", (400, 304)), ("mkv", (None, None)), ("webm", (None, None))]
)
def test_container_and_size_are_read_from_the_header(files, kind, size, tmp_path):
    assert look(tmp_path, files[kind]) == PhotoInfo(kind, *size)


@pytest.mark.parametrize("kind", ["mp4", "mov", "avi"])
def test_a_video_cut_anywhere_is_either_measured_right_or_refused_by_name(files, kind, tmp_path):
    data = files[kind]
    for length in [*range(300), *range(300, len(data), 97), *range(len(data) - 300, len(data))]:
        found = look(tmp_path, data[:length])
        if isinstance(found, PhotoInfo):
            assert found == PhotoInfo(kind, 400, 304)
        else:
            assert found.code in CODES
            assert "walk.mp4" in found.detail
            assert found.hint


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_a_video_with_any_header_byte_changed_never_raises_anything_else(files, kind, tmp_path):
    data = files[kind]
    index = max(0, data.find(b"moov") - 4)
    for at in [*range(120), *range(index, min(len(data), index + 700))]:
        for value in (0x00, 0xFF, data[at] ^ 0x80):
            found = look(tmp_path, data[:at] + bytes([value]) + data[at + 1 :])
            assert isinstance(found, PhotoInfo) or found.detail


def test_a_recording_that_was_cut_off_says_so(files, tmp_path):
    data = files["mp4"]
    error = look(tmp_path, data[: data.index(b"moov") - 100])
    assert error.code == "input.unreadable_video"
    assert "has no index, as when recording or copying was cut off" in error.detail


def test_sound_alone_is_no_video(files, tmp_path):
    error = look(tmp_path, files["mp4"].replace(b"vide", b"soun"))
    assert error.code == "input.unreadable_video"
    assert "holds no pictures" in error.detail


def test_an_index_without_end_is_refused_without_reading_it(tmp_path):
    boxes = b"\0\0\0\x08free" * 20_000
    assert look(tmp_path, b"\0\0\0\x10ftypisom\0\0\0\0" + boxes).code == "input.unreadable_video"
    huge = struct.pack(">I4sQ", 1, b"moov", 1 << 62)
    assert look(tmp_path, b"\0\0\0\x10ftypisom\0\0\0\0" + huge).code == "input.unreadable_video"


def test_pictures_too_small_are_refused_by_name(tmp_path):
    data = write_video(tmp_path / "a.mp4", different(4, width=160, height=120)).read_bytes()
    error = look(tmp_path, data)
    assert error.code == "input.too_small"
    assert "walk.mp4 is 160×120 px" in error.detail


def test_a_photo_does_not_become_larger_than_photos_may_be_by_a_videos_name(tmp_path):
    error = look(tmp_path, encoded(1) + bytes(100_000), "photo.mp4")
    assert (error.code, error.data["max_bytes"]) == ("input.too_large", 100_000)
    assert look(tmp_path, encoded(1), "photo.mp4") == PhotoInfo("jpeg", 400, 300)


def test_a_mask_is_no_video(files, tmp_path):
    assert look(tmp_path, files["mp4"], "masks/a.png").code == "input.unsupported_type"
