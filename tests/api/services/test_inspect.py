"""Headers of every format, whole and cut at every byte."""

import struct

import pytest

from api.services.inspect import PhotoInfo, PhotoLimits, inspect_photo
from engine.errors import InputError
from tests.photos import encoded, wide_png

LIMITS = PhotoLimits(min_side_px=320, max_megapixels=120, max_bytes=1 << 28)
# ftyp, then meta with iprp/ipco/ispe: what a phone's HEIC begins with (ISO 23008-12), two extents: a tile and the photo.


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heic(*sizes: tuple[int, int], brand: bytes = b"heic") -> bytes:
    extents = b"".join(box(b"ispe", struct.pack(">III", 0, *size)) for size in sizes)
    return box(b"ftyp", brand + b"\0\0\0\0mif1") + box(b"meta", b"\0\0\0\0" + box(b"iprp", box(b"ipco", extents))) + box(b"mdat", b"x" * 50)


FILES = {
    "jpeg": encoded(1),
    "png": encoded(1, "PNG"),
    "webp": encoded(1, "WEBP"),
    "tiff": encoded(1, "TIFF"),
    "avif": encoded(1, "AVIF"),
    "heif": heic((64, 64), (400, 300)),
}


def look(tmp_path, data: bytes):
    path = tmp_path / "file"
    path.write_bytes(data)
    return inspect_photo(path, "IMG_1.jpg", LIMITS)


@pytest.mark.parametrize("kind", FILES)
def test_format_and_size_are_read_from_the_header(tmp_path, kind):
    info = look(tmp_path, FILES[kind])
    assert (info.format, info.width, info.height) == (kind, 400, 300)


def test_lossless_and_extended_webp_are_measured(tmp_path):
    import io

    from tests.photos import picture

    for options in ({"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}):
        out = io.BytesIO()
        picture(1, 401, 333).save(out, "WEBP", **options)
        info = look(tmp_path, out.getvalue())
        assert (info.width, info.height) == (401, 333)


def outcome(tmp_path, data: bytes) -> PhotoInfo | InputError:
    """Return what is read or the refusal; anything else that is raised fails the test."""
    try:
        return look(tmp_path, data)
    except InputError as error:
        return error


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_anywhere_is_either_measured_right_or_refused_by_name(tmp_path, kind):
    for length in [*range(min(len(FILES[kind]), 300)), *range(300, len(FILES[kind]), 499)]:
        found = outcome(tmp_path, FILES[kind][:length])
        if isinstance(found, PhotoInfo):
            assert (found.width, found.height) == (400, 300)
        else:
            assert found.code in ("input.empty_file", "input.unsupported_type", "input.unreadable_photo")
            assert "IMG_1.jpg" in found.detail


@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_any_header_byte_changed_never_raises_anything_else(tmp_path, kind):
    data = FILES[kind]
    for at in range(min(len(data), 120)):
        for value in (0x00, 0xFF, data[at] ^ 0x80):
            found = outcome(tmp_path, data[:at] + bytes([value]) + data[at + 1 :])
            assert isinstance(found, PhotoInfo) or found.detail


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "input.empty_file", "no bytes"),
        (b"hello, I am a text", "input.unsupported_type", "text"),
        (b"GIF89a\x01\0\x01\0", "input.unsupported_type", "47 49 46 38"),
        (wide_png(60_000, 60_000), "input.too_many_pixels", "60000×60000"),
        (wide_png(12_000, 12_000), "input.too_many_pixels", "144 megapixels"),
        (wide_png(312, 200), "input.too_small", "312×200 px; the longer side must be at least 320"),
        (wide_png(0, 500), "input.unreadable_photo", "0×500"),
        (wide_png(5000, 20), "input.too_small", "5000×20"),
    ],
)
def test_what_cannot_be_used_says_what_was_seen(tmp_path, data, code, said):
    with pytest.raises(InputError) as caught:
        look(tmp_path, data)
    assert caught.value.code == code
    assert said in caught.value.detail
