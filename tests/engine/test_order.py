import numpy as np
import pytest
import torch

from engine.order import morton_order, order_on_card


def test_the_order_is_a_permutation():
    means = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    assert sorted(morton_order(means).tolist()) == list(range(1000))


def test_the_corners_of_a_cube_follow_the_z_curve():
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], np.float32)
    shuffled = np.random.default_rng(1).permutation(8)
    assert corners[shuffled][morton_order(corners[shuffled])].tolist() == corners.tolist()


def test_equal_places_keep_their_order():
    assert morton_order(np.zeros((5, 3), np.float32)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("outlier", [0.0, 1e6])
def test_neighbours_in_the_file_are_near_in_space_even_beside_a_far_outlier(outlier):
    means = np.random.default_rng(2).uniform(-1, 1, (4000, 3)).astype(np.float32)
    means[0] = outlier
    ordered = means[morton_order(means)]

    def step(rows):
        return np.median(np.linalg.norm(np.diff(rows, axis=0), axis=1))

    assert step(ordered) < 0.15 * step(means)


@pytest.mark.parametrize("n", [1, 2, 999, 1000])
def test_a_card_finds_the_same_order(n: int) -> None:
    means = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32) * np.float32(30.0)
    means[n // 2 :] = means[: n - n // 2]  # equal places
    assert order_on_card(torch.from_numpy(means)).tolist() == morton_order(means).tolist()
    assert order_on_card(torch.zeros(n, 3)).tolist() == list(range(n))
