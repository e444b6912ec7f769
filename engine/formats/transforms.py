"""transforms.json: camera poses as NeRF, instant-ngp and Nerfstudio write them. Read only, and from strangers: every number is checked.

    camera_angle_x          horizontal field of view, radians, or
    fl_x fl_y cx cy w h     focal lengths, principal point and size, pixels; of all photos or of one frame
    k1 k2 p1 p2 (k3 k4)     distortion as COLMAP's OPENCV; with camera_model OPENCV_FISHEYE (or is_fisheye) as OPENCV_FISHEYE
    frames[].file_path      photo, relative to the file, with or without extension
    frames[].transform_matrix   world_from_camera, OpenGL axes: x right, y up, z backwards

Sources: Nerfstudio's documentation, "Data conventions"; instant-ngp's docs/nerf_dataset_tips.md.
"""

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from engine.errors import InputError
from engine.scene import Array, Camera

MAX_BYTES = 64 << 20
MAX_FRAMES = 20_000
# Numbers beyond this are damage, not geometry: float32 has no digits left for a scene so far away.
MAX_COORDINATE = 1e6
MAX_SIDE = 100_000
MAX_PATH = 1000
# Rotations of float32 files are off by 1e-6, rounded by hand 1e-3.
ROTATION_TOLERANCE = 1e-2

