import numpy as np
import torch

from engine.scene import PinholeView
from engine.train.antialias import hold_above_floor, sampling_rates


def view_at(z: float, fx: float = 100.0) -> PinholeView:
    """Return a camera on the z axis, looking along it from -z."""
    pose = np.concatenate([np.eye(3), np.array([[0.0], [0.0], [z]])], axis=1)
    return PinholeView(pose, fx, fx, 50.0, 40.0, 100, 80)


def test_the_rate_is_that_of_the_view_that_sees_finest() -> None:
    means = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rates = sampling_rates(means, [view_at(4.0), view_at(2.0), view_at(8.0)])
    torch.testing.assert_close(rates, torch.tensor([50.0, 100.0 / 3.0]))


def test_points_behind_or_beside_a_view_are_not_sampled_by_it() -> None:
    means = torch.tensor([[0.0, 0.0, -5.0], [10.0, 0.0, 0.0], [0.0, -10.0, 0.0], [0.6, 0.0, -3.0]])
    assert sampling_rates(means, [view_at(4.0)]).tolist()[:3] == [0.0, 0.0, 0.0]
    # Just outside the picture, within the margin in which a gaussian still shows.
    assert sampling_rates(means, [view_at(4.0)]).tolist()[3] == 100.0


def test_only_sizes_below_the_floor_are_raised() -> None:
    rows = torch.zeros(3, 64)
    rows[:, 3:6] = torch.tensor([1e-4, 0.05, 0.5]).log()
    rows[2, 2] = -9.0  # behind the camera
    before = rows.clone()
    hold_above_floor(rows, [view_at(4.0)], floor_px=0.4)  # 25 pixels a unit: 0.016
    torch.testing.assert_close(rows[:2, 3:6].exp(), torch.tensor([0.016, 0.05, 0.5]).expand(2, 3))
    assert torch.equal(rows[2], before[2])
    rows[:, 3:6] = before[:, 3:6]
    assert torch.equal(rows, before)
