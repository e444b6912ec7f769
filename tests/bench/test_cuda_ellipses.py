"""Pairs and masks are those of the pixels that a gaussian draws on."""

import pytest
import torch

from bench.cuda_ellipses import ALPHA_CUT_LOG2, Ellipses, ellipses_of, pairs_of
from bench.kernel_scene import Scene, surface_scene

SIZE = 96


@pytest.fixture(name="small", scope="module")
def fixture_small() -> Scene:
    """A scene small enough to look at every pixel."""
    return surface_scene(3000, SIZE, SIZE, 12.0)


def powers(drawn: Ellipses) -> torch.Tensor:
    """Return log2 of alpha at every pixel, [V, SIZE, SIZE]."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    dx, dy = x - drawn.x[:, None, None], y - drawn.y[:, None, None]
    u, v = drawn.l11[:, None, None] * dx + drawn.l21[:, None, None] * dy, drawn.l22[:, None, None] * dy
    return drawn.lo[:, None, None] - u * u - v * v


def test_every_region_that_a_gaussian_draws_on_is_in_its_mask(small: Scene) -> None:
    drawn = ellipses_of(small)
    pairs, _ = pairs_of(drawn, small.camera)
    regions = (powers(drawn) >= ALPHA_CUT_LOG2).reshape(-1, SIZE // 4, 4, SIZE // 8, 8).any(dim=4).any(dim=2)  # [V, rows, columns]
    marked = torch.zeros_like(regions)
    tiles = SIZE // 16
    for region in range(8):
        hit = (pairs.mask >> region & 1).bool()
        gaussian, tile = pairs.gaussian[hit], pairs.tile[hit]
        marked[gaussian, tile // tiles * 4 + region // 2, tile % tiles * 2 + region % 2] = True
    assert not (regions & ~marked).any()
    assert marked.sum() < 1.3 * regions.sum(), "masks are nearly exact"


def test_lists_are_by_tile_and_depth(small: Scene) -> None:
    drawn = ellipses_of(small)
    pairs, _ = pairs_of(drawn, small.camera)
    assert (pairs.tile.diff() >= 0).all()
    same = pairs.tile.diff() == 0
    assert (drawn.depth[pairs.gaussian].diff()[same] >= 0).all()
    assert int(pairs.begin[-1]) == len(pairs.tile)
