"""The parts that picture files are made of, so that cases can put them together wrongly."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def picture(seed: int, width: int = 400, height: int = 300) -> Image.Image:
    """Return a photo-like picture that no other seed gives: coarse patches with a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return a picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(seed: int, **options: object) -> bytes:
    """Return a JPEG photo."""
    return encoded(picture(seed), "JPEG", **{"quality": 90, **options})


def segment(marker: int, data: bytes) -> bytes:
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """Return a JPEG with further segments behind its start."""
    return data[:2] + b"".join(segments) + data[2:]


def frame_header(width: int, height: int, marker: int = 0xC0, components: int = 3) -> bytes:
    """Return a JPEG's frame header, which says how large the picture is."""
    parts = b"".join(bytes([n + 1, 0x11, min(n, 1)]) for n in range(components))
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + parts)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return the data with the first ``old`` replaced, which must be there."""
    assert old in data
    return data.replace(old, new, 1)


def resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG that claims another size than its pixels have."""
    at = next(data.index(bytes([0xFF, marker])) for marker in (0xC0, 0xC2) if bytes([0xFF, marker]) in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """Return a PNG chunk, with its right checksum unless another is given."""
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Return a PNG's IHDR chunk."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(width: int, height: int, pixels: bytes = b"", *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG of compressed ``pixels``, with more chunks before them."""
    parts = (header(width, height, depth, colour), *more, chunk(b"IDAT", pixels or zlib.compress(b"\0" * 1000)), chunk(b"IEND", b""))
    return PNG + b"".join(parts)


def zeros(megabytes: int) -> bytes:
    """Return so many megabytes of nothing, packed to a two-hundredth."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def grey_rows(width: int, height: int, value: int = 0) -> bytes:
    """Return the packed pixels of a grey 8-bit PNG of one value."""
    packer = zlib.compressobj(1)
    row = b"\0" + bytes([value]) * width
    return b"".join(packer.compress(row) for _ in range(height)) + packer.flush()


def entry(tag: int, kind: int, count: int, value: int | bytes) -> bytes:
    """Return a little-endian TIFF directory entry."""
    return struct.pack("<HHI", tag, kind, count) + (value if isinstance(value, bytes) else struct.pack("<I", value))


def directory(entries: Sequence[bytes], following: int = 0) -> bytes:
    """Return a TIFF directory."""
    return struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)


def tiff(entries: Sequence[bytes], data: bytes = b"", following: int = 0) -> bytes:
    """Return a TIFF whose only directory comes first."""
    return b"II*\0\x08\0\0\0" + directory(entries, following) + data


def tiff_sizes(width: int, height: int) -> list[bytes]:
    """Return the entries of an uncompressed RGB TIFF without its strips."""
    return [
        entry(256, 4, 1, width),
        entry(257, 4, 1, height),
        entry(258, 3, 1, 8),
        entry(259, 3, 1, 1),
        entry(262, 3, 1, 1),
        entry(277, 3, 1, 1),
    ]


def box(kind: bytes, body: bytes) -> bytes:
    """Return a box of an ISO base media file."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heif(*sizes: tuple[int, int], brand: bytes = b"avif", before: bytes = b"") -> bytes:
    """Return the header of an AVIF or HEIF file with these extents; there are no pixels."""
    extents = b"".join(box(b"ispe", struct.pack(">III", 0, *size)) for size in sizes)
    meta = box(b"meta", b"\0\0\0\0" + box(b"iprp", box(b"ipco", extents)))
    return box(b"ftyp", brand + b"\0\0\0\0mif1") + before + meta + box(b"mdat", b"x" * 50)


def riff(chunks: bytes, size: int | None = None) -> bytes:
    """Return a WebP container."""
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) if size is None else size) + b"WEBP" + chunks


def exif(entries: Sequence[bytes], more: bytes = b"", following: int = 0) -> bytes:
    """Return an APP1 segment of EXIF with these entries; offsets count from the "II"."""
    return segment(0xE1, b"Exif\0\0" + tiff(entries, more, following))


def icc_segments(profile: bytes, size: int = 60_000) -> list[bytes]:
    """Return the APP2 segments that carry an ICC profile."""
    pieces = [profile[at : at + size] for at in range(0, len(profile), size)]
    return [segment(0xE2, b"ICC_PROFILE\0" + bytes([n + 1, len(pieces)]) + piece) for n, piece in enumerate(pieces)]


def endless_jpeg(width: int, height: int, n_scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes so many times: some hundred kilobytes that take a decoder minutes."""
    ramp = Image.linear_gradient("L").resize((width, height))
    data = encoded(ramp, "JPEG", quality=60, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n_scans + data[-2:]
