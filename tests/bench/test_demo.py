import sys

import pytest

from bench.demo import Demo, Outcome, broken_promises, describe, serving, take_photos
from bench.poses import PoseErrors
from engine.errors import CapacityError
from tests.data.cameras import Walk

GOOD = {
    "registered": 40,
    "photos": 40,
    "psnr_db": 28.0,
    "ssim": 0.9,
    "rotation_error_deg": 0.2,
    "gaussians": 94_000,
    "seconds": {"ingest": 1.0, "poses": 80.0},
    "files": {"scene.sog": 1_400_000},
}


def outcome(**changes) -> Outcome:
    return Outcome({**GOOD, **changes}, PoseErrors(40, 0.2, 0.4, 0.001, 0.002), "http://127.0.0.1:1/jobs/x/view")


def test_a_run_at_the_promised_figures_breaks_no_promise():
    assert broken_promises(outcome()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"registered": 39}, "39 of 40"), ({"psnr_db": 27.99}, "27.99 dB"), ({"rotation_error_deg": 0.21}, "0.210°")],
)
def test_each_missed_promise_is_said_in_figures(changes, said):
    (line,) = broken_promises(outcome(**changes))
    assert said in line


def test_the_lines_for_people_hold_every_figure():
    text = " ".join(f"{title} {figure}" for title, figure in describe(outcome()))
    for part in ("40 of 40", "0.2000°", "1.0 mm", "28.00 dB", "94,000", "poses 80.0", "scene.sog 1,400 kB", "/jobs/x/view"):
        assert part in text


def test_photos_of_an_earlier_demo_are_used_again_but_not_those_of_another_plan(tmp_path):
    demo = Demo(tmp_path, Walk(2, 120, 90, turn_every=0), "draft")
    truth = take_photos(demo)
    first = (demo.photos / "IMG_0001.jpg").stat().st_mtime_ns
    assert take_photos(demo).views.keys() == truth.views.keys()
    assert (demo.photos / "IMG_0001.jpg").stat().st_mtime_ns == first
    take_photos(Demo(tmp_path, Walk(2, 96, 72, turn_every=0), "draft"))
    assert (demo.photos / "IMG_0001.jpg").stat().st_mtime_ns != first


def test_a_service_that_does_not_come_up_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATWORKS_HOST", "203.0.113.7")
    with pytest.raises(CapacityError, match=r"203\.0\.113\.7"), serving(Demo(tmp_path, Walk(2), "draft")):
        sys.exit("the service came up on an address that is not ours")
