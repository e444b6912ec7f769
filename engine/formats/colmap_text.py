"""COLMAP's text model: cameras.txt, images.txt, points3D.txt. Read only: we write the binary form. Layout: COLMAP, "Output Format"."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from engine.errors import InputError
from engine.formats.colmap import MODEL_IDS, read_reconstruction
from engine.geometry import rotation_from_quat
from engine.scene import Camera, Image, Points3D, Reconstruction

FILES = ("cameras", "images", "points3D")
MAX_BYTES = 4 << 30
_MAX_SIDE = 2**20


def has_model(folder: Path) -> bool:
    """Return whether the folder holds a COLMAP model, binary or text."""
    return any(all((folder / f"{name}{suffix}").is_file() for name in FILES) for suffix in (".bin", ".txt"))


def read_model(folder: Path) -> Reconstruction:
    """Return the COLMAP model in ``folder``, binary where there is one, else text; images come sorted by name.

    Raises ``InputError`` (input.colmap_missing, input.colmap_invalid) with file, place and reason.
    """
    if (folder / "cameras.bin").is_file():
        return read_reconstruction(folder)
    cameras = _read_cameras(folder / "cameras.txt")
    images = _read_images(folder / "images.txt", cameras)
    return Reconstruction(cameras, sorted(images, key=lambda image: image.name), _read_points(folder / "points3D.txt"))


def _lines(path: Path, *, keep_empty: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines that are no comments."""
    if not path.is_file():
        raise InputError(
            "input.colmap_missing", "COLMAP model incomplete", f"{path.name} is missing", "Give a folder with all three files of the model."
        )
    if path.stat().st_size > MAX_BYTES:
        _bad(path, 0, f"it has more than {MAX_BYTES} bytes")
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                text = line.strip()
                if not text.startswith("#") and (text or keep_empty):
                    yield number, text
    except UnicodeDecodeError:
        _bad(path, 0, "it is not text")


def _read_cameras(path: Path) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    for number, line in _lines(path):
        words = line.split()
        if len(words) < 5 or words[1] not in MODEL_IDS:
            _bad(path, number, "no camera of a known model")
        camera_id, width, height = (_integer(path, number, word) for word in (words[0], words[2], words[3]))
        params = _numbers(path, number, words[4:])
        if len(params) != MODEL_IDS[words[1]][1]:
            _bad(path, number, f"{words[1]} has {MODEL_IDS[words[1]][1]} parameters, not {len(params)}")
        if not (0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE):
            _bad(path, number, f"a camera of {width}×{height} px")
        if camera_id in cameras:
            _bad(path, number, f"camera {camera_id} comes twice")
        cameras[camera_id] = Camera(camera_id, words[1], width, height, params)
    return cameras


def _read_images(path: Path, cameras: dict[int, Camera]) -> list[Image]:
    images: list[Image] = []
    names: set[str] = set()
    # Two lines an image: the pose, and the observations, which may be empty and are not needed.
    lines = _lines(path, keep_empty=True)
    for number, line in lines:
        if not line:
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            _bad(path, number, "an image needs an id, seven numbers, a camera and a name")
        pose = np.array(_numbers(path, number, words[1:8]))
        camera_id = _integer(path, number, words[8])
        if camera_id not in cameras:
            _bad(path, number, f"camera {camera_id} is not in cameras.txt")
        if not np.linalg.norm(pose[:4]) > 0:
            _bad(path, number, "the rotation is no quaternion")
        if words[9] in names:
            _bad(path, number, "two images have one name")
        names.add(words[9])
        rotation = rotation_from_quat(pose[:4])
        images.append(Image(_integer(path, number, words[0]), camera_id, words[9], np.concatenate([rotation, pose[4:, None]], axis=1)))
        next(lines, None)
    return images


def _read_points(path: Path) -> Points3D:
    xyz, rgb, error, tracks = [], [], [], []
    for number, line in _lines(path):
        words = line.split()
        if len(words) < 8:
            _bad(path, number, "a point needs an id, place, colour and error")
        values = _numbers(path, number, words[1:8])
        if not all(0 <= value <= 255 for value in values[3:6]):
            _bad(path, number, "a colour is outside 0..255")
        xyz.append(values[:3])
        rgb.append(values[3:6])
        error.append(values[6])
        tracks.append((len(words) - 8) // 2)
    return Points3D(
        np.array(xyz, np.float64).reshape(-1, 3),
        np.array(rgb, np.uint8).reshape(-1, 3),
        np.array(error, np.float64),
        np.array(tracks, np.int64),
    )


def _numbers(path: Path, number: int, words: list[str]) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        _bad(path, number, "a number cannot be read")
    if not all(math.isfinite(value) for value in values):
        _bad(path, number, "a number is not finite")
    return values


def _integer(path: Path, number: int, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        _bad(path, number, "an id or size is no whole number")
    return int(word)


def _bad(path: Path, number: int, what: str) -> NoReturn:
    raise InputError(
        "input.colmap_invalid", "COLMAP model damaged", f"{path.name}, line {number}: {what}", "Export the model again.", {"line": number}
    )
