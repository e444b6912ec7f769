"""Containers by their first bytes: of moving pictures each, of nothing else any."""

from pathlib import Path

import pytest

from engine.containers import CONTAINERS, HEAD_BYTES, video_container
from tests.photos import encoded
from tests.videos import MOTION_JPEG, different, write_video

KINDS = {"a.mp4": "mp4v", "a.mov": "mp4v", "a.mkv": "mp4v", "a.webm": "VP80", "a.avi": MOTION_JPEG}


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    return b"\0\0\0\x20ftyp" + brand + b"\0\0\0\0" + b"".join(compatible)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_as_a_video_is_known_and_none_of_its_beginnings_as_another(name: str, tmp_path: Path) -> None:
    data = write_video(tmp_path / name, different(4), codec=KINDS[name]).read_bytes()
    kind = name.removeprefix("a.")
    assert video_container(data[:HEAD_BYTES]) == kind in CONTAINERS
    found = [video_container(data[:length]) for length in range(HEAD_BYTES + 1)]
    assert set(found) == {None, kind}
    assert found == sorted(found, key=lambda each: each is not None), "once known, it stays so"


@pytest.mark.parametrize(
    ("brand", "kind"),
    [
        (b"isom", "mp4"),
        (b"mp42", "mp4"),
        (b"iso5", "mp4"),
        (b"avc1", "mp4"),
        (b"M4V ", "mp4"),
        (b"3gp5", "mp4"),
        (b"XAVC", "mp4"),
        (b"qt  ", "mov"),
    ],
)
def test_the_brands_of_cameras_are_known(brand: bytes, kind: str) -> None:
    assert video_container(ftyp(brand, b"isom")) == kind


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"M4A ", b"M4B ", b"jp2 "])
def test_photos_and_sound_in_the_same_kind_of_file_are_no_videos(brand: bytes) -> None:
    assert video_container(ftyp(brand, b"mif1", b"isom", b"mp42")) is None


@pytest.mark.parametrize("first", [b"moov", b"mdat", b"wide"])
def test_quicktime_without_a_brand_is_known(first: bytes) -> None:
    assert video_container(b"\0\0\1\0" + first + bytes(50)) == "mov"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_photos_are_no_videos(kind: str) -> None:
    assert video_container(encoded(1, kind)[:HEAD_BYTES]) is None


def test_lists_of_other_files_and_texts_are_no_videos() -> None:
    for text in (
        b"#EXTM3U\nhttp://example.com/a.ts",
        b"ffconcat version 1.0\nfile a.mp4",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"",
        b"text",
        b"\x1a\x45\xdf\xa3",
    ):
        assert video_container(text) is None
