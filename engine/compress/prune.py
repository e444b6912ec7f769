"""Dropping gaussians that give nothing, or least, to the photos."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from engine.formats.quantize import sigmoid
from engine.gaussians import Gaussians, to_rows
from engine.render import render_rows
from engine.scene import Array, PinholeView
from kernels.step import Device

MIN_OPACITY = 1 / 255  # the renderers skip what is fainter
HAZE = 0.1  # a gaussian that never makes more than this of a pixel is haze if it is a lone giant
GIANT = 1.0  # times the extent of the scene
ISOLATED = 10.0  # times the median distance to the three nearest others

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Contribution:
    """What each gaussian gives to all views: the sum and the greatest of its blending weights (alpha times transmittance), [N]."""

    sums: npt.NDArray[np.float32]
    peaks: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pruned:
    """Which rows stay, in their old order, what they contribute, and how many went for which reason."""

    kept: npt.NDArray[np.int64]
    contribution: Contribution
    dropped: dict[str, int]


@dataclass
class Tally:
    """What gaussians gave to the views so far: as ``Contribution``, on the device, [N] float32."""

    sums: torch.Tensor
    peaks: torch.Tensor
    n_views: int = 0

    @classmethod
    def of(cls, contribution: Contribution, n_views: int, device: Device) -> "Tally":
        """Return the tally after ``n_views`` views; the arrays stay as they are."""
        sums, peaks = (torch.tensor(each, device=device.tensors) for each in (contribution.sums, contribution.peaks))
        return cls(sums, peaks, n_views)

    @classmethod
    def begun(cls, n: int, device: Device) -> "Tally":
        """Return the tally of ``n`` gaussians before the first view."""
        return cls(torch.zeros(n, device=device.tensors), torch.zeros(n, device=device.tensors))

    @property
    def contribution(self) -> Contribution:
        """What was given so far, on the host."""
        return Contribution(self.sums.cpu().numpy(), self.peaks.cpu().numpy())


def measure_contribution(
    device: Device,
    gaussians: Gaussians,
    views: list[PinholeView],
    on_view: Callable[[Tally], None] = lambda _tally: None,
    tally: Tally | None = None,
) -> Contribution:
    """Render all views, or those that ``tally`` lacks, and return what each gaussian gave. Values must be finite.

    ``on_view`` is shown the tally after each view.
    """
    tally = tally or Tally.begun(len(gaussians), device)
    rows = torch.from_numpy(to_rows(gaussians)).to(device.tensors)
    for view in views[tally.n_views :]:
        render_rows(device, rows, view, gaussians.sh_degree)
        device.contribution(len(rows), tally.sums, tally.peaks)
        tally.n_views += 1
        on_view(tally)
    return tally.contribution


def finite_rows(gaussians: Gaussians) -> Mask:
    """Return which gaussians have only finite values that float32 can also exponentiate, [N]."""
    parts = (
        gaussians.means,
        gaussians.log_scales,
        gaussians.quats,
        gaussians.opacity_logits[:, None],
        gaussians.sh.reshape(len(gaussians), -1),
    )
    mask = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(mask & (np.abs(gaussians.log_scales) < 80.0).all(axis=1))


def prune(device: Device, gaussians: Gaussians, contribution: Contribution, extent: float, share: float) -> Pruned:
    """Drop what no view sees, what is too faint to draw, lone giants that are only haze, then ``share`` of the rest that gives least.

    Values must be finite. Equal contributions fall in the order of the rows, so the result is the same every time.
    """
    unseen = contribution.sums <= 0
    faint = ~unseen & (sigmoid(gaussians.opacity_logits) < MIN_OPACITY)
    haze = ~unseen & ~faint & _lone_giants(device, gaussians, extent) & (contribution.peaks < HAZE)
    kept = np.flatnonzero(~(unseen | faint | haze))
    n_least = int(share * len(kept))
    order = np.argsort(contribution.sums[kept], kind="stable")
    kept = np.sort(kept[order[n_least:]])
    dropped = {"unseen": int(unseen.sum()), "faint": int(faint.sum()), "haze": int(haze.sum()), "least": n_least}
    return Pruned(kept, Contribution(contribution.sums[kept], contribution.peaks[kept]), dropped)


def pull_in(gaussians: Gaussians, centre: Array, limit: float) -> tuple[Gaussians, int]:
    """Return the gaussians with those beyond ``limit`` of ``centre`` moved there and shrunk alike, and how many those were.

    Seen from near the centre the picture stays the same. A few gaussians far out in the sky would otherwise cost all others their
    precision: fixed-point formats share their bits between the nearest and the farthest.
    """
    offset = gaussians.means.astype(np.float64) - centre
    distance = np.linalg.norm(offset, axis=1)
    far = distance > limit
    factor = np.where(far, limit / np.where(far, distance, 1.0), 1.0)[:, None]
    means = np.where(far[:, None], centre + offset * factor, gaussians.means).astype(np.float32)
    return replace(gaussians, means=means, log_scales=(gaussians.log_scales + np.log(factor)).astype(np.float32)), int(far.sum())


def _lone_giants(device: Device, gaussians: Gaussians, extent: float) -> Mask:
    if len(gaussians) < 8:
        return np.zeros(len(gaussians), bool)
    means = torch.from_numpy(np.ascontiguousarray(gaussians.means)).to(device.tensors)
    spacing = np.sqrt(device.knn(means).cpu().numpy())
    giant = gaussians.log_scales.max(axis=1) > np.log(GIANT * extent)
    return np.asarray(giant & (spacing > ISOLATED * np.median(spacing)))
