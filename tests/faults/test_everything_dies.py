"""Kill -9 of everything, twice, while a small real job runs; ten kills of a larger one are a command (tests/faults/everything_dies.py)."""

import random
from pathlib import Path

import pytest

from tests.faults.everything_dies import Moment, Trial, moments, run

TIMELINE = [(0.0, (0, 0.0)), (1.0, (1, 0.0)), (2.0, (1, 0.5)), (10.0, (2, 0.1)), (20.0, (4, 0.0))]


def test_moments_lie_evenly_over_the_time_and_each_at_its_point_of_the_work() -> None:
    drawn = moments(TIMELINE, 2000, random.Random(3))
    assert drawn == sorted(drawn, key=lambda moment: (moment.stage, moment.fraction, moment.after_s))
    assert sum(moment.stage == 2 for moment in drawn) == pytest.approx(1000, abs=100)
    assert sum(moment.stage == 0 for moment in drawn) == pytest.approx(100, abs=50)
    starts = {point: at for at, point in TIMELINE}
    assert all(0 <= starts[moment.stage, moment.fraction] + moment.after_s <= 20 for moment in drawn)
    assert moments(TIMELINE, 1, random.Random(3)) == [Moment(1, 0.5, pytest.approx(2.75, abs=0.01))]


@pytest.mark.slow
def test_a_job_outlives_the_death_of_every_process_and_gives_the_same_bytes(tmp_path: Path) -> None:
    told = run(Trial(kills=2, seed=4, photos=8, width=360, height=270, steps=600, checkpoint_s=2.0, gaussians=5000), tmp_path)
    assert told["passed"], told
    assert told["lost_leases"] + told["error_attempts"] <= 2
    assert all(kill["n_processes"] >= 5 for kill in told["kills"])
