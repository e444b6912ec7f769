"""What a file is, from its first bytes: format and size of a photo. No pixel is decoded, so no file can hurt here."""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from engine.errors import InputError

READ_LIMIT_BYTES = 32 << 20
# Steps through one header: marker bytes of a JPEG, boxes of a HEIF file. Real ones take some hundred; a file that takes millions is an
# attack on the api, whose other requests would wait meanwhile.
MAX_STEPS = 10_000
SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class PhotoLimits:
    """What a photo must be: longer side in pixels at least, 10^6 pixels at most, bytes at most."""

    min_side_px: int
    max_megapixels: float
    max_bytes: int


@dataclass(frozen=True)
class PhotoInfo:
    """Format and size as stored (before EXIF orientation), pixels; None where a video's header does not say."""

    format: str
    width: int | None
    height: int | None


class NotReadableError(Exception):
    """The header ends early or says nonsense."""


def inspect_photo(path: Path, name: str, limits: PhotoLimits) -> PhotoInfo:
    """Return what the file says it is; ``InputError`` names the file and why it is refused."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise InputError("input.empty_file", "Empty file", f"{name} has no bytes", "Upload it again.")
    with path.open("rb") as stream:
        head = stream.read(32)
        stream.seek(0)
        kind, measure = recognise(head)
        if measure is None:
            raise unsupported(name, head)
        try:
            width, height = measure(stream)
        except (NotReadableError, struct.error, IndexError) as error:
            raise InputError(
                "input.unreadable_photo", "Unreadable photo", f"{name} begins like a {kind} but cannot be read: {error}", "Export it again."
            ) from error
    check_size(name, width, height, limits)
    return PhotoInfo(kind, width, height)


def unsupported(name: str, head: bytes) -> InputError:
    """Return the error for a file that is neither photo nor video, saying what it looks like."""
    printable = all(byte in b"\t\n\r" or byte >= 32 for byte in head)
    looks = "text" if printable else f"bytes {head[:8].hex(' ')}"
    return InputError(
        "input.unsupported_type",
        "Not a photo",
        f"{name} is no photo or video: it begins with {looks}",
        "Upload JPEG, PNG, WebP, TIFF, AVIF or HEIC photos, or MP4, MOV, WebM, MKV or AVI videos.",
    )


def check_size(name: str, width: int, height: int, limits: PhotoLimits) -> None:
    """Raise ``InputError`` when a photo has too few pixels to be of use or so many that decoding it is an attack."""
    if width < 1 or height < 1:
        raise InputError("input.unreadable_photo", "Unreadable photo", f"{name} says it is {width}×{height} px", "Export it again.")
    if max(width, height) > 65_535 or width * height > limits.max_megapixels * 1e6:
        raise InputError(
            "input.too_many_pixels",
            "Photo too large",
            f"{name} is {width}×{height} px, {width * height / 1e6:.0f} megapixels; at most {limits.max_megapixels:g} are read",
            "Upload a smaller version.",
        )
    if max(width, height) < limits.min_side_px or min(width, height) * 20 < max(width, height):
        raise InputError(
            "input.too_small",
            "Photo too small",
            f"{name} is {width}×{height} px; the longer side must be at least {limits.min_side_px}, the shorter a twentieth of it",
            "Upload the original, not a thumbnail.",
        )


Measure = Callable[[BinaryIO], tuple[int, int]]


def recognise(head: bytes) -> tuple[str, Measure | None]:
    """Return the format that the first 32 bytes show, and how to measure it."""
    brand = head[8:12]
    signatures: tuple[tuple[bool, str, Measure], ...] = (
        (head.startswith(b"\xff\xd8\xff"), "jpeg", measure_jpeg),
        (head.startswith(b"\x89PNG\r\n\x1a\n"), "png", measure_png),
        (head.startswith(b"RIFF") and brand == b"WEBP", "webp", measure_webp),
        (head[:4] in (b"II*\0", b"MM\0*"), "tiff", measure_tiff),
        (head[4:8] == b"ftyp" and brand in (b"avif", b"avis"), "avif", measure_heif),
        (head[4:8] == b"ftyp" and brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "heif", measure_heif),
    )
    return next(((kind, measure) for matches, kind, measure in signatures if matches), ("", None))


def take(stream: BinaryIO, n_bytes: int) -> bytes:
    """Read exactly so many bytes."""
    data = stream.read(n_bytes)
    if len(data) != n_bytes:
        raise NotReadableError("the file ends in its header")
    return data


def measure_jpeg(stream: BinaryIO) -> tuple[int, int]:
    """Return the size in the first frame header (ITU T.81 B.2.2)."""
    stream.seek(2)
    for marker in markers(stream):
        if marker in (0xD9, 0xDA):
            raise NotReadableError("no frame header before the pixels")
        (length,) = struct.unpack(">H", take(stream, 2))
        if marker in SOF_MARKERS:
            _precision, height, width = struct.unpack(">BHH", take(stream, 5))
            return width, height
        if length < 2:
            raise NotReadableError("a segment is shorter than its length")
        stream.seek(length - 2, 1)
    raise NotReadableError("no frame header")


def markers(stream: BinaryIO) -> Iterator[int]:
    """Yield the markers of segments, each with the stream behind it; whoever takes one moves the stream over its segment."""
    for _ in range(MAX_STEPS):
        if stream.tell() >= READ_LIMIT_BYTES:
            return
        if take(stream, 1) != b"\xff":
            raise NotReadableError("a marker is missing")
        marker = take(stream, 1)[0]
        if marker == 0xFF:  # a fill byte: what follows may be a marker
            stream.seek(-1, 1)
        elif marker != 0x01 and not 0xD0 <= marker <= 0xD7:
            yield marker


def measure_png(stream: BinaryIO) -> tuple[int, int]:
    """Return the size in IHDR, which is always first."""
    head = take(stream, 24)
    if head[12:16] != b"IHDR":
        raise NotReadableError("IHDR is missing")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def measure_webp(stream: BinaryIO) -> tuple[int, int]:
    """Return the size of a lossy, lossless or extended WebP (RFC 9649)."""
    head = take(stream, 30)
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise NotReadableError("no image chunk")


def measure_tiff(stream: BinaryIO) -> tuple[int, int]:
    """Return width and length of the first directory (TIFF 6.0)."""
    head = take(stream, 8)
    order = "<" if head[:2] == b"II" else ">"
    stream.seek(struct.unpack(order + "I", head[4:8])[0])
    (n_entries,) = struct.unpack(order + "H", take(stream, 2))
    sizes: dict[int, int] = {}
    for _ in range(n_entries):
        entry = take(stream, 12)
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in (256, 257):
            sizes[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8 : 10 if kind == 3 else 12])[0]
    if len(sizes) != 2:
        raise NotReadableError("the directory has no size")
    return sizes[256], sizes[257]


def measure_heif(stream: BinaryIO) -> tuple[int, int]:
    """Return the largest image extent in meta/iprp/ipco (ISO 23008-12 6.5.3): tiles of one photo are smaller than the photo."""
    data = stream.read(READ_LIMIT_BYTES)
    meta = next((body for kind, body in boxes(data) if kind == b"meta"), b"")
    extents = [
        struct.unpack(">II", body[4:12])
        for kind, properties in boxes(meta[4:])
        if kind == b"iprp"
        for inner, container in boxes(properties)
        if inner == b"ipco"
        for name, body in boxes(container)
        if name == b"ispe"
    ]
    if not extents:
        raise NotReadableError("no image extent")
    width, height = max(extents, key=lambda extent: extent[0] * extent[1])
    return width, height


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the boxes of an ISO base media file, up to the first that is cut."""
    at = 0
    for _ in range(MAX_STEPS):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack(">Q", data[at + 8 : at + 16])
            start = at + 16
        end = len(data) if size == 0 else at + size
        if end < start or end > len(data):
            return
        yield kind, data[start:end]
        at = end


