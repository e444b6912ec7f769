"""Where features may be looked for: not in what a mask hides, nor outside of what is cut out."""

from pathlib import Path

import numpy as np
from PIL import Image

from engine.sfm.context import Photo

# Features at the rim stay: without a rim of 2 px two of the 100 photos of lego found no place.
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
    return covered if mask is None else Image.fromarray(np.minimum(np.asarray(covered), np.asarray(mask)))


def _read(path: Path) -> Image.Image | None:
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        return opened.convert("L")
