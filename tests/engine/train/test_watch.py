"""When a training run keeps what it has."""

from itertools import islice

import pytest

from engine.train.watch import pauses


@pytest.mark.parametrize(
    ("checkpoint_s", "expected"),
    [(30.0, [4.0, 8.0, 16.0, 30.0, 30.0]), (4.0, [4.0, 4.0]), (0.5, [0.5, 0.5]), (3600.0, [4.0, 8.0, 16.0, 32.0])],
)
def test_the_first_checkpoints_come_soon_and_later_ones_as_often_as_asked(checkpoint_s, expected):
    assert list(islice(pauses(checkpoint_s), len(expected))) == expected
