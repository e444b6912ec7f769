"""How much work the CUDA kernels of a step find in a scene, counted without a card.

Visible gaussians, (gaussian, tile) pairs and the 8x4 regions that a pair touches, by bench.cuda_ellipses; then, over a sample of the tiles,
blending itself, which tells where each region's list ends (transmittance below 1e-4).
"""

import math
from dataclasses import dataclass

import torch

from bench.cuda_ellipses import ALPHA_CUT_LOG2, REGION_HEIGHT, REGION_WIDTH, TILE, Ellipses, ellipses_of, pairs_of
from bench.kernel_scene import Scene

REGIONS, WARP = 8, 32
STOP = 1e-4
BUCKET = 64  # list entries: a warp's share of the backward pass, after which forward looks whether a region is finished
BLOCK = 256  # list entries that forward loads at once
LARGE, TALL = 24, 6  # pairs, tile rows from which a whole warp takes a gaussian


@dataclass(frozen=True)
class Counts:
    """Work of one step. Regions are 8x4 pixels; what is called live lies before the end of a region's list."""

    n: int
    width: int
    height: int
    visible: int
    pairs: int
    warps: int  # of 32 rows that hold something visible
    tile_rows: float  # mean over those warps of the most in a warp
    pairs_at_most: float  # the same of pairs, where they are fewer than LARGE
    many_pairs: int  # gaussians that have more
    small_rows: float  # tile rows below TALL: mean over warps of 32 ranks by depth of the most in a warp
    tall: int  # gaussians that have more
    region_pairs: int  # live
    blended: float  # (pixel, gaussian) pairs that are blended
    staged: int  # pairs that blending loads
    blocks: int  # of 256 pairs that it loads them by
    looked: int  # (bucket, region) before the end of the region's list
    buckets: int  # that hold something live
    turns: int  # (bucket, region) that hold something live
    fours: int  # of live pairs in one region of one bucket, the last of them filled up
    eights: int
    sixteens: int

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.width * self.height

    @property
    def tiles(self) -> int:
        """Tiles of the picture."""
        return -(-self.width // TILE) * -(-self.height // TILE)


class _Walk:
    """Sums over the tiles walked through."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(
            ("region_pairs", "blended", "staged", "blocks", "looked", "buckets", "turns", "fours", "eights", "sixteens"), 0
        )

    def tile(self, drawn: Ellipses, mask: torch.Tensor, left: int, top: int) -> None:
        """Blend one tile's list, [L] in depth order, and count."""
        alpha = _alphas(drawn, left, top)
        after = torch.cumprod(1 - alpha, dim=0)  # [L, 256] transmittance
        seen = torch.cat([torch.ones(1, TILE * TILE), after[:-1]])
        most = after.reshape(len(mask), REGIONS, WARP).amax(dim=2)
        ended = (most < STOP).sum(dim=0)  # entries from which on all of a region is below
        stop = -(-torch.where(ended > 0, len(mask) - ended + 1, len(mask)) // BUCKET) * BUCKET  # [regions]
        rank = torch.arange(len(mask))[:, None]
        live = (mask[:, None] >> torch.arange(REGIONS) & 1).bool() & (rank < stop)
        by_bucket = torch.cat([live, torch.zeros(-len(live) % BUCKET, REGIONS, dtype=torch.bool)]).reshape(-1, BUCKET, REGIONS).sum(dim=1)
        blocks = min(-(-len(mask) // BLOCK), -(-int(stop.max()) // BLOCK))
        new: dict[str, int | torch.Tensor] = {
            "region_pairs": live.sum(),
            "blended": ((alpha > 0) & (seen > STOP)).sum(),
            "staged": min(len(mask), blocks * BLOCK),
            "blocks": blocks,
            "looked": (stop // BUCKET).sum(),
            "buckets": (by_bucket.sum(dim=1) > 0).sum(),
            "turns": (by_bucket > 0).sum(),
            "fours": (-(-by_bucket // 4)).sum(),
            "eights": (-(-by_bucket // 8)).sum(),
            "sixteens": (-(-by_bucket // 16)).sum(),
        }
        for name, value in new.items():
            self.sums[name] += int(value)


def _alphas(drawn: Ellipses, left: int, top: int) -> torch.Tensor:
    """Return what each of L gaussians covers of a tile's 256 pixels, region by region; 0 below 1/255."""
    place = torch.arange(TILE * TILE)
    region, lane = place // WARP, place % WARP
    x = left + (region % 2) * REGION_WIDTH + lane % 8 + 0.5
    y = top + torch.div(region, 2, rounding_mode="floor") * REGION_HEIGHT + torch.div(lane, 8, rounding_mode="floor") + 0.5
    dx, dy = x - drawn.x[:, None], y - drawn.y[:, None]
    u, v = drawn.l11[:, None] * dx + drawn.l21[:, None] * dy, drawn.l22[:, None] * dy
    power = drawn.lo[:, None] - u * u - v * v
    return torch.where(power >= ALPHA_CUT_LOG2, torch.exp2(power), 0.0)


def count(scene: Scene, every: int = 13) -> Counts:
    """Return a step's work on a scene; of every ``every``-th tile's list, scaled, where it has to be walked."""
    camera = scene.camera
    drawn = ellipses_of(scene)
    pairs, rows = pairs_of(drawn, camera)
    tiles_x, n_tiles = -(-camera.width // TILE), len(pairs.begin) - 1
    walk, walked = _Walk(), range(every // 2, n_tiles, every)
    for tile in walked:
        begin, end = int(pairs.begin[tile]), int(pairs.begin[tile + 1])
        if end > begin:
            inside = slice(begin, end)
            walk.tile(drawn.at(pairs.gaussian[inside]), pairs.mask[inside], tile % tiles_x * TILE, tile // tiles_x * TILE)
    each = torch.bincount(pairs.gaussian, minlength=len(drawn.ids))
    rows, n = torch.where(each > 0, rows, 0), len(scene.rows)
    ranks = torch.argsort(torch.argsort(torch.where(each > 0, drawn.depth, math.inf), stable=True))
    warps = _most_in_warp(drawn.ids, (each > 0).long(), n)
    return Counts(
        n=n,
        width=camera.width,
        height=camera.height,
        visible=int((each > 0).sum()),
        pairs=len(pairs.tile),
        warps=len(warps),
        tile_rows=float(_most_in_warp(drawn.ids, rows, n).mean()),
        pairs_at_most=float(_most_in_warp(drawn.ids, torch.where(each < LARGE, each, 0), n).mean()),
        many_pairs=int((each >= LARGE).sum()),
        small_rows=float(_most_in_warp(ranks, torch.where(rows < TALL, rows, 0), n).mean()),
        tall=int((rows >= TALL).sum()),
        **{name: round(value * n_tiles / len(walked)) for name, value in walk.sums.items()},
    )


def _most_in_warp(places: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Return the largest value of each warp of 32 places, [W] float64, where it is not 0."""
    by_place = torch.zeros(-(-n // WARP) * WARP, dtype=torch.long)
    by_place[places] = values
    most = by_place.reshape(-1, WARP).amax(dim=1)
    return most[most > 0].double()
