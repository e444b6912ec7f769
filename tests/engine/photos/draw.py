"""Little photos to test with: textured, distinct by seed."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def texture(seed: int, width: int = 400, height: int = 300) -> Image.Image:
    """Smooth coloured noise, different for each seed."""
    grid = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


def jpeg_bytes(photo: Image.Image, quality: int = 95, **more: object) -> bytes:
    """The photo as a JPEG file."""
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=quality, **more)
    return data.getvalue()


def write_photos(folder: Path, count: int, start: int = 0) -> None:
    """Write distinct good photos IMG_0.jpg, IMG_1.jpg, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(start, start + count):
        (folder / f"IMG_{seed}.jpg").write_bytes(jpeg_bytes(texture(seed)))
