"""Groups of photos that share enough points."""

import numpy as np

from engine.sfm.sound import connected_groups, shared_points, sound_groups


def test_connected_groups_are_largest_first_and_keep_order() -> None:
    groups = connected_groups(list("abcdefg"), [("e", "c"), ("c", "g"), ("a", "b")])
    assert groups == [["c", "e", "g"], ["a", "b"], ["d"], ["f"]]


def test_shared_points_counts_as_sets_do() -> None:
    random = np.random.default_rng(0)
    tracks = [sorted(random.choice(7, random.integers(1, 6), replace=False).tolist()) for _ in range(20_000)]
    counts = shared_points(tracks, 7)
    for i in range(7):
        for j in range(7):
            assert counts[i, j] == sum(i in track and j in track for track in tracks)


def test_weakly_joined_groups_come_apart() -> None:
    # Photos 0-3 and 4-6 share 40 points each, 14 points join 3 and 4: one too few. Photo 7 sees nothing.
    tracks = [[0, 1, 2, 3]] * 40 + [[4, 5, 6]] * 40 + [[3, 4]] * 14
    assert sound_groups(tracks, 8) == [[0, 1, 2, 3], [4, 5, 6], [7]]
    assert sound_groups([*tracks, [3, 4]], 8) == [[0, 1, 2, 3, 4, 5, 6], [7]]


def test_photos_may_hang_together_in_a_chain() -> None:
    tracks = [[i, i + 1] for i in range(9) for _ in range(15)]
    assert sound_groups(tracks, 10) == [list(range(10))]
