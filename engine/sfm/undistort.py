"""Write the model, and photos and model without lens distortion, for the trainer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from PIL import Image

from engine.errors import InternalError
from engine.geometry import Array, Similarity
from engine.sfm.context import Context

# The photos are encoded a second time here: high enough not to show.
_JPEG_QUALITY = 97
_HALF = 128


def apply_similarity(reconstruction: Any, similarity: Similarity) -> None:
    """Move a reconstruction into another frame, in place."""
    matrix = np.concatenate([similarity.scale * similarity.rotation, similarity.translation[:, None]], axis=1)
    reconstruction.transform(pycolmap.Sim3d(matrix))


def point_positions(reconstruction: Any) -> Array:
    """Return the points of a reconstruction, [P, 3], in the order of their ids."""
    points = reconstruction.points3D
    return np.array([points[key].xyz for key in sorted(points)], np.float64).reshape(-1, 3)


def undistort(context: Context, sparse: Path, output: Path, max_side: int) -> None:
    """Write ``output``/images and ``output``/sparse: every camera PINHOLE, longer sides at most ``max_side``.

    Cut-outs stay over black, which is right for bilinear resampling: colours are multiplied by alpha.

    Raises ``InternalError`` when a photo of the model is missing afterwards (pycolmap skips what it cannot write with a log line only).
    """
    options = _options(max_side)
    pycolmap.undistort_images(
        output, sparse, context.images, undistort_options=options, jpeg_quality=_JPEG_QUALITY, num_threads=context.n_threads
    )
    for extra in output.iterdir():
        if extra.name not in ("images", "sparse"):
            shutil.rmtree(extra) if extra.is_dir() else extra.unlink()
    expected = pycolmap.Reconstruction(sparse)
    missing = [expected.image(key).name for key in expected.reg_image_ids() if not (output / "images" / expected.image(key).name).is_file()]
    if missing:
        raise InternalError(
            "internal.undistort_failed", "Undistortion failed", f"{len(missing)} photos were not written, first {missing[0]}"
        )


def undistort_layer(layer: Path, sparse: Path, output: Path, max_side: int, *, is_mask: bool) -> None:
    """Write the layer NAME.png of each photo of the model that has one into ``output`` as its photo was undistorted.

    A mask is taken from the nearest pixel, alpha bilinearly, as the colours are.
    """
    options = _options(max_side)
    if is_mask:
        options.warp_options.interpolation = pycolmap.WarpImageOptions.Interpolation.NEAREST_NEIGHBOR
    model = pycolmap.Reconstruction(sparse)
    output.mkdir()
    for key in model.reg_image_ids():
        image = model.image(key)
        path = layer / f"{image.name}.png"
        if not path.is_file():
            continue
        with Image.open(path) as opened:
            levels = np.asarray(opened.convert("L"))
        bitmap, _ = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(levels), model.camera(image.camera_id))
        straight = np.asarray(bitmap.to_array(), np.uint8)
        straight = straight.reshape(straight.shape[:2])
        # A layer that was made smaller on the way is interpolated all the same.
        straight = np.where(straight < _HALF, 0, 255).astype(np.uint8) if is_mask else straight
        Image.fromarray(straight).save(output / f"{image.name}.png", "PNG", compress_level=1)


def _options(max_side: int) -> pycolmap.UndistortCameraOptions:
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = max_side
    return options
