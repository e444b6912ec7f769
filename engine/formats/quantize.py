"""Quantisers that the splat formats share. All round to nearest; each states the error that follows."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

SH_C0 = 0.28209479177387814  # the constant basis function: colour = 0.5 + SH_C0 * sh[0]
SQRT1_2 = float(np.sqrt(0.5))

# The three components left when the largest (row) of w x y z is dropped.
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


class Bound(NamedTuple):
    """A stored value differs from the true one, clipped to ``low``…``high``, by at most ``error``."""

    error: float
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class ErrorBounds:
    """The errors that a format may make. ``None``: no bound beforehand (palettes, dropped bands); those are measured in renders.

    ``opacity`` is in units of opacity (0..1), ``angle`` in radians of rotation.
    """

    means: Bound
    log_scales: Bound
    angle: float
    opacity: Bound
    sh_dc: Bound
    sh_rest: Bound | None


def round_half_up(values: npt.ArrayLike) -> Floats:
    """Return the nearest whole numbers; halves go up, as C's ``floor(x + 0.5)`` does."""
    rounded: Floats = np.floor(np.asarray(values, np.float64) + 0.5)
    return rounded


def encode_uniform(values: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, levels: int) -> npt.NDArray[np.int64]:
    """Return indices 0..levels-1 of an even grid from ``low`` to ``high``; error at most (high - low) / (levels - 1) / 2."""
    low_f = np.asarray(low, np.float64)
    span = np.asarray(high, np.float64) - low_f
    share = (np.asarray(values, np.float64) - low_f) / np.where(span > 0, span, 1.0)
    return np.clip(round_half_up(share * (levels - 1)), 0, levels - 1).astype(np.int64)


def decode_uniform(indices: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, levels: int) -> Floats:
    """Return the grid values that ``encode_uniform`` chose."""
    low_f = np.asarray(low, np.float64)
    values: Floats = low_f + np.asarray(indices, np.float64) / (levels - 1) * (np.asarray(high, np.float64) - low_f)
    return values


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    values: Floats = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))
    return values


def encode_opacity(logits: npt.ArrayLike) -> Bytes:
    """Return opacities as bytes 0..255; error at most 1/510 of opacity."""
    return round_half_up(sigmoid(logits) * 255.0).astype(np.uint8)


def decode_opacity(codes: Bytes) -> npt.NDArray[np.float32]:
    """Return logits. 0 and 255 stand for the middles of their half cells, 1/1020 from the ends: a logit must be finite."""
    opacity = np.clip(codes.astype(np.float64) / 255.0, 1 / 1020, 1 - 1 / 1020)
    return np.log(opacity / (1.0 - opacity)).astype(np.float32)


OPACITY_BOUND = Bound(1 / 510)


def log_map(values: npt.ArrayLike) -> Floats:
    """Return sign(x) log(1 + |x|): even steps of it are fine near the origin and coarse far away (SOG)."""
    x = np.asarray(values, np.float64)
    mapped: Floats = np.sign(x) * np.log1p(np.abs(x))
    return mapped


def exp_map(values: npt.ArrayLike) -> Floats:
    """Return the inverse of ``log_map``."""
    y = np.asarray(values, np.float64)
    mapped: Floats = np.sign(y) * np.expm1(np.abs(y))
    return mapped


