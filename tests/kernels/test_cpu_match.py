"""Matching of descriptors against the whole matrix of products."""

import numpy as np
import pytest

from kernels.match import DIM, Matcher
from tests.kernels.conftest import machine_isas


def descriptors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, DIM), dtype=np.uint8)


def by_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The specification: row of b, largest product, second largest; -1 for what is not there."""
    products = np.full((len(a), len(b) + 2), -1, np.int64)
    products[:, : len(b)] = a.astype(np.int64) @ b.astype(np.int64).T
    at = products.argmax(axis=1) if len(b) else np.full(len(a), -1)
    ordered = np.sort(products, axis=1)
    return np.stack([at, ordered[:, -1], ordered[:, -2]], axis=1)


@pytest.mark.parametrize("isa", machine_isas())
@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (1, 50), (7, 2), (1025, 49), (2100, 97), (0, 5), (5, 0), (0, 0)])
def test_both_ways_are_those_of_the_matrix(isa: str, n_a: int, n_b: int) -> None:
    a, b = descriptors(1, n_a), descriptors(2, n_b)
    nearest_a, nearest_b = Matcher(2, isa).nearest(a, b)
    np.testing.assert_array_equal(nearest_a, by_matrix(a, b))
    np.testing.assert_array_equal(nearest_b, by_matrix(b, a))


@pytest.mark.parametrize("isa", machine_isas())
def test_extremes_do_not_overflow_and_equals_go_to_the_earlier_row(isa: str) -> None:
    full, nothing = np.full((60, DIM), 255, np.uint8), np.zeros((1100, DIM), np.uint8)
    nearest_a, nearest_b = Matcher(1, isa).nearest(full, full)
    assert (nearest_a == [0, 255 * 255 * DIM, 255 * 255 * DIM]).all()
    assert (nearest_b == nearest_a).all()
    nearest_a, nearest_b = Matcher(2, isa).nearest(nothing, full)
    assert (nearest_a == [0, 0, 0]).all()
    assert (nearest_b == [0, 0, 0]).all()


def test_the_number_of_threads_changes_nothing() -> None:
    a, b = descriptors(3, 5000), descriptors(4, 3000)
    for one, two in zip(Matcher(1).nearest(a, b), Matcher(3).nearest(a, b), strict=True):
        np.testing.assert_array_equal(one, two)


def test_other_arrays_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="b is float32"):
        Matcher(1).nearest(descriptors(0, 3), np.zeros((4, DIM), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a is uint8 \[3, 64\]"):
        Matcher(1).nearest(np.zeros((3, 64), np.uint8), descriptors(0, 3))
