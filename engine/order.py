"""The order of gaussians in memory and in files: along a Morton curve, so that neighbours in space are neighbours in the row order."""

import numpy as np
import numpy.typing as npt

BITS = 21  # per axis; three of them fill 63 bits


def morton_order(means: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the permutation that sorts means [N, 3] along the Z curve of their bounding box; equal places keep their order.

    Axes are taken as sign(x) log(1 + |x - median|), so that one far gaussian does not put all others into one cell. Source: Morton 1966.
    """
    centred = means.astype(np.float64) - np.median(means, axis=0)
    mapped = np.sign(centred) * np.log1p(np.abs(centred))
    low, span = mapped.min(axis=0), np.ptp(mapped, axis=0).max()
    cells = ((mapped - low) / (span if span > 0 else 1.0) * ((1 << BITS) - 1)).astype(np.uint64)
    keys = _spread(cells[:, 0]) | _spread(cells[:, 1]) << np.uint64(1) | _spread(cells[:, 2]) << np.uint64(2)
    return np.argsort(keys, kind="stable").astype(np.int64)


def _spread(cells: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Put two zero bits between the bits of 21-bit numbers."""
    spread = cells
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
    return spread
