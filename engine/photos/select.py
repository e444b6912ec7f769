"""Which photos are worth keeping: measures of sharpness and content, and the search for copies."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

# Side of the thumbnail that copies are compared on: two neighbouring video frames must differ in it, and JPEG noise average out.
THUMB = 32
# Two photos are copies when their thumbnails differ by less than this: root mean square and worst pixel in grey levels of 255, and the
# former as a share of the thumbnail's own deviation, so that plain scenes are judged more strictly. Measured: re-encodes at quality 70 and
# half size 0.5 at most on photos; nearest distinct pair 8.0 on photos, 1.2 on the lego renders.
COPY_RMS = 0.6
COPY_WORST = 4.0
COPY_SHARE = 0.02
# The 1st and 99th percentile of grey nearer than this: nothing to see. A brightest per cent below DARK: lens cap or night.
FLAT_SPAN = 10.0
DARK = 20.0
# A photo whose sharpness is below this share of the median of its capture is worth a word.
BLURRED_SHARE = 0.15

SHARPNESS_SIDE = 640


@dataclass(frozen=True)
class Measures:
    """What is measured on the pixels of one upright photo."""

    sharpness: float
    span: float
    brightest: float
    thumb: npt.NDArray[np.float32]  # [THUMB, THUMB] float32, grey levels


def measure(photo: Image.Image) -> Measures:
    """Return the measures of an RGB photo. Sharpness is the variance of the Laplacian of the luma at 640 px (research/service.md 4.8)."""
    grey = photo.convert("L")
    grey.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BOX)
    luma = np.asarray(grey, np.float32)
    darkest, brightest = np.percentile(luma, (1, 99))
    # Bilinear has a wider, softer support than a box: the thumbnail then hardly depends on the size it was made from.
    thumb = np.asarray(photo.convert("L").resize((THUMB, THUMB), Image.Resampling.BILINEAR), np.float32)
    return Measures(laplacian_variance(luma), float(brightest - darkest), float(brightest), thumb)


def content_problem(measures: Measures) -> tuple[str, str] | None:
    """Return the reason code and words when a photo shows nothing that could be matched, else None."""
    if measures.brightest < DARK:
        return "photo.too_dark", f"is almost black (brightest level {measures.brightest:.0f} of 255)"
    if measures.span < FLAT_SPAN:
        return "photo.blank", f"is blank (its grey levels span {measures.span:.0f} of 255)"
    return None


def find_copies(
    thumbs: npt.NDArray[np.float32],  # [M, THUMB, THUMB] float32
    sizes: npt.NDArray[np.int64],  # [M] int64, pixels of the source
) -> dict[int, int]:
    """Return for each copy the photo it is a copy of; the largest of equal photos is kept, the first among equally large ones.

    The thresholds are strict on purpose: a copy that stays costs time, a photo wrongly dropped costs the scene.
    """
    flat = thumbs.reshape(len(thumbs), thumbs.shape[1] * thumbs.shape[2])
    copies: dict[int, int] = {}
    order = sorted(range(len(flat)), key=lambda row: (-int(sizes[row]), row))
    kept: list[int] = []
    for row in order:
        original = _original_of(flat, row, kept)
        if original is None:
            kept.append(row)
        else:
            copies[row] = original
    return copies


def blurred(sharpness: list[float]) -> list[int]:
    """Return the positions of photos far less sharp than the median."""
    if len(sharpness) < 5:
        return []
    limit = BLURRED_SHARE * float(np.median(sharpness))
    return [index for index, value in enumerate(sharpness) if value < limit]


def _original_of(flat: npt.NDArray[np.float32], row: int, kept: list[int]) -> int | None:
    if not kept:
        return None
    difference = np.abs(flat[kept] - flat[row])
    rms = np.sqrt((difference**2).mean(axis=1))
    limit = min(COPY_RMS, COPY_SHARE * float(flat[row].std()))
    is_copy = (rms <= limit) & (difference.max(axis=1) < COPY_WORST)
    return kept[int(np.argmax(is_copy))] if is_copy.any() else None


def laplacian_variance(luma: npt.NDArray[np.float32]) -> float:  # [H, W] float32
    """Return how sharp a luma is: the variance of its Laplacian."""
    if min(luma.shape) < 3:
        return 0.0
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4.0 * centre
    return float(laplacian.var())
