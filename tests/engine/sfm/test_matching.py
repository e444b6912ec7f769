"""Which features of two photos belong together."""

import numpy as np

from engine.sfm.features import rooted
from engine.sfm.matching import PREVIEW_FEATURES, matches
from kernels.match import Matcher


def descriptors(count: int, seed: int) -> np.ndarray:
    return rooted(np.random.default_rng(seed).gamma(0.5, 40.0, (count, 128)).astype(np.float32))


def test_shuffled_features_find_each_other_again() -> None:
    a = descriptors(300, 0)
    order = np.random.default_rng(1).permutation(300)
    found = matches(Matcher(1), a, a[order], 0.8)
    assert found.dtype == np.uint32
    assert len(found) == 300
    np.testing.assert_array_equal(order[found[:, 1]], found[:, 0])


def test_strangers_and_twins_do_not_match() -> None:
    a, b = descriptors(200, 0), descriptors(200, 1)
    assert len(matches(Matcher(1), a, b, 0.8)) < 4
    twins = np.concatenate([a, a])  # each has two that are equally near
    assert len(matches(Matcher(1), a, twins, 0.8)) == 0


def test_photos_whose_strongest_features_share_nothing_are_not_compared_further() -> None:
    shared = descriptors(500, 0)
    a = np.concatenate([descriptors(PREVIEW_FEATURES, 1), shared])
    b = np.concatenate([descriptors(PREVIEW_FEATURES, 2), shared])
    assert len(matches(Matcher(1), a, b, 0.8)) == 0
    assert len(matches(Matcher(1), a[::-1], b[::-1], 0.8)) >= 500


def test_no_features_match_nothing() -> None:
    none = np.zeros((0, 128), np.uint8)
    assert matches(Matcher(1), none, descriptors(5, 0), 0.8).shape == (0, 2)
    assert matches(Matcher(1), descriptors(5, 0), none, 0.8).shape == (0, 2)
