"""What a mapper returns, judged: the largest sound group of its models, and the photos outside it."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.sfm.sound import sound_groups

# Fewer photos than this make no model.
MIN_MODEL_SIZE = 3


@dataclass(frozen=True)
class Model:
    """The best reconstruction of one attempt, reduced to its largest sound group; ``others`` are further groups of photo names."""

    reconstruction: Any = None
    names: list[str] = field(default_factory=list)
    others: list[list[str]] = field(default_factory=list)
    n_points: int = 0
    error_px: float = 0.0

    def __len__(self) -> int:
        return len(self.names)


def best_model(reconstructions: list[Any]) -> Model:
    """Return the model with the most sound photos, most points among equals; an empty ``Model`` when there is none of three photos.

    The reconstruction is changed in place: photos outside the group are taken out of it, with points that then have under two views.
    """
    judged = [(reconstruction, group) for reconstruction in reconstructions for group in _groups(reconstruction)]
    if not judged:
        return Model()
    judged.sort(key=lambda each: (-len(each[1]), -each[0].num_points3D(), each[1]))
    reconstruction, names = judged[0]
    others = [group for _, group in judged[1:]]
    _keep_only(reconstruction, set(names))
    return Model(reconstruction, names, others, reconstruction.num_points3D(), float(reconstruction.compute_mean_reprojection_error()))


def _groups(reconstruction: Any) -> list[list[str]]:
    ids = sorted(reconstruction.reg_image_ids())
    index = {image_id: row for row, image_id in enumerate(ids)}
    tracks = [[index[element.image_id] for element in point.track.elements] for point in reconstruction.points3D.values()]
    groups = sound_groups(tracks, len(ids)) if tracks else []
    return [sorted(reconstruction.image(ids[row]).name for row in group) for group in groups if len(group) >= MIN_MODEL_SIZE]


def _keep_only(reconstruction: Any, names: set[str]) -> None:
    for image_id in list(reconstruction.reg_image_ids()):
        image = reconstruction.image(image_id)
        if image.name not in names:
            reconstruction.deregister_frame(image.frame_id)
    reconstruction.update_point_3d_errors()


def write_model(reconstruction: Any, folder: Path) -> None:
    """Write a model into a folder. Raises ``OSError`` when the disk is full: COLMAP goes on all the same, and chokes on reading that."""
    reconstruction.write(folder)
    images = [reconstruction.image(image_id) for image_id in reconstruction.reg_image_ids()]
    expected = {
        "images.bin": 8 + sum(73 + len(image.name.encode()) + 24 * image.num_points2D() for image in images),
        "points3D.bin": 8 + 51 * reconstruction.num_points3D() + 8 * reconstruction.compute_num_observations(),
    }
    for name, size_bytes in expected.items():
        if (folder / name).stat().st_size != size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / name))


def poses_of(reconstruction: Any) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return ``cam_from_world``, [3, 4], of the registered photos by name, in order of names."""
    images = sorted((reconstruction.image(image_id) for image_id in reconstruction.reg_image_ids()), key=lambda image: image.name)
    return {image.name: np.asarray(image.cam_from_world().matrix(), np.float64) for image in images}
