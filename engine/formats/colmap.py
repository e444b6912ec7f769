"""COLMAP's binary model: cameras.bin, images.bin, points3D.bin, read and written with numpy.

Rotations are stored as quaternions wxyz, as in the engine. Newer rigs.bin and frames.bin beside them are not needed. Layout: COLMAP's
documentation, "Output Format". Every count is checked against the bytes there are before anything is allocated.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.geometry import quat_from_rotation, rotation_from_quat
from engine.scene import Array, Camera, Image, Observations, Points3D, Reconstruction
from engine.workspace import replacing

# Name and number of parameters by COLMAP's model id.
MODELS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
MODEL_IDS = {name: (number, n_params) for number, (name, n_params) in MODELS.items()}

_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_COUNT = struct.Struct("<Q")
_POINT = struct.Struct("<Q3d3BdQ")
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])  # pixels; id of the point, -1 for none
_OBSERVATION_BYTES = _OBSERVATION.itemsize
_TRACK_BYTES = 8  # image id, index of the observation, uint32
_MAX_NAME = 4096


class _Reader:
    """A cursor over a file's bytes that refuses to run past the end."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(
                "input.colmap_missing", "COLMAP model incomplete", f"{path.name} is missing", "Give a folder with all three .bin files."
            )
        self.name = path.name
        self.data = path.read_bytes()
        self.offset = 0

    def bad(self, what: str) -> InputError:
        return InputError(
            "input.colmap_invalid", "COLMAP model damaged", f"{self.name}, byte {self.offset}: {what}", "Export the model again."
        )

    def skip(self, size: int) -> int:
        start = self.offset
        if size > len(self.data) - start:
            raise self.bad(f"needs {size} more bytes, the file has {len(self.data) - start}")
        self.offset += size
        return start

    def take(self, layout: struct.Struct) -> tuple[float, ...]:
        return layout.unpack_from(self.data, self.skip(layout.size))

    def take_count(self, least_bytes: int) -> int:
        count = int(self.take(_COUNT)[0])
        if count * least_bytes > len(self.data) - self.offset:
            raise self.bad(f"announces {count} entries, more than the file can hold")
        return count

    def take_name(self) -> str:
        end = self.data.find(b"\0", self.offset, self.offset + _MAX_NAME)
        if end < 0:
            raise self.bad("a name does not end")
        raw = self.data[self.offset : end]
        self.offset = end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.bad("a name is not UTF-8") from error

    def end(self) -> None:
        if self.offset != len(self.data):
            raise self.bad(f"{len(self.data) - self.offset} bytes too many")


def read_reconstruction(folder: Path) -> Reconstruction:
    """Read the three files in ``folder``; images come sorted by name.

    Raises ``InputError`` (input.colmap_missing, input.colmap_invalid) with file, byte and reason for whatever is not a whole, finite model.
    """
    cameras = _read_cameras(_Reader(folder / "cameras.bin"))
    images = _read_images(_Reader(folder / "images.bin"), cameras)
    points = _read_points(_Reader(folder / "points3D.bin"))
    return Reconstruction(cameras, sorted(images, key=lambda image: image.name), points)


def read_observations(folder: Path) -> dict[str, Observations]:
    """Return, by photo name, where each photo saw which sparse points; empty where the model came without tracks.

    Raises ``InputError`` as ``read_reconstruction`` does.
    """
    reader = _Reader(folder / "images.bin")
    seen: dict[str, Observations] = {}
    for _ in range(reader.take_count(_IMAGE.size + 1 + _COUNT.size)):
        reader.take(_IMAGE)
        name = reader.take_name()
        count = reader.take_count(_OBSERVATION_BYTES)
        rows = np.frombuffer(reader.data, _OBSERVATION, count, reader.skip(count * _OBSERVATION_BYTES))
        rows = rows[rows["point"] >= 0]
        seen[name] = Observations(rows["xy"], rows["point"])
    reader.end()
    return seen


