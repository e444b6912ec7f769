"""What a user hears about a capture that is bad, or partly bad."""

import numpy as np
import pytest

from engine.errors import CapacityError, CaptureError
from engine.events import Event, Warned
from engine.options import PosesOptions
from engine.sfm.context import Deadline, Photo
from engine.sfm.health import Findings, camera_spread, listed, require_sound, warn_of_features, warn_of_left_out, warn_of_watermark
from engine.sfm.matching import ViewGraph
from engine.sfm.models import Model

GOOD_SPREAD = 0.5


def findings(n_photos: int, n_placed: int, kinds: dict[str, int] | None = None, others: list[list[int]] | None = None) -> Findings:
    photos = [Photo(f"p{i}.jpg", f"Photo {i}.JPG", 640, 480, None, 1, None) for i in range(n_photos)]
    names = [photo.name for photo in photos]
    kinds = {"UNCALIBRATED": 10} if kinds is None else kinds
    graph = ViewGraph(45, sum(kinds.values()), kinds, [names])
    model = Model(None, names[:n_placed], [[names[i] for i in group] for group in others or []], 1000, 0.5)
    return Findings(photos, dict.fromkeys(names, 3000), graph, model)


def codes(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


def test_good_captures_pass() -> None:
    require_sound(findings(10, 10), GOOD_SPREAD, PosesOptions())


def test_exactly_half_is_allowed_and_the_other_scene_is_named() -> None:
    half = findings(16, 8, others=[list(range(8, 16))])
    require_sound(half, GOOD_SPREAD, PosesOptions())
    events: list[Event] = []
    warn_of_left_out(half, events.append)
    assert codes(events) == ["photo.not_registered"] * 8 + ["capture.several_scenes"]
    last = events[-1]
    assert isinstance(last, Warned)
    assert last.data["photos"] == [f"Photo {i}.JPG" for i in range(8, 16)]


def test_too_few_placed_photos_are_counted_named_and_grouped() -> None:
    with pytest.raises(CaptureError) as caught:
        require_sound(findings(10, 4, others=[[5, 6, 7]]), GOOD_SPREAD, PosesOptions())
    error = caught.value
    assert error.code == "capture.too_few_registered"
    assert "only 4 of 10 photos" in error.detail
    assert "Photo 9.JPG" in error.detail
    assert "3 of them form a group of their own: Photo 5.JPG, Photo 6.JPG, Photo 7.JPG." in error.detail
    assert error.data["left_out"] == [f"Photo {i}.JPG" for i in range(4, 10)]
    assert error.hint


def test_no_model_at_all_says_so_and_names_featureless_photos() -> None:
    none = findings(5, 0, kinds={})
    none.keypoints["p3.jpg"] = 12
    with pytest.raises(CaptureError, match=r"no three of the 5 photos.*Photo 3\.JPG") as caught:
        require_sound(none, 0.0, PosesOptions())
    assert caught.value.code == "capture.no_overlap"


@pytest.mark.parametrize(("n_placed", "spread"), [(10, 0.03), (0, 0.0)])
def test_turning_on_the_spot_is_refused_even_when_it_looks_perfect(n_placed: int, spread: float) -> None:
    with pytest.raises(CaptureError, match="rotation only") as caught:
        require_sound(findings(10, n_placed, kinds={"PLANAR_OR_PANORAMIC": 45}), spread, PosesOptions())
    assert caught.value.code == "capture.pure_rotation"


def test_flat_scenes_and_small_steps_are_not_taken_for_turning() -> None:
    require_sound(findings(10, 10, kinds={"PLANAR_OR_PANORAMIC": 45}), 0.6, PosesOptions())
    require_sound(findings(10, 10, kinds={"UNCALIBRATED": 45}), 0.04, PosesOptions())


@pytest.mark.parametrize(("marked", "expected"), [(3, ["capture.watermark"]), (2, [])])
def test_watermarks_are_named_above_a_fifth(marked: int, expected: list[str]) -> None:
    events: list[Event] = []
    warn_of_watermark(ViewGraph(20, 10, {"WATERMARK": marked, "UNCALIBRATED": 10 - marked}), events.append)
    assert codes(events) == expected


def test_photos_with_few_features_are_named() -> None:
    some = findings(4, 4)
    some.keypoints.update({"p1.jpg": 199, "p2.jpg": 0})
    events: list[Event] = []
    warn_of_features(some.photos, some.keypoints, events.append)
    assert [event.data["photo"] for event in events if isinstance(event, Warned)] == ["Photo 1.JPG", "Photo 2.JPG"]


def test_camera_spread_is_free_of_scale_and_zero_on_the_spot() -> None:
    random = np.random.default_rng(0)
    centres, points = random.normal(size=(20, 3)), random.normal(size=(500, 3)) + np.array([0, 0, 10.0])
    poses = np.stack([np.concatenate([np.eye(3), -centre[:, None]], axis=1) for centre in centres])
    spread = camera_spread(poses, points)
    assert spread == pytest.approx(np.sqrt(3) / 10, rel=0.25)
    poses[:, :, 3] *= 7
    assert camera_spread(poses, points * 7) == pytest.approx(spread)
    poses[:, :, 3] = 0
    assert camera_spread(poses, points) == 0


def test_long_lists_are_cut_and_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(15)]).endswith("11 and 3 more")


def test_deadline_says_what_it_interrupted() -> None:
    Deadline.after(100).check("comparing photos")
    with pytest.raises(CapacityError, match="longer than 0 s and was stopped while comparing photos"):
        Deadline.after(0).check("comparing photos")
