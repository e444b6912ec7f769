"""Little videos for tests: real files that OpenCV writes."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

MPEG4, MOTION_JPEG = "mp4v", "MJPG"


def write_video(path: Path, frames: Iterable[Image.Image], per_s: float = 10.0, codec: str = MPEG4) -> Path:
    """Write frames of one size; the name's ending chooses the container."""
    writer = None
    for frame in frames:
        if writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), per_s, frame.size)
            assert writer.isOpened()
        writer.write(np.ascontiguousarray(np.asarray(frame.convert("RGB"))[:, :, ::-1]))
    writer.release()
    return path


def different(count: int, start: int = 0, width: int = 400, height: int = 304) -> list[Image.Image]:
    """Return so many pictures that have nothing in common, with detail that a blur takes away."""
    grain = (height // 8, width // 8, 3)
    rough = [np.random.default_rng(seed).integers(0, 256, grain, dtype=np.uint8) for seed in range(start, start + count)]
    return [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in rough]


def video_bytes(folder: Path, name: str = "walk.mp4", count: int = 8, per_s: float = 4.0) -> bytes:
    """Return a video of different pictures, two of them in each half second."""
    return write_video(folder / name, different(count), per_s).read_bytes()
