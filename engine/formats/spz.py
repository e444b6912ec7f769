"""SPZ, Niantic's interchange format: read versions 1 to 3, write version 3 (the newest that every viewer opens, research/formats.md 0).

A gzip of a 16-byte header and one stream per attribute. Means are 24-bit fixed point; opacity, colour and scale bytes; rotation three
components of ten bits; harmonics bytes rounded to 5 bits (first band) and 4 bits (above). The specification calls the axes RUB, but most
files in the wild, and ours, carry the trainer's frame untouched.
"""

import gzip
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.formats.limits import bad_file, check_count, read_bytes
from engine.formats.quantize import (
    OPACITY_BOUND,
    SQRT1_2,
    Bound,
    ErrorBounds,
    decode_opacity,
    drop_largest,
    encode_opacity,
    encode_sh_buckets,
    normalized,
    restore_largest,
    round_half_up,
    sh_bucket_bound,
    smallest_three_angle,
)
from engine.gaussians import Gaussians

HEADER = struct.Struct("<IIIBBBB")
MAGIC = 0x5053474E  # "NGSP"
COLOUR_SCALE = 0.15
MIN_LOG_SCALE, MAX_LOG_SCALE = -10.0, 255 / 16 - 10.0
DEFAULT_FRACTION = 12
MAX_FRACTION = 23
LIMIT_24 = (1 << 23) - 1
ROTATION_STEPS = 511

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ShBits:
    """Bits of the harmonics, 1..8: of the first band and of those above. Readers need not know; fewer bits pack better."""

    first: int = 5
    rest: int = 4


