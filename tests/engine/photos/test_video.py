"""Videos decoded: which frames are taken, and that how the work is cut changes nothing."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from engine.photos.decode import PhotoError
from engine.photos.video import LOOK_S, STRETCH_S, Footage, Stretches, look, sharpest
from tests.videos import MOTION_JPEG, different, write_video


def shown(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame[:, :, ::-1].copy())


def nearest(frame: np.ndarray, pictures: list[Image.Image]) -> int:
    """Return which picture a frame shows."""
    apart = [np.abs(np.asarray(shown(frame), float) - np.asarray(each, float)).mean() for each in pictures]
    return int(np.argmin(apart))


def taken(path: Path, most: int = 120) -> dict[int, np.ndarray]:
    footage = look(path)
    stretches = Stretches.of(footage, most)
    return {index: frame for portion in stretches.portions(footage) for index, frame in sharpest(path, stretches, portion)}


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.mkv", "mp4v"), ("a.avi", MOTION_JPEG), ("a.webm", "VP80")]
)
def test_every_container_is_read(name: str, codec: str, tmp_path: Path) -> None:
    footage = look(write_video(tmp_path / name, different(20), codec=codec))
    assert (footage.width, footage.height, footage.is_indexed) == (400, 304, True)
    assert footage.duration_s == pytest.approx(2.0, abs=0.11)
    assert sorted(taken(tmp_path / name)) == [0, 1, 2, 3]


def test_the_sharpest_frame_of_each_stretch_is_taken(tmp_path: Path) -> None:
    pictures, chance = different(40), np.random.default_rng(5)
    sharp = [5 * stretch + int(chance.integers(5)) for stretch in range(8)]
    film = [each if index in sharp else each.filter(ImageFilter.GaussianBlur(3)) for index, each in enumerate(pictures)]
    frames = taken(write_video(tmp_path / "walk.mp4", film, per_s=10.0))
    assert [nearest(frame, film) for frame in frames.values()] == sharp


def test_a_long_video_gives_as_many_frames_as_are_asked_for_spread_over_all_of_it(tmp_path: Path) -> None:
    pictures = different(120, width=320, height=240)
    path = write_video(tmp_path / "long.mp4", pictures, per_s=2.0)
    frames = taken(path, most=6)
    places = [nearest(frame, pictures) for frame in frames.values()]
    assert [place // 20 for place in places] == [0, 1, 2, 3, 4, 5]
    assert all(abs(place % 20 - 10) <= 1 + LOOK_S for place in places), "the middle of each stretch"


def test_stretches_are_equal_and_never_too_short() -> None:
    assert Stretches.of(Footage(640, 480, 60.0, True), 120) == Stretches(120, 0.5)
    assert Stretches.of(Footage(640, 480, 600.0, True), 120) == Stretches(120, 5.0)
    assert Stretches.of(Footage(640, 480, 0.04, True), 120) == Stretches(1, 0.04)
    short = Stretches.of(Footage(640, 480, 7.0, True), 120)
    assert (short.count, short.seconds) == (7 / STRETCH_S, STRETCH_S)


@pytest.mark.parametrize("duration_s", [0.0, 0.3, 12.0, 75.0, 4000.0])
def test_portions_are_all_stretches_once_and_one_where_times_cannot_be_found(duration_s: float) -> None:
    for is_indexed in (True, False):
        footage = Footage(640, 480, duration_s, is_indexed)
        stretches = Stretches.of(footage, 120)
        portions = stretches.portions(footage)
        assert [index for portion in portions for index in portion] == list(range(stretches.count))
        assert is_indexed or len(portions) == 1


def test_a_frame_does_not_depend_on_where_reading_began(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.mp4", different(160, width=320, height=240), per_s=8.0)
    stretches = Stretches.of(look(path), 120)
    whole = dict(sharpest(path, stretches, range(stretches.count)))
    assert len(whole) == stretches.count
    for first in (1, 17, 30, stretches.count - 1):
        (_, alone), *_ = sharpest(path, stretches, range(first, first + 1))
        assert (alone == whole[first]).all(), first


def make_uneven(data: bytes, n_slow: int, times: int) -> bytes:
    """Return an MP4 whose first frames are shown so many times longer: a second entry in stts (ISO 14496-12 8.6.1.2), boxes grown by it."""
    grown = bytearray(data.replace(b"edts", b"free"))  # the edit list ends where the even video did
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        at = grown.index(kind) - 4
        struct.pack_into(">I", grown, at, struct.unpack_from(">I", grown, at)[0] + 8)
    at = grown.index(b"stts") + 8
    n_entries, count, each = struct.unpack_from(">III", grown, at)
    assert n_entries == 1
    for kind, place in ((b"mvhd", 20), (b"mdhd", 20)):  # the durations grow in the same proportion
        where = grown.index(kind) + place
        (duration,) = struct.unpack_from(">I", grown, where)
        struct.pack_into(">I", grown, where, duration * (count + n_slow * (times - 1)) // count)
    grown[at : at + 12] = struct.pack(">IIIII", 2, n_slow, each * times, count - n_slow, each)
    return bytes(grown)


def test_frames_that_come_unevenly_are_found_by_their_time(tmp_path: Path) -> None:
    """Two frames a second and then twenty: OpenCV takes times for numbers of frames, and its seeks land seconds too late."""
    pictures = different(120, width=320, height=240)
    path = write_video(tmp_path / "walk.mp4", pictures, per_s=20.0)
    path.write_bytes(make_uneven(path.read_bytes(), n_slow=20, times=10))
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    capture.set(cv2.CAP_PROP_POS_MSEC, 7000.0)
    assert capture.grab()
    assert capture.get(cv2.CAP_PROP_POS_MSEC) > 9000.0, "else this test tests nothing"
    stretches = Stretches.of(look(path), 120)
    assert stretches.count == 30
    for index, wanted in ((16, range(16, 17)), (18, range(18, 19)), (24, range(60, 70))):
        (found, frame), *_ = sharpest(path, stretches, range(index, index + 1))
        assert found == index
        assert nearest(frame, pictures) in wanted


def test_what_holds_no_pictures_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, different(20))
    for length in (0, 20, 40, path.stat().st_size // 2):
        (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:length])
        with pytest.raises(PhotoError, match=r"export it as H\.264"):
            look(tmp_path / "cut.mp4")


def test_a_video_turned_on_its_side_comes_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", different(4), per_s=2.0)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version, flags, times, track, duration, layer, volume: then the matrix (ISO 14496-12 8.3.2)
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(each.to_bytes(4, "big", signed=True) for each in quarter)
    path.write_bytes(data)
    footage = look(path)
    assert (footage.width, footage.height) == (304, 400)
    frame = next(iter(taken(path).values()))
    assert nearest(cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE), different(4)) == 0
