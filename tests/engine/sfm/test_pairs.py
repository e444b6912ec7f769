"""Which photos are compared."""

import numpy as np
import pytest

from engine.sfm.context import Photo
from engine.sfm.pairs import all_pairs, nearest_by_appearance, nearest_by_gps, neighbour_pairs, vlad_vectors


def photo(number: int, gps: tuple[float, float, float] | None = None) -> Photo:
    return Photo(f"{number:03}.jpg", f"{number:03}.jpg", 100, 100, None, 1, gps)


def scene_descriptors(n_scenes: int, per_scene: int, seed: int = 0) -> list[np.ndarray]:
    """Photos of several scenes in turn: descriptors are a scene's own features with noise."""
    random = np.random.default_rng(seed)
    scenes = random.integers(0, 200, (n_scenes, 300, 128))
    noisy = [scenes[index % n_scenes] + random.integers(-8, 9, (300, 128)) for index in range(n_scenes * per_scene)]
    return [each.clip(0, 255).astype(np.uint8) for each in noisy]


def test_all_pairs_are_each_once() -> None:
    assert all_pairs(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert all_pairs(1) == []


def test_appearance_joins_photos_of_one_scene() -> None:
    vectors = vlad_vectors(scene_descriptors(4, 5), seed=0)
    pairs = nearest_by_appearance(vectors, 4)
    assert pairs == {(i, j) for i in range(20) for j in range(i + 1, 20) if i % 4 == j % 4}


def test_vectors_have_length_one_and_depend_on_the_seed_only() -> None:
    descriptors = scene_descriptors(2, 3)
    first, again, other = (vlad_vectors(descriptors, seed) for seed in (1, 1, 2))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_photos_without_features_are_no_problem() -> None:
    none = np.zeros((0, 128), np.uint8)
    vectors = vlad_vectors([*scene_descriptors(1, 2), none], seed=0)
    assert np.all(vectors[2] == 0)
    assert np.all(vlad_vectors([none, none], seed=0) == 0)


def test_neighbours_by_name_are_always_there() -> None:
    pairs = neighbour_pairs([photo(number) for number in range(30)], scene_descriptors(3, 10), 2, seed=0)
    assert pairs == sorted(set(pairs))
    assert all(i < j for i, j in pairs)
    assert {(i, i + step) for i in range(24) for step in range(1, 6)} <= set(pairs)
    assert len(pairs) < len(all_pairs(30))


@pytest.mark.parametrize("longitude", [13.0, 179.9999])
def test_gps_joins_the_nearest_even_across_the_date_line(longitude: float) -> None:
    # Twenty photos walk east, 10 m apart; numbers are shuffled against places.
    step = 10 / 111_000
    places = [(index * 7) % 20 for index in range(20)]
    photos = [photo(index, (0.0, (longitude + place * step + 180) % 360 - 180, 5.0)) for index, place in enumerate(places)]
    pairs = nearest_by_gps(photos)
    for i in range(20):
        for j in range(i + 1, 20):
            if abs(places[i] - places[j]) <= 4:
                assert (i, j) in pairs
            if abs(places[i] - places[j]) > 8:
                assert (i, j) not in pairs


def test_gps_is_used_only_where_it_is() -> None:
    assert nearest_by_gps([photo(0), photo(1, (1.0, 1.0, 0.0)), photo(2)]) == set()
    assert nearest_by_gps([photo(0, (1.0, 1.0, 0.0)), photo(1), photo(2, (1.0, 1.0, 0.0))]) == {(0, 2)}
