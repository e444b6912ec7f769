"""How often each part of each CUDA kernel runs in a step, and the bytes that it has to move: the table behind bench.cuda_model."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.cuda_counts import WARP, Counts


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step: how often a warp runs each part of it, in the order of ``parts_of``, and the bytes it moves."""

    name: str
    trips: Callable[[Counts], tuple[float, ...]]
    size_bytes: Callable[[Counts], float]


def _warps(threads: float) -> float:
    return threads / WARP


def _sets(c: Counts, second: float) -> float:
    """Return sets of eight list entries; one of four or fewer leaves out its second half, which is that share of the instructions."""
    return c.eights - second * (2 * c.eights - c.fours)


def _loss_warps(c: Counts) -> float:  # blocks of 32 x 32 pixels, four pixels a thread
    return 8.0 * -(-c.width // 32) * -(-c.height // 32)


def _gradient_trips(c: Counts, rest: bool) -> tuple[float, ...]:
    rows = 8.0 if rest else 2.0  # of the loop over sixteenths of rows, two at a time
    few = c.pairs_at_most
    return (c.warps, c.warps * (few // 4), c.warps * 1.5, c.many_pairs, c.many_pairs * 0.5, c.warps * rows)


def _gradient_bytes(c: Counts, rest: bool) -> float:
    lines = 5 * (192.0 if rest else 0.0)  # without a read of the parameters: their line was read for the direction's gradient
    return c.n * 4 + c.pairs * 48 + c.visible * (256 + 48 + 8 + 8 + 32 + 5 * 64 + lines)


# How often each part runs: what is in no loop first, then the loops by address. What a comment does not say follows from the source.
KERNELS = (
    Kernel(
        "project_kernel",
        lambda c: (c.warps + 0.1 * _warps(c.n), c.warps * c.tile_rows),  # a warp of hidden ones ends after a tenth
        lambda c: c.n * (64 + 12) + c.visible * (192 + 48),
    ),
    Kernel("counts_by_depth_kernel", lambda c: (_warps(c.n),), lambda c: c.n * 12 + c.visible * 36),
    Kernel(
        "emit_kernel<uint16_t>",
        # Rows are a lane's, one column or two each; the loop of four columns is rare. Then unused places; tall ones, a warp each.
        lambda c: (_warps(c.visible), _warps(c.visible) * c.small_rows, 0.0, _warps(c.n) * 0.5, c.tall, c.tall, 0.0),
        lambda c: c.visible * (16 + 32 + 64) + c.pairs * 6,
    ),
    Kernel("ranges_kernel<uint16_t>", lambda c: (_warps(c.pairs),), lambda c: c.pairs * 2),
    Kernel(
        "blend_kernel",
        lambda c: (c.tiles * 8, c.tiles, c.blocks * 8, c.looked, _sets(c, second=0.41)),
        lambda c: c.staged * (4 + 4 + 48 + 1) + (c.looked - c.tiles * 8) * 512 + c.pixels * 28,
    ),
    Kernel(
        "ssim_kernel",
        # 336 stretches of a row for 256 threads: 1.3125 each.
        lambda c: (_loss_warps(c), 3 * _loss_warps(c), 3 * 1.3125 * _loss_warps(c)),
        lambda c: c.pixels * (12 + 3 + 36),
    ),
    Kernel(
        "loss_gradient_kernel",
        lambda c: (3 * _loss_warps(c), 9 * _loss_warps(c), 9 * 1.3125 * _loss_warps(c)),
        lambda c: c.pixels * (36 + 15 + 12),
    ),
    Kernel("find_bad_value_kernel", lambda c: (_warps(3 * c.pixels / 8),), lambda c: c.pixels * 12),
    Kernel(
        "spread_kernel<1>",
        lambda c: (c.buckets, c.turns, _sets(c, second=0.26)),
        lambda c: c.pairs * (4 + 4 + 48 + 1 + 48) + (c.turns - c.tiles * 8) * 512 + c.pixels * 28,
    ),
    Kernel("gradient_kernel", lambda c: _gradient_trips(c, rest=False), lambda c: _gradient_bytes(c, rest=False)),
)
GRADIENT_WITH_REST = Kernel("gradient_kernel", lambda c: _gradient_trips(c, rest=True), lambda c: _gradient_bytes(c, rest=True))
