"""The work that is counted without a card is the work that there is."""

import pytest
import torch

from bench.cuda_counts import Counts, count
from bench.kernel_scene import Scene, surface_scene
from kernels.step import Device

SIZE = 96


@pytest.fixture(name="small", scope="module")
def fixture_small() -> Scene:
    """A scene small enough to look at every pixel."""
    return surface_scene(3000, SIZE, SIZE, 12.0)


@pytest.fixture(name="counts", scope="module")
def fixture_counts(small: Scene) -> Counts:
    """Counted in every tile."""
    return count(small, every=1)


def test_as_many_are_visible_and_blended_as_the_cpu_library_says(small: Scene, counts: Counts) -> None:
    device = Device("cpu")
    stats = device.forward(small.rows, small.camera, 0, (0.0, 0.0, 0.0), torch.empty(3, SIZE, SIZE))
    device.contribution(len(small.rows), torch.zeros(len(small.rows)))
    assert counts.visible == pytest.approx(stats.n_visible, rel=0.01)
    assert counts.blended == pytest.approx(device.profile(enable=False).n_blended, rel=0.02)


def test_groups_hold_what_there_is_and_no_group_too_many(counts: Counts) -> None:
    for groups, size in ((counts.fours, 4), (counts.eights, 8), (counts.sixteens, 16)):
        assert counts.region_pairs <= size * groups < counts.region_pairs + size * counts.turns
    assert counts.buckets <= counts.turns <= counts.looked
