"""Where a scene's gaussians fall on the screen, by the same formulas as kernels/cuda/ellipse.h in float32 torch."""

import math
from dataclasses import dataclass

import torch

from bench.kernel_scene import Scene
from kernels.reference import DILATION, MAX_OPACITY, covs3d, projection_jacobian
from kernels.step import CameraParams
from kernels.tensors import GaussianTensors, from_rows

TILE, REGION_WIDTH, REGION_HEIGHT = 16, 8, 4  # pixels
ALPHA_CUT_LOG2 = math.log2(1 / 255)
CHUNK = 250_000  # gaussians at a time


@dataclass(frozen=True)
class Ellipses:
    """What is drawn, in the order of the rows: where alpha is 1/255, in whitened axes. All [V] float32 but ``ids``, [V] int64."""

    ids: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    l11: torch.Tensor
    l21: torch.Tensor
    l22: torch.Tensor
    lo: torch.Tensor
    depth: torch.Tensor

    @property
    def reach(self) -> torch.Tensor:
        """u² + v² on the outline, with the kernels' slack."""
        return (self.lo - ALPHA_CUT_LOG2) * 1.0001 + 1e-4

    def at(self, index: torch.Tensor) -> "Ellipses":
        """Return some of them."""
        return Ellipses(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def extent(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return leftmost and rightmost x over rows ``low`` to ``high`` (pixels from the centre); right < left where there is none."""
        root = self.reach.clamp(min=0).sqrt()
        slope, half = self.l21 / self.l22, root / self.l22
        side = -root * slope / (slope * slope + 1).sqrt() / self.l22
        bottom, top = torch.maximum(low, -half), torch.minimum(high, half)
        ends = []
        for sign in (-1.0, 1.0):
            at = torch.minimum(torch.maximum(sign * side, bottom), top)
            width = (self.reach - (at * self.l22) ** 2).clamp(min=0).sqrt()
            ends.append((sign * width - at * self.l21) / self.l11 + self.x)
        return torch.where(bottom > top, math.inf, ends[0]), torch.where(bottom > top, -math.inf, ends[1])


@dataclass(frozen=True)
class Pairs:
    """(gaussian, tile) pairs by tile, then depth; [P] each."""

    gaussian: torch.Tensor  # index into Ellipses
    tile: torch.Tensor
    mask: torch.Tensor  # bit r where it can touch region r of the tile
    begin: torch.Tensor  # [tiles + 1] where each tile's pairs begin


def ellipses_of(scene: Scene) -> Ellipses:
    """Return what lies before the camera and reaches 1/255."""
    camera, parts = scene.camera, []
    for begin in range(0, len(scene.rows), CHUNK):
        parts.append(_ellipses(from_rows(scene.rows[begin : begin + CHUNK], 0), camera, begin))
    return Ellipses(*(torch.cat([getattr(part, name) for part in parts]) for name in Ellipses.__dataclass_fields__))


def _ellipses(gaussians: GaussianTensors, camera: CameraParams, begin: int) -> Ellipses:
    pose = torch.tensor(camera.cam_from_world).reshape(3, 4)
    centre = gaussians.means @ pose[:, :3].T + pose[:, 3]
    z = centre[:, 2]
    opacity = torch.sigmoid(gaussians.opacity_logits).clamp(max=MAX_OPACITY)
    keep = ((z >= camera.near_plane) & (z <= camera.far_plane) & (opacity >= 1 / 255)).nonzero()[:, 0]
    centre, z = centre[keep], z[keep]
    to_screen = projection_jacobian(centre, camera) @ pose[:, :3]
    kept = GaussianTensors(*(getattr(gaussians, name)[keep] for name in gaussians.__dataclass_fields__))
    cov = to_screen @ covs3d(kept) @ to_screen.transpose(1, 2) + DILATION * torch.eye(2)
    a, b, c = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    det, half_log2e = a * c - b * b, 0.5 * math.log2(math.e)
    l11 = (c / det * half_log2e).sqrt()
    return Ellipses(
        ids=keep + begin,
        x=camera.fx * centre[:, 0] / z + camera.cx,
        y=camera.fy * centre[:, 1] / z + camera.cy,
        l11=l11,
        l21=-l11 * b / c,
        l22=(half_log2e / c).sqrt(),
        lo=opacity[keep].log2(),
        depth=z,
    )


def _span(low: torch.Tensor, high: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    first = ((low.clamp(min=0.5) - (TILE - 0.5)) / TILE).ceil().clamp(min=0)
    last = ((high.clamp(max=size - 0.5) - 0.5) / TILE).floor()
    none = (low > size - 0.5) | (high < 0.5)
    return torch.where(none, 0, first).long(), torch.where(none, -1, last).long()


def _spread_out(first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which element, and which number from its first to its last, for all of them one after another."""
    count = (last - first + 1).clamp(min=0)
    which = torch.repeat_interleave(torch.arange(len(count)), count)
    before = count.cumsum(0) - count
    return which, torch.arange(len(which)) - before[which] + first[which]


def pairs_of(drawn: Ellipses, camera: CameraParams) -> tuple[Pairs, torch.Tensor]:
    """Return the pairs of a picture by tile and depth, and the tile rows of each gaussian, [V]."""
    root = drawn.reach.clamp(min=0).sqrt() / drawn.l22
    first, last = _span(drawn.y - root, drawn.y + root, camera.height)
    which, row = _spread_out(first, last)
    low = row * TILE + 0.5 - drawn.y[which]
    high = torch.minimum(low + (TILE - 1), camera.height - 0.5 - drawn.y[which])
    left, right = drawn.at(which).extent(low, high)
    each, column = _spread_out(*_span(left, right, camera.width))
    gaussian, tiles_x = which[each], -(-camera.width // TILE)
    tile = row[each] * tiles_x + column
    order = torch.argsort(drawn.depth[gaussian], stable=True)
    order = order[torch.argsort(tile[order], stable=True)]
    gaussian, tile = gaussian[order], tile[order]
    n_tiles = tiles_x * -(-camera.height // TILE)
    begin = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(tile, minlength=n_tiles).cumsum(0)])
    return Pairs(gaussian, tile, _masks(drawn.at(gaussian), tile, tiles_x), begin), (last - first + 1).clamp(min=0)


def _masks(drawn: Ellipses, tile: torch.Tensor, tiles_x: int) -> torch.Tensor:
    mask = torch.zeros(len(tile), dtype=torch.long)
    for band in range(TILE // REGION_HEIGHT):
        low = torch.div(tile, tiles_x, rounding_mode="floor") * TILE + band * REGION_HEIGHT + 0.5 - drawn.y
        left, right = drawn.extent(low, low + (REGION_HEIGHT - 1))
        for side in range(2):
            start = tile % tiles_x * TILE + side * REGION_WIDTH
            mask |= ((left <= start + REGION_WIDTH - 0.5) & (right >= start + 0.5)).long() << (2 * band + side)
    return mask