_FOCAL = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4")
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Lens:
    """Intrinsics as the file gives them; None where it does not say. ``distortion`` is k1 k2 p1 p2 k3 k4, angles are radians."""

    values: dict[str, float]
    distortion: tuple[float, ...]
    is_fisheye: bool

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height that the intrinsics are for, pixels."""
        return (round(self.values["w"]), round(self.values["h"])) if {"w", "h"} <= self.values.keys() else None

    def camera(self, camera_id: int, photo_size: tuple[int, int]) -> Camera:
        """Return the camera; ``photo_size`` (width, height) stands in where the file gives no size."""
        width, height = self.size or photo_size
        given = self.values
        angle_x, angle_y = given.get("camera_angle_x"), given.get("camera_angle_y")
        fx = given.get("fl_x") or (_focal(width, angle_x) if angle_x else None)
        fy = given.get("fl_y") or (_focal(height, angle_y) if angle_y and not given.get("fl_x") else None) or fx
        fx = fx or fy
        assert fx is not None
        assert fy is not None
        pinhole = (fx, fy, given.get("cx", width / 2), given.get("cy", height / 2))
        k1, k2, p1, p2, k3, k4 = self.distortion
        if self.is_fisheye:
            return Camera(camera_id, "OPENCV_FISHEYE", width, height, (*pinhole, k1, k2, k3, k4))
        if any((k3, k4)):
            return Camera(camera_id, "FULL_OPENCV", width, height, (*pinhole, k1, k2, p1, p2, k3, k4, 0.0, 0.0))
        if any((k1, k2, p1, p2)):
            return Camera(camera_id, "OPENCV", width, height, (*pinhole, k1, k2, p1, p2))
        return Camera(camera_id, "PINHOLE", width, height, pinhole)


@dataclass(frozen=True)
class Frame:
    """One pose: ``path`` names the photo, without "./" in front; ``cam_from_world`` has OpenCV axes."""

    path: str
    lens: Lens
    cam_from_world: Array  # [3, 4] float64


def read_transforms(path: Path) -> list[Frame]:
    """Return the frames of a transforms.json, in the file's order and world.

    Raises ``InputError`` input.bad_poses naming the frame for whatever is not a whole, finite, rigid set of poses of distinct photos.
    """
    document = _load(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        _refuse(path, 'it has no list "frames"')
    if len(frames) > MAX_FRAMES:
        _refuse(path, f"it has {len(frames)} frames; at most {MAX_FRAMES} are read")
    read = [_frame(path, index, values, document) for index, values in enumerate(frames)]
    seen: set[str] = set()
    for frame in read:
        if frame.path in seen:
            _refuse(path, f"{frame.path} has two poses")
        seen.add(frame.path)
    return read


def _load(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_BYTES:
        _refuse(path, f"it has {size} bytes; at most {MAX_BYTES} are read")
    try:
        document = json.loads(path.read_bytes(), parse_constant=lambda word: _refuse(path, f"it holds the number {word}"))
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is not JSON ({str(error)[:200]})")
    if not isinstance(document, dict):
        _refuse(path, "it is not a JSON object")
    return document


def _frame(path: Path, index: int, values: Any, document: dict[str, Any]) -> Frame:
    if not isinstance(values, dict):
        _refuse(path, f"frame {index} is not an object")
    name = _photo_path(path, index, values.get("file_path"))
    lens = _lens(path, name, {**document, **values})
    return Frame(name, lens, _pose(path, name, values.get("transform_matrix")))


def _photo_path(path: Path, index: int, value: Any) -> str:
    if not isinstance(value, str) or not value:
        _refuse(path, f"frame {index} has no file_path")
    shown = ascii(value[:80])
    if len(value) > MAX_PATH or not value.isprintable():
        _refuse(path, f"frame {index}: file_path {shown} is no file name")
    parts = value.replace("\\", "/").split("/")
    if parts[0] == "" or ":" in parts[0] or ".." in parts:
        _refuse(path, f"frame {index}: file_path {shown} leads out of the folder; it must be relative and without ..")
    plain = "/".join(part for part in parts if part not in ("", "."))
    if not plain:
        _refuse(path, f"frame {index}: file_path {shown} is no file name")
    return plain


def _lens(path: Path, name: str, values: dict[str, Any]) -> Lens:
    model = values.get("camera_model", "OPENCV")
    if model not in (*_PERSPECTIVE, "OPENCV_FISHEYE"):
        _refuse(path, f"{name}: camera_model {str(model)[:40]!a} is not read; {', '.join(_PERSPECTIVE)} and OPENCV_FISHEYE are")
    given = {key: _number(path, f"{name}: {key}", values[key]) for key in _FOCAL if values.get(key) is not None}
    for key in ("fl_x", "fl_y", "w", "h"):
        if key in given and not 1.0 <= given[key] <= MAX_SIDE:
            _refuse(path, f"{name}: {key} is {given[key]:g} pixels")
    for key in ("cx", "cy"):
        if key in given and abs(given[key]) > MAX_SIDE:
            _refuse(path, f"{name}: {key} is {given[key]:g} pixels")
    for key in ("camera_angle_x", "camera_angle_y"):
        if key in given and not 1e-3 < given[key] < math.pi - 1e-3:
            _refuse(path, f"{name}: {key} is {given[key]:g}; it must lie between 0 and pi radians")
    if not given.keys() & {"fl_x", "fl_y", "camera_angle_x", "camera_angle_y"}:
        _refuse(path, f"{name} has neither camera_angle_x nor fl_x")
    distortion = tuple(_number(path, f"{name}: {key}", values.get(key) or 0.0) for key in _DISTORTION)
    if any(abs(value) > 100.0 for value in distortion):
        _refuse(path, f"{name}: its distortion is {', '.join(f'{value:g}' for value in distortion)}")
    return Lens(given, distortion, model == "OPENCV_FISHEYE" or values.get("is_fisheye") is True)


def _pose(path: Path, name: str, matrix: Any) -> Array:
    rows = matrix if isinstance(matrix, list) else []
    if len(rows) not in (3, 4) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        _refuse(path, f"{name}: its transform_matrix is not 4×4")
    values = np.array([[_number(path, f"{name}: its transform_matrix", value) for value in row] for row in rows])
    if len(rows) == 4 and not np.allclose(values[3], (0, 0, 0, 1), atol=1e-6):
        _refuse(path, f"{name}: the last row of its transform_matrix is not 0 0 0 1")
    return cam_from_world(path, name, rigid(path, name, values[:3, :3]) @ _OPENCV_FROM_OPENGL, values[:3, 3])


def rigid(path: Path, name: str, matrix: Array) -> Array:
    """Return the rotation nearest to ``matrix`` [3, 3]; ``InputError`` when it is none to ``ROTATION_TOLERANCE``."""
    if float(np.abs(matrix).max()) > 2.0 or float(np.abs(matrix @ matrix.T - np.eye(3)).max()) > ROTATION_TOLERANCE:
        _refuse(path, f"{name}: its matrix is no rotation")
    if np.linalg.det(matrix) < 0:
        _refuse(path, f"{name}: its matrix is a mirror image, not a rotation")
    u, _, vt = np.linalg.svd(matrix)
    nearest: Array = u @ vt
    return nearest


def cam_from_world(path: Path, name: str, world_from_cam: Array, centre: Array) -> Array:
    """Return the pose [3, 4] of a camera with axes ``world_from_cam`` [3, 3] at ``centre`` [3]; ``InputError`` when it is too far out."""
    if float(np.abs(centre).max()) > MAX_COORDINATE:
        _refuse(path, f"{name}: its position is {', '.join(f'{value:g}' for value in centre)}; at most {MAX_COORDINATE:g} can be used")
    rotation = world_from_cam.T
    return np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1)


def _number(path: Path, what: str, value: Any) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        _refuse(path, f"{what} has {str(value)[:40]!a} where a finite number is needed")
    return number


def _focal(side: int, angle: float) -> float:
    return 0.5 * side / math.tan(0.5 * angle)


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(
        "input.bad_poses",
        "Poses that cannot be used",
        f"{path.name}: {why}",
        "Mend or remove the file, or set poses.source=estimate to have the poses found from the photos.",
        {"name": path.name},
    )
