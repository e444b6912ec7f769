"""Small photos for tests of the service: real files of every format, cheap to make."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 400, height: int = 300) -> Image.Image:
    """Return a picture that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def encoded(seed: int, kind: str = "JPEG", width: int = 400, height: int = 300) -> bytes:
    """Return a photo's bytes."""
    out = io.BytesIO()
    picture(seed, width, height).save(out, kind)
    return out.getvalue()


def wide_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a tiny file that claims to be huge: a decompression bomb."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Return files as httpx wants them."""
    return [("files", (name, data, "application/octet-stream")) for name, data in files]


def upload(client, capture_id: str, n_photos: int):
    """Upload so many good photos."""
    return client.post(f"/v1/captures/{capture_id}/photos", files=form(*((f"IMG_{n}.jpg", encoded(n)) for n in range(n_photos))))