def normalized(quats: npt.ArrayLike) -> Floats:
    """Return quaternions of length 1; all-zero ones become the identity (w = 1)."""
    q = np.asarray(quats, np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(length > 0, q / np.where(length > 0, length, 1.0), np.array([1.0, 0.0, 0.0, 0.0]))
    unit: Floats = q
    return unit


def drop_largest(quats: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return which of w x y z is largest, [N], and the other three in order, [N, 3], of the same rotation with that one positive."""
    q = normalized(quats)
    largest = np.argmax(np.abs(q), axis=1)
    rows = np.arange(len(q))
    q = q * np.where(q[rows, largest] < 0, -1.0, 1.0)[:, None]
    return largest, q[rows[:, None], OTHERS[largest]]


def restore_largest(largest: npt.NDArray[np.integer], others: Floats) -> npt.NDArray[np.float32]:
    """Return the unit quaternions (wxyz) whose largest component ``drop_largest`` dropped."""
    quats = np.empty((len(others), 4))
    rows = np.arange(len(others))
    quats[rows[:, None], OTHERS[largest]] = others
    quats[rows, largest] = np.sqrt(np.maximum(0.0, 1.0 - np.sum(others**2, axis=1)))
    return normalized(quats).astype(np.float32)


def smallest_three_angle(step: float) -> float:
    """Return the largest rotation error, radians, when three components are stored in steps of ``step``.

    The error vector of three has length up to sqrt(3)/2 step; the dropped component is at least 1/2, so its own error is up to sqrt(3)
    times that; an error of length e in the quaternion turns by 2 asin(e / 2) times 2.
    """
    error = np.sqrt(3.0) * step
    return float(4.0 * np.arcsin(min(1.0, error / 2.0)))


def encode_sh_buckets(sh: npt.ArrayLike, bits: int) -> Bytes:
    """Return coefficients in -1..1 as bytes (x 128 + 128) rounded to the middle of 2^(8-bits) wide buckets (SPZ's rule)."""
    bucket = 1 << (8 - bits)
    codes = round_half_up(np.asarray(sh, np.float64) * 128.0) + 128.0
    codes = np.floor((codes + bucket // 2) / bucket) * bucket
    return np.clip(codes, 0, 255).astype(np.uint8)


def sh_bucket_bound(bits: int) -> Bound:
    """Return the error of ``encode_sh_buckets``: half a bucket and half a unit of rounding, in 128ths."""
    bucket = 1 << (8 - bits)
    return Bound((bucket // 2 + 0.5) / 128.0, -1.0, 127 / 128)


def fit_codebook(values: npt.ArrayLike, weights: npt.ArrayLike | None = None, size: int = 256, rounds: int = 60) -> npt.NDArray[np.float32]:
    """Return ``size`` sorted values that stand for ``values`` with a small mean squared error (Lloyd 1982, on sorted values).

    A fiftieth of the weight is spread evenly over the range and the ends are kept, so that rare values err little too: at most half the
    widest gap (``codebook_bound``).
    """
    flat = np.asarray(values, np.float64).ravel()
    mass = np.ones(len(flat)) if weights is None else np.asarray(weights, np.float64).ravel()
    low, high = float(flat.min()), float(flat.max())
    even = np.linspace(low, high, 16 * size)
    mass = np.concatenate([mass / max(float(mass.sum()), 1e-300), np.full(len(even), 0.02 / len(even))])
    points = np.concatenate([flat, even])
    order = np.argsort(points, kind="stable")
    points, mass = points[order], mass[order]
    sums = np.concatenate([[0.0], np.cumsum(mass)]), np.concatenate([[0.0], np.cumsum(mass * points)])
    book = np.interp(np.linspace(0, 1, size), _companding(points, mass), points)
    for _ in range(rounds):
        edges = np.concatenate([[0], np.searchsorted(points, (book[1:] + book[:-1]) / 2), [len(points)]])
        held, moment = np.diff(sums[0][edges]), np.diff(sums[1][edges])
        book = np.maximum.accumulate(np.where(held > 0, moment / np.where(held > 0, held, 1.0), book))
        book[0], book[-1] = low, high
    codebook: npt.NDArray[np.float32] = np.clip(book, low, high).astype(np.float32)
    return codebook


def _companding(points: Floats, mass: Floats) -> Floats:
    """Return where each sorted point lies, 0..1, when cells are as dense as the cube root of the values (Panter and Dite 1951)."""
    counts, edges = np.histogram(points, bins=1024, weights=mass)
    cells = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    where: Floats = np.interp(points, edges, cells / max(cells[-1], 1e-300))
    return np.maximum.accumulate(where)


def assign_codebook(values: npt.ArrayLike, codebook: npt.NDArray[np.float32]) -> Bytes:
    """Return the index of the nearest entry of a sorted codebook of up to 256 values."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values, np.float64)).astype(np.uint8)


def codebook_bound(codebook: npt.NDArray[np.float32]) -> Bound:
    """Return the largest error of ``assign_codebook`` for values within the codebook's ends."""
    gap = float(np.max(np.diff(codebook.astype(np.float64)))) if len(codebook) > 1 else 0.0
    return Bound(gap / 2 + 1e-6, float(codebook[0]), float(codebook[-1]))