@dataclass(frozen=True)
class SpzHeader:
    """The first 16 bytes of the unpacked file."""

    version: int
    count: int
    sh_degree: int
    fraction_bits: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes a gaussian of each stream: means, opacity, colour, scale, rotation, harmonics."""
        return (6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version == 3 else 3, 3 * ((self.sh_degree + 1) ** 2 - 1))


def choose_fraction_bits(gaussians: Gaussians) -> int:
    """Return the fractional bits of the means, 0..23.

    12, fewer when the scene is too large for 24 bits, more when its gaussians are so small that a step would be more than an eighth of
    the scale of the smaller ones (5th percentile of each one's middle scale).
    """
    reach = float(np.max(np.abs(gaussians.means)))
    fits = int(np.floor(np.log2(LIMIT_24 / reach))) if reach > 0 else MAX_FRACTION
    small = float(np.percentile(np.median(gaussians.log_scales, axis=1), 5))
    wanted = int(np.ceil(3.0 - small / np.log(2.0)))
    return int(np.clip(max(DEFAULT_FRACTION, wanted), 0, min(fits, MAX_FRACTION)))


def write_spz(path: Path, gaussians: Gaussians, sh_bits: ShBits = ShBits()) -> None:
    """Write SPZ version 3; the same gaussians give the same bytes. Errors are at most ``error_bounds``.

    Raises ``ValueError`` for values that are not finite or means beyond 2^23.
    """
    arrays = (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.opacity_logits, gaussians.sh)
    if not len(gaussians) or not all(np.isfinite(array).all() for array in arrays) or np.max(np.abs(gaussians.means)) > LIMIT_24:
        raise ValueError("SPZ holds one or more gaussians, finite, with means within 2^23")
    bits = choose_fraction_bits(gaussians)
    header = HEADER.pack(MAGIC, 3, len(gaussians), gaussians.sh_degree, bits, 0, 0)
    streams: list[npt.NDArray[Any]] = [
        _encode_means(gaussians.means, bits),
        encode_opacity(gaussians.opacity_logits),
        _encode_bytes(gaussians.sh[:, 0], COLOUR_SCALE * 255.0, 127.5),
        _encode_bytes(gaussians.log_scales, 16.0, -16.0 * MIN_LOG_SCALE),
        _encode_rotations(gaussians.quats),
        _encode_harmonics(gaussians.sh[:, 1:], sh_bits),
    ]
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0, filename="") as handle:
        handle.write(header + b"".join(stream.tobytes() for stream in streams))
    path.write_bytes(packed.getvalue())


def _encode_means(means: npt.NDArray[np.float32], bits: int) -> Bytes:
    fixed = np.clip(round_half_up(means.astype(np.float64) * 2.0**bits), -LIMIT_24, LIMIT_24).astype("<i4")
    return np.ascontiguousarray(fixed.reshape(-1, 1).view(np.uint8)[:, :3])


def _encode_bytes(values: npt.NDArray[np.float32], scale: float, offset: float) -> Bytes:
    return np.clip(round_half_up(values.astype(np.float64) * scale + offset), 0, 255).astype(np.uint8)


def _encode_rotations(quats: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    largest, others = drop_largest(normalized(quats)[:, [1, 2, 3, 0]])  # stored x y z w
    codes = round_half_up(np.abs(others) / SQRT1_2 * ROTATION_STEPS).astype(np.uint32) | np.where(others < 0, np.uint32(512), np.uint32(0))
    codes = np.where(codes & 511, codes, 0).astype("<u4")
    packed = largest.astype(np.uint32) << 30 | codes[:, 0] << 20 | codes[:, 1] << 10 | codes[:, 2]
    return packed.astype("<u4")


def _encode_harmonics(rest: npt.NDArray[np.float32], bits: ShBits) -> Bytes:
    codes = np.empty(rest.shape, np.uint8)
    codes[:, :3] = encode_sh_buckets(rest[:, :3], bits.first)
    codes[:, 3:] = encode_sh_buckets(rest[:, 3:], bits.rest)
    return codes


def read_spz(path: Path) -> Gaussians:
    """Read SPZ versions 1 to 3. Raises ``InputError`` ``input.bad_spz``; never unpacks more than the header and file size warrant."""
    data = read_bytes("spz", path)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        head = unpacker.decompress(data, HEADER.size)
        header = _parse_header(path, head, len(data))
        size = header.count * sum(header.widths)
        body = unpacker.decompress(unpacker.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise bad_file("spz", path, f"its gzip data is damaged ({error})", _version_hint(data)) from error
    if len(body) != size or not unpacker.eof or unpacker.unused_data:
        raise bad_file(
            "spz", path, f"{header.count} gaussians of version {header.version} fill {size} bytes; it is cut, or goes on after them"
        )
    return _gaussians(path, header, body)


def _version_hint(data: bytes) -> str:
    return "SPZ version 4 is not read here: write it as version 3." if data[:4] == b"NGSP" else ""


def _parse_header(path: Path, head: bytes, size_bytes: int) -> SpzHeader:
    if len(head) < HEADER.size:
        raise bad_file("spz", path, "its header is cut")
    magic, version, count, sh_degree, fraction_bits, _flags, _reserved = HEADER.unpack(head)
    if magic != MAGIC or version not in (1, 2, 3):
        raise bad_file("spz", path, f"magic {magic:#x} version {version}; versions 1 to 3 are read")
    if sh_degree > 3 or fraction_bits > 24:
        raise bad_file("spz", path, f"degree {sh_degree} or {fraction_bits} fractional bits are out of range")
    check_count("spz", path, count, size_bytes)
    return SpzHeader(version, count, sh_degree, fraction_bits)


def _gaussians(path: Path, header: SpzHeader, body: bytes) -> Gaussians:
    raw, start, streams = np.frombuffer(body, np.uint8), 0, []
    for width in header.widths:
        streams.append(raw[start : start + width * header.count].reshape(header.count, width))
        start += width * header.count
    means, opacity, colour, scale, rotation, rest = streams
    sh = np.empty((header.count, (header.sh_degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = (colour.astype(np.float64) / 255.0 - 0.5) / COLOUR_SCALE
    sh[:, 1:] = (rest.reshape(header.count, -1, 3).astype(np.float32) - 128.0) / 128.0
    return Gaussians(
        means=_decode_means(path, header, means),
        log_scales=(scale.astype(np.float32) / 16.0 + np.float32(MIN_LOG_SCALE)),
        quats=_decode_rotations(header.version, rotation),
        opacity_logits=decode_opacity(opacity[:, 0]),
        sh=sh,
    )


def _decode_means(path: Path, header: SpzHeader, stream: Bytes) -> npt.NDArray[np.float32]:
    if header.version == 1:
        means = np.ascontiguousarray(stream).view("<f2").astype(np.float32)
        if not np.isfinite(means).all():
            raise bad_file("spz", path, "a mean is not a finite number")
        return means
    wide = np.zeros((header.count * 3, 4), np.uint8)
    wide[:, 1:] = stream.reshape(-1, 3)  # in the upper bytes, so that the shift back carries the sign
    fixed = wide.view("<i4").reshape(header.count, 3) >> 8
    return (fixed / 2.0**header.fraction_bits).astype(np.float32)


def _decode_rotations(version: int, stream: Bytes) -> npt.NDArray[np.float32]:
    if version < 3:
        xyz = stream.astype(np.float64) / 127.5 - 1.0
        w = np.sqrt(np.maximum(0.0, 1.0 - np.sum(xyz**2, axis=1)))
        return normalized(np.concatenate([w[:, None], xyz], axis=1)).astype(np.float32)
    packed = np.ascontiguousarray(stream).view("<u4")[:, 0]
    codes = np.stack([packed >> 20, packed >> 10, packed], axis=1)
    others = (codes & 511).astype(np.float64) / ROTATION_STEPS * SQRT1_2 * np.where(codes & 512, -1.0, 1.0)
    return restore_largest((packed >> 30).astype(np.int64), others)[:, [3, 0, 1, 2]]


def error_bounds(gaussians: Gaussians, sh_bits: ShBits = ShBits()) -> ErrorBounds:
    """Return the errors that version 3 may make on these gaussians."""
    reach = float(np.max(np.abs(gaussians.means)))
    widest = sh_bucket_bound(min(sh_bits.first, sh_bits.rest) if gaussians.sh_degree > 1 else sh_bits.first)
    return ErrorBounds(
        means=Bound(0.5 / 2.0 ** choose_fraction_bits(gaussians) + reach * 1e-7),
        log_scales=Bound(1 / 32 + 1e-5, MIN_LOG_SCALE, MAX_LOG_SCALE),
        angle=smallest_three_angle(SQRT1_2 / ROTATION_STEPS),
        opacity=OPACITY_BOUND,
        sh_dc=Bound(0.5 / (COLOUR_SCALE * 255.0) + 1e-5, -0.5 / COLOUR_SCALE, 0.5 / COLOUR_SCALE),
        sh_rest=widest if gaussians.sh_degree else None,
    )