# What may come with photos, by the path that a client gives it: the engine looks for these names (engine.workspace).
MASK_NAME = re.compile(r"(?:.*/)?masks/([^/]+)", re.IGNORECASE)
POSES_NAME = re.compile(r"(?:.*/)?(transforms(?:_train)?\.json)", re.IGNORECASE)
MODEL_NAME = re.compile(r"(?:.*/)?sparse/(?:0/)?((?:cameras|images|points3D)\.(?:bin|txt))")


def companion_name(name: str) -> str | None:
    """Return what a file that comes with photos is kept as: masks/NAME, transforms.json, sparse/NAME; None for what must be a photo."""
    path = name.replace("\\", "/")
    if found := MASK_NAME.fullmatch(path):
        return f"masks/{found[1]}"
    if found := POSES_NAME.fullmatch(path):
        return found[1].lower()
    if found := MODEL_NAME.fullmatch(path):
        return f"sparse/{found[1]}"
    return None


def inspect_companion(path: Path, name: str, limits: PhotoLimits) -> PhotoInfo | None:
    """Return format and size of a mask, None for poses, whose contents the first stage judges; ``InputError`` when it is neither."""
    if name.startswith("masks/"):
        # Masks may be small: they only need the shape of their photo.
        return inspect_photo(path, name, replace(limits, min_side_px=1))
    with path.open("rb") as stream:
        head = stream.read(32)
    if not head:
        raise InputError("input.empty_file", "Empty file", f"{name} has no bytes", "Upload it again.")
    if name.endswith(".json") and not head.lstrip().startswith(b"{"):
        raise InputError("input.unsupported_type", "Not JSON", f"{name} holds no JSON object", "Upload the file that names camera poses.")
    return None
