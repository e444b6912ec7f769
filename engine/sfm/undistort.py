"""Write the model, and photos and model without lens distortion, for the trainer."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from PIL import Image

from engine.errors import InternalError
from engine.geometry import Array, Similarity
from engine.sfm.context import Context, Report
from engine.unfinished import Pieces, place
from engine.workspace import Workspace

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


@dataclass(frozen=True)
class Straightener:
    """Takes the lens distortion out of photos and of the layers they came with; longer sides end at most ``max_side``.

    Cut-outs stay over black, which is right for bilinear resampling: colours are multiplied by alpha.
    """

    workspace: Workspace
    max_side: int
    folder: Path

    def layers(self) -> dict[str, Path]:
        """Return where masks and alpha lie, by name."""
        return {"masks": self.workspace.masks, "alpha": self.workspace.alpha}

    def straighten(self, name: str, camera: pycolmap.Camera) -> list[Path]:
        """Write a photo and its layers below ``folder``; return the files.

        Raises ``InternalError`` when the photo cannot be read or written.
        """
        photo = self.folder / "images" / name
        bitmap = pycolmap.Bitmap.read(self.workspace.images / name, as_rgb=True)
        is_written = False
        if bitmap is not None:
            straight, _ = pycolmap.undistort_image(_options(self.max_side), bitmap, camera)
            straight.set_jpeg_quality(_JPEG_QUALITY)
            is_written = straight.write(photo)
        if not is_written:
            raise InternalError("internal.undistort_failed", "Undistortion failed", f"{name} was not written without its lens distortion")
        return [photo, *(self._layer(layer, name, camera) for layer, given in self.layers().items() if (given / f"{name}.png").is_file())]

    def _layer(self, layer: str, name: str, camera: pycolmap.Camera) -> Path:
        """Write a layer as its photo was undistorted: a mask from the nearest pixel, alpha bilinearly, as the colours are."""
        options, is_mask, output = _options(self.max_side), layer == "masks", self.folder / layer / f"{name}.png"
        if is_mask:
            options.warp_options.interpolation = pycolmap.WarpImageOptions.Interpolation.NEAREST_NEIGHBOR
        with Image.open(self.layers()[layer] / f"{name}.png") as opened:
            levels = np.asarray(opened.convert("L"))
        bitmap, _ = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(levels), camera)
        straight = np.asarray(bitmap.to_array(), np.uint8)
        straight = straight.reshape(straight.shape[:2])
        # A layer that was made smaller on the way is interpolated all the same.
        straight = np.where(straight < _HALF, 0, 255).astype(np.uint8) if is_mask else straight
        Image.fromarray(straight).save(output, "PNG", compress_level=1)
        return output


def undistort(context: Context, straightener: Straightener, output: Path, pieces: Pieces, report: Report) -> None:
    """Fill ``output``: images/, masks/, alpha/ and sparse/ with every camera PINHOLE. Photos that an attempt kept are not done again."""
    model = pycolmap.Reconstruction(straightener.workspace.sparse)
    cameras = {model.image(key).name: model.camera(model.image(key).camera_id) for key in model.reg_image_ids()}
    for layer in ("images", *straightener.layers()):
        (straightener.folder / layer).mkdir(parents=True, exist_ok=True)
        (output / layer).mkdir()
    kept = {name: pieces.get(_piece(name), _made_from(straightener, camera)) for name, camera in sorted(cameras.items())}
    n_kept = len(kept) - sum(said is None for said in kept.values())
    for said in kept.values():
        _place([] if said is None else [straightener.folder / path for path in said["files"]], output)
    with ThreadPoolExecutor(context.n_threads) as pool:
        works = {name: pool.submit(straightener.straighten, name, cameras[name]) for name, said in kept.items() if said is None}
        try:
            for n_done, (name, work) in enumerate(works.items(), start=n_kept + 1):
                files = work.result()
                said = {"files": [str(path.relative_to(straightener.folder)) for path in files]}
                pieces.put(_piece(name), said, files, _made_from(straightener, cameras[name]))
                _place(files, output)
                report(n_done / len(kept), f"{n_done} of {len(kept)} photos without lens distortion")
        finally:
            for work in works.values():
                work.cancel()
    _write_model(context, straightener, next(iter(cameras)), output)


def _place(files: list[Path], output: Path) -> None:
    for path in files:
        place([path], output / path.parent.name)


def _piece(name: str) -> str:
    return f"straight-{name}"


def _made_from(straightener: Straightener, camera: pycolmap.Camera) -> dict[str, Any]:
    """Photo and layers belong to the folder's key; the camera and the size do not."""
    lens = [camera.model_name, camera.width, camera.height, *(float(value).hex() for value in camera.params)]
    return {"camera": lens, "max_side": straightener.max_side, "quality": _JPEG_QUALITY}


def _write_model(context: Context, straightener: Straightener, name: str, output: Path) -> None:
    """Write the model that belongs to the straight photos; pycolmap does so only along with a photo, which is thrown away."""
    with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
        pycolmap.undistort_images(
            scratch, straightener.workspace.sparse, context.images, [name], undistort_options=_options(straightener.max_side)
        )
        shutil.move(Path(scratch) / "sparse", output / "sparse")


def _options(max_side: int) -> pycolmap.UndistortCameraOptions:
    options = pycolmap.UndistortCameraOptions()
    options.max_image_size = max_side
    return options
