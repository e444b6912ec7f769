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
    folder.mkdir()
    written = 0
    for photo in photos:
        mask, cover = (_read(source / f"{photo.name}.png") for source in (masks, alpha))
        if cover is not None:
            covered = cover.point([255 if level >= _COVERED else 0 for level in range(256)])
            inside = covered.filter(ImageFilter.MinFilter(2 * _RIM_PX + 1))
            mask = inside if mask is None else Image.fromarray(np.minimum(np.asarray(inside), np.asarray(mask)))
        if mask is not None:
            mask.save(folder / f"{photo.name}.png", "PNG", compress_level=1)
            written += 1
    return folder if written else None


def _read(path: Path) -> Image.Image | None:
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        return opened.convert("L")