def write_reconstruction(folder: Path, reconstruction: Reconstruction) -> None:
    """Write the three files, each aside and then renamed. Observations are not part of a ``Reconstruction``: tracks are written empty."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "cameras.bin": _camera_bytes(reconstruction),
        "images.bin": _image_bytes(reconstruction),
        "points3D.bin": _point_bytes(reconstruction.points),
    }
    for name, data in parts.items():
        with replacing(folder / name) as aside:
            aside.write_bytes(data)


def _read_cameras(reader: _Reader) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    for _ in range(reader.take_count(_CAMERA.size)):
        camera_id, model, width, height = (int(value) for value in reader.take(_CAMERA))
        if model not in MODELS:
            raise reader.bad(f"camera model {model} is unknown")
        if camera_id in cameras:
            raise reader.bad(f"camera {camera_id} comes twice")
        if not (0 < width < 2**20 and 0 < height < 2**20):
            raise reader.bad(f"a camera of {width}×{height} px")
        name, n_params = MODELS[model]
        params = reader.take(struct.Struct(f"<{n_params}d"))
        if not np.all(np.isfinite(params)):
            raise reader.bad("a camera's parameters are not finite")
        cameras[camera_id] = Camera(camera_id, name, width, height, params)
    reader.end()
    return cameras


def _read_images(reader: _Reader, cameras: dict[int, Camera]) -> list[Image]:
    images: list[Image] = []
    for _ in range(reader.take_count(_IMAGE.size + 1 + _COUNT.size)):
        image_id, *pose, camera_id = reader.take(_IMAGE)
        if camera_id not in cameras:
            raise reader.bad(f"image {int(image_id)} has camera {int(camera_id)}, which cameras.bin lacks")
        name = reader.take_name()
        images.append(Image(int(image_id), int(camera_id), name, _pose_matrix(reader, pose)))
        reader.skip(reader.take_count(_OBSERVATION_BYTES) * _OBSERVATION_BYTES)
    reader.end()
    if len({image.name for image in images}) != len(images):
        raise reader.bad("two images have one name")
    return images


def _pose_matrix(reader: _Reader, pose: list[float]) -> Array:
    values = np.array(pose)
    if not np.all(np.isfinite(values)) or not np.linalg.norm(values[:4]) > 0:
        raise reader.bad("an image's pose is not finite")
    return np.concatenate([rotation_from_quat(values[:4]), values[4:, None]], axis=1)


def _read_points(reader: _Reader) -> Points3D:
    count = reader.take_count(_POINT.size)
    xyz, rgb = np.empty((count, 3)), np.empty((count, 3), np.uint8)
    error, tracks = np.empty(count), np.empty(count, np.int64)
    for row in range(count):
        # Tracks have no fixed length, so the file cannot be read as one array.
        _, x, y, z, red, green, blue, error[row], length = reader.take(_POINT)
        reader.skip(int(length) * _TRACK_BYTES)
        xyz[row], rgb[row], tracks[row] = (x, y, z), (red, green, blue), length
    reader.end()
    if not (np.all(np.isfinite(xyz)) and np.all(np.isfinite(error))):
        raise reader.bad("a point is not finite")
    return Points3D(xyz, rgb, error, tracks)


def _camera_bytes(reconstruction: Reconstruction) -> bytes:
    parts = [_COUNT.pack(len(reconstruction.cameras))]
    for camera in reconstruction.cameras.values():
        number, n_params = MODEL_IDS[camera.model]
        parts.append(_CAMERA.pack(camera.camera_id, number, camera.width, camera.height))
        parts.append(struct.pack(f"<{n_params}d", *camera.params))
    return b"".join(parts)


def _image_bytes(reconstruction: Reconstruction) -> bytes:
    parts = [_COUNT.pack(len(reconstruction.images))]
    for image in reconstruction.images:
        quat = quat_from_rotation(image.cam_from_world[:, :3])
        parts.append(_IMAGE.pack(image.image_id, *quat, *image.cam_from_world[:, 3], image.camera_id))
        parts.append(image.name.encode() + b"\0" + _COUNT.pack(0))
    return b"".join(parts)


def _point_bytes(points: Points3D) -> bytes:
    layout: npt.DTypeLike = [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")]
    rows = np.zeros(len(points.xyz), layout)
    rows["id"] = np.arange(1, len(rows) + 1)
    rows["xyz"], rows["rgb"], rows["error"] = points.xyz, points.rgb, points.error_px
    return _COUNT.pack(len(rows)) + rows.tobytes()
