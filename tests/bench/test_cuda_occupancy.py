"""Blocks on a multiprocessor: the limits one by one, and that the committed table is that of today's kernels."""

import pytest

from bench.cuda_occupancy import LIMITS, PAGE, block_sizes, occupancy, page


@pytest.mark.parametrize(
    ("threads", "registers", "shared_bytes", "architecture", "blocks", "limit"),
    [
        (256, 32, 0, "sm_90", 8, "registers"),
        (256, 33, 0, "sm_90", 6, "registers"),  # given out in steps of eight
        (256, 16, 0, "sm_90", 8, "warps"),
        (32, 16, 0, "sm_86", 16, "blocks"),
        (128, 32, 40_000, "sm_90", 5, "shared memory"),
        (128, 32, 32_768, "sm_75", 2, "shared memory"),  # nothing reserved there
        (128, 32, 32_768, "sm_86", 3, "shared memory"),  # 33 KiB each of 100
    ],
)
def test_what_keeps_more_blocks_out(threads: int, registers: int, shared_bytes: int, architecture: str, blocks: int, limit: str) -> None:
    found = occupancy(threads, registers, shared_bytes, LIMITS[architecture])
    assert (found.blocks, found.limit) == (blocks, limit)
    assert found.share == blocks * -(-threads // 32) / LIMITS[architecture].warps


def test_block_sizes_are_those_of_the_launch_bounds() -> None:
    sizes = block_sizes()
    assert (sizes["blend_kernel"], sizes["spread_kernel"], sizes["gradient_kernel"], sizes["ssim_kernel"], sizes["count_kernel"]) == (
        256,
        64,
        128,
        256,
        1,
    )


def test_the_committed_table_is_that_of_the_kernels() -> None:
    assert PAGE.read_text() == page(), "run: python -m bench.cuda_occupancy --write"
