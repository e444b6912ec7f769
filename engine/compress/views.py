"""The views that compression looks through: those of the training photos, and a few to measure with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import InternalError
from engine.formats.colmap import read_reconstruction
from engine.options import TrainOptions
from engine.scene import Array, PinholeView

MEASURED = 4  # views in which a file is compared with what it was made from


@dataclass(frozen=True)
class NamedView:
    """The view of one photo, at the undistorted photo's full size."""

    name: str
    view: PinholeView
    is_held_out: bool


@dataclass(frozen=True)
class Views:
    """All views in order of photo name, and how large the place is that they look at (world units)."""

    photos: list[NamedView]
    centre: Array  # [3] mean of the camera centres
    extent: float
    max_side: int

    @property
    def training_size(self) -> list[PinholeView]:
        """All views at the size that training used."""
        return [at_most(each.view, self.max_side) for each in self.photos]

    @property
    def measured(self) -> list[PinholeView]:
        """Up to ``MEASURED`` views spread over the held-out photos (over all, where none is held out)."""
        pool = [each.view for each in self.photos if each.is_held_out] or [each.view for each in self.photos]
        chosen = np.unique(np.linspace(0, len(pool) - 1, min(MEASURED, len(pool))).round().astype(int))
        return [at_most(pool[index], self.max_side) for index in chosen]


def at_most(view: PinholeView, max_side: int) -> PinholeView:
    """Return the view with its longer side at most ``max_side`` pixels."""
    scale = min(1.0, max_side / max(view.width, view.height))
    return view.resized(max(1, round(view.width * scale)), max(1, round(view.height * scale)))


def load_views(undistorted: Path, options: TrainOptions) -> Views:
    """Return the views of an undistorted model.

    The extent is the cameras' greatest distance from their mean or the points' median distance from it, whichever is larger: cameras that
    hardly moved still look at something large.
    """
    scene = read_reconstruction(undistorted / "sparse")
    if not scene.images:
        raise InternalError("internal.missing_artefact", "Missing photos", "the undistorted model has no photos; run the poses stage again")
    photos = []
    for index, image in enumerate(scene.images):
        camera = scene.cameras[image.camera_id]
        if camera.model != "PINHOLE":
            raise InternalError("internal.not_pinhole", "Wrong camera model", f"{image.name} has camera model {camera.model}")
        fx, fy, cx, cy = camera.params
        is_held_out = bool(options.holdout_every) and len(scene.images) > 2 and index % options.holdout_every == 0
        view = PinholeView(image.cam_from_world, fx, fy, cx, cy, camera.width, camera.height)
        photos.append(NamedView(image.name, view, is_held_out))
    centres = np.stack([image.centre_in_world for image in scene.images])
    centre: Array = centres.mean(axis=0)
    reach = float(np.max(np.linalg.norm(centres - centre, axis=1)))
    depth = float(np.median(np.linalg.norm(scene.points.xyz - centre, axis=1))) if len(scene.points.xyz) else 0.0
    return Views(photos, centre, max(reach, depth, 1e-6), options.max_side)
