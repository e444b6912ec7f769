"""The order of gaussians in memory and in files: along a Morton curve, so that neighbours in space are neighbours in the row order."""

import numpy as np
import numpy.typing as npt
import torch

BITS = 21  # per axis; three of them fill 63 bits
SPREAD = (  # shifts and masks that put two zero bits between the bits of such a number
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


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
    for shift, mask in SPREAD:
        spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
    return spread


def morton_order_of(means: torch.Tensor) -> torch.Tensor:  # [N, 3] float32 -> [N] int64
    """Return ``morton_order`` of means on any device, on that device: a card sorts without bringing them to the host."""
    if means.device.type == "cpu":
        return torch.from_numpy(morton_order(means.numpy()))
    return order_on_card(means)


def order_on_card(means: torch.Tensor) -> torch.Tensor:  # [N, 3] float32 -> [N] int64
    """Return the same order by torch's operations; where a card's logarithm rounds otherwise, neighbouring cells may change places."""
    centred = means.double()
    ordered = centred.sort(dim=0).values
    centred -= (ordered[(len(means) - 1) // 2] + ordered[len(means) // 2]) / 2.0
    mapped = centred.sign() * centred.abs().log1p()
    low, high = mapped.amin(dim=0), mapped.amax(dim=0)
    span = (high - low).amax()
    cells = ((mapped - low) / torch.where(span > 0, span, 1.0) * ((1 << BITS) - 1)).long()
    for shift, mask in SPREAD:
        cells = (cells | cells << shift) & mask
    keys = cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
    return keys.sort(stable=True).indices
