"""Where features may be looked for: not in what a mask hides, nor in or at the rim of what is cut out."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from engine.sfm.context import Photo

# Pixels at the rim of a cut-out: a feature there describes the black behind as much as the object, and moves with the view.
_RIM_PX = 2
_COVERED = 128  # of 255


def write_feature_masks(photos: list[Photo], masks: Path, alpha: Path, folder: Path) -> Path | None:
    """Write into ``folder`` what COLMAP takes as masks, NAME.png with 0 for no features, from masks and alpha of the photos.

    Returns ``folder``, or None when no photo has either.
    """
    if not any((source / f"{photo.name}.png").is_file() for photo in photos for source in (masks, alpha)):
        return None
    folder.mkdir()
    for photo in photos:
        # COLMAP leaves out a photo that lacks a mask where others have one.
        allowed = _allowed(photo, masks, alpha) or Image.new("L", (photo.width, photo.height), 255)
        allowed.save(folder / f"{photo.name}.png", "PNG", compress_level=1)
    return folder


def _allowed(photo: Photo, masks: Path, alpha: Path) -> Image.Image | None:
    mask, cover = (_read(source / f"{photo.name}.png") for source in (masks, alpha))
    if cover is None:
        return mask
    covered = cover.point([255 if level >= _COVERED else 0 for level in range(256)])
    inside = covered.filter(ImageFilter.MinFilter(2 * _RIM_PX + 1))
    return inside if mask is None else Image.fromarray(np.minimum(np.asarray(inside), np.asarray(mask)))


def _read(path: Path) -> Image.Image | None:
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        return opened.convert("L")
