"""Folders of photos that must end in a clear error, or succeed with the bad one named: the list of issue A, "Bad input"."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.cameras import Walk
from tests.data.make_data import exif, make_capture

HOSTILE_NAMES = (
    "..%2F..%2Fetc%2Fpasswd.jpg",
    "a b;rm -rf $HOME`id`.jpg",
    "Übermäßig schön – 写真 📷.jpg",
    "con.jpg",
    "-rf.jpg",
    "'); DROP TABLE photos;--.jpg",
    "<script>alert(1).jpg",
    "x" * 180 + ".jpg",
)


def copies(folder: Path, photo: Path, n: int = 40) -> Path:
    """Write ``n`` copies of one photo, byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        shutil.copyfile(photo, folder / f"copy_{index:02d}.jpg")
    return folder


def blank(folder: Path, n: int = 5, size: tuple[int, int] = (640, 480)) -> Path:
    """Write photos of nothing, each of another grey, with a little noise so that no two are the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(n):
        pixels = rng.normal(90 + 20 * index, 0.4, (size[1], size[0], 3))
        Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(folder / f"blank_{index}.jpg", quality=92, exif=exif())
    return folder


def text_as_jpeg(path: Path) -> Path:
    """Write a text file that is called .jpg."""
    path.write_text("This is not a photo, whatever its name says.\n" * 40)
    return path


def truncated(path: Path, photo: Path, share: float = 0.6) -> Path:
    """Write the first part of a photo's bytes, as a broken upload leaves them."""
    whole = photo.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def two_scenes(folder: Path, n: int = 8, size: tuple[int, int] = (640, 480)) -> Path:
    """Write ``n`` photos of one scene, called a_…, and ``n`` of another, called b_…; nothing joins them."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, seed in (("a", 0), ("b", 3)):
        part = folder.parent / f"{folder.name}-{prefix}"
        make_capture(part, Walk(n, *size, seed=seed, turn_every=0))
        for photo in sorted(part.glob("*.jpg")):
            photo.rename(folder / f"{prefix}_{photo.name}")
    return folder


def wide_png(path: Path, width: int = 60_000, height: int = 4_000) -> Path:
    """Write a valid grey PNG of ``width`` × ``height`` pixels in some kilobytes, row by row: a decompression bomb."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""))
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile_names(folder: Path, photos: list[Path]) -> dict[str, str]:
    """Copy photos under names that break careless programs; return hostile name -> name of the photo it is."""
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(zip(HOSTILE_NAMES, photos, strict=False))
    for name, photo in given.items():
        shutil.copyfile(photo, folder / name)
    return {name: photo.name for name, photo in given.items()}
