"""No finer than the photos: a floor on the gaussians' sizes, so that pictures from nearer show no needles that no photo asked for.

The 3D smoothing filter of Mip-Splatting (Yu et al. 2024, section 4.1): a gaussian that is sampled at most ν times per unit of length
(focal length over depth, of the training view that sees it finest) must not be narrower than some share of 1/ν. There the filter is folded
into the covariance and undone by opacity in a renderer that knows it; here sizes are held above the floor while training goes on, so the
file is what was trained and looks the same in every viewer.
"""

import torch

from engine.scene import PinholeView
from engine.train.split import LOG_SCALE, MEAN

MARGIN = 0.15  # of the picture, on each side: gaussians centred there still show
BLOCK = 8_192  # points taken through all views at a time, so that they stay in the cache; a card takes all
NEAREST = 0.01  # the renderer's near plane


def hold_above_floor(rows: torch.Tensor, views: list[PinholeView], floor_px: float) -> None:  # [N, 64]
    """Raise standard deviations below ``floor_px`` pixels of the finest view that sees the gaussian to that, in place."""
    rate = sampling_rates(rows[:, MEAN], views)
    floor = (floor_px / rate).log()[:, None]  # +inf where nothing looks
    rows[:, LOG_SCALE] = torch.where(rate[:, None] > 0, rows[:, LOG_SCALE].maximum(floor), rows[:, LOG_SCALE])


def sampling_rates(means: torch.Tensor, views: list[PinholeView]) -> torch.Tensor:  # [N, 3] -> [N] float32
    """Return the most pixels per unit of length that any view has at each point; 0 where none sees it."""
    finest = torch.zeros(len(means), device=means.device)
    block = BLOCK if means.device.type == "cpu" else max(1, len(means))
    for first in range(0, len(means), block):
        points, best = means[first : first + block].T.contiguous(), finest[first : first + block]
        for view in views:
            torch.maximum(best, rate_in(points, view), out=best)
    return finest


def rate_in(points: torch.Tensor, view: PinholeView) -> torch.Tensor:  # [3, N] -> [N]
    """Return focal length over depth where a view sees the points, 0 elsewhere."""
    pose = torch.from_numpy(view.cam_from_world).float().to(points.device, non_blocking=True)
    x, y, depth = torch.addmm(pose[:, 3:], pose[:, :3], points)
    per_depth = depth.clamp_min(NEAREST).reciprocal()
    right, down = x * per_depth * view.fx + view.cx, y * per_depth * view.fy + view.cy
    wide, high = MARGIN * view.width, MARGIN * view.height
    seen = (depth > NEAREST) & (right > -wide) & (right < view.width + wide) & (down > -high) & (down < view.height + high)
    rate: torch.Tensor = per_depth * max(view.fx, view.fy) * seen
    return rate
