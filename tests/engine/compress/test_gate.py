import numpy as np
import pytest

from engine.compress.gate import check_finite_share, check_geometry
from engine.compress.views import NamedView, Views
from engine.errors import CaptureError
from tests.engine.compress.worlds import ball_and_floor, ring_of_cameras, views_of

VIEWS = Views([NamedView("a.jpg", views_of(ring_of_cameras())[0], False)], np.zeros(3), 4.0, 640)


def test_a_sound_scene_passes_and_its_reach_is_told():
    figures = check_geometry(ball_and_floor(), VIEWS)
    assert 1.0 < figures["reach"] < 5.0
    assert figures["extent"] == 4.0


def test_a_scene_that_fell_apart_fails_with_numbers():
    scene = ball_and_floor()
    scene.means[::100] *= 1e5
    with pytest.raises(CaptureError) as caught:
        check_geometry(scene, VIEWS)
    assert caught.value.code == "capture.degenerate_geometry"
    assert caught.value.data["reach"] > caught.value.data["limit"] == 400.0


def test_one_far_gaussian_of_many_is_no_reason_to_fail():
    scene = ball_and_floor()
    scene.means[7] *= 1e5
    check_geometry(scene, VIEWS)


def test_far_gaussians_that_nobody_sees_do_not_count():
    scene = ball_and_floor()
    scene.means[::100] *= 1e5
    scene.opacity_logits[::100] = -20.0
    check_geometry(scene, VIEWS)


def test_too_few_gaussians_fail_with_their_number():
    with pytest.raises(CaptureError, match="only 3 gaussians"):
        check_geometry(ball_and_floor().select(np.arange(3)), VIEWS)


def test_values_that_are_no_numbers_may_be_few_but_not_many():
    check_finite_share(10, 1000)
    with pytest.raises(CaptureError, match="11 of 1000"):
        check_finite_share(11, 1000)
