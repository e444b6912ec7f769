"""Cameras, photos and points of a reconstruction, as the engine passes them between functions (numpy)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A camera model in COLMAP's terms: ``model`` is PINHOLE, SIMPLE_RADIAL, …; ``params`` in COLMAP's order, pixels."""

    camera_id: int
    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """One registered photo. ``cam_from_world`` is [3, 4]: rotation and translation, OpenCV axes."""

    image_id: int
    camera_id: int
    name: str
    cam_from_world: Array  # [3, 4] float64

    @property
    def centre_in_world(self) -> Array:
        """Position of the camera's centre, [3]."""
        centre: Array = -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]
        return centre


@dataclass(frozen=True)
class Points3D:
    """The sparse points. ``tracks[i]`` is how many photos saw point i."""

    xyz: Array  # [P, 3] float64
    rgb: npt.NDArray[np.uint8]  # [P, 3] uint8
    error_px: Array  # [P] float64, mean reprojection error
    tracks: npt.NDArray[np.int64]  # [P] int64


@dataclass(frozen=True)
class Observations:
    """Where one photo saw which sparse points: pixels from the top left corner, and the points' ids in the model."""

    xy: Array  # [K, 2] float64
    point: npt.NDArray[np.int64]  # [K] int64


@dataclass(frozen=True)
class Reconstruction:
    """Cameras by id, images sorted by name, points."""

    cameras: dict[int, Camera]
    images: list[Image]
    points: Points3D


@dataclass(frozen=True)
class PinholeView:
    """One pinhole camera in place: all that the renderer needs. Pixel centres at .5."""

    cam_from_world: Array  # [3, 4] float64
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def resized(self, width: int, height: int) -> "PinholeView":
        """Return the view for the same photo resampled to ``width`` × ``height`` pixels."""
        sx, sy = width / self.width, height / self.height
        return PinholeView(self.cam_from_world, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, width, height)
