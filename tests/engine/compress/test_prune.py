import numpy as np
import pytest

from engine.compress.prune import Contribution, finite_rows, measure_contribution, prune, pull_in
from engine.compress.verify import Reference
from engine.gaussians import Gaussians
from kernels.step import Device
from tests.engine.compress.worlds import ball_and_floor, ring_of_cameras, views_of


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(n_threads=1)


def with_row(scene: Gaussians, row: int, **changes) -> Gaussians:
    for name, value in changes.items():
        getattr(scene, name)[row] = value
    return scene


def test_what_no_photo_sees_contributes_nothing_and_is_dropped(device):
    scene = with_row(ball_and_floor(), 5, means=[0.0, -500.0, 0.0])
    contribution = measure_contribution(device, scene, views_of(ring_of_cameras()))
    assert contribution.sums[5] == 0
    pruned = prune(device, scene, contribution, 4.0, 0.0)
    assert 5 not in pruned.kept
    assert pruned.dropped["unseen"] >= 1
    assert len(pruned.kept) == len(scene) - sum(pruned.dropped.values())


def test_contribution_counts_the_pixels_a_gaussian_fills(device):
    scene = ball_and_floor(40, degree=0).select(np.arange(1))
    with_row(scene, 0, means=[0, 0, 0], log_scales=np.log(0.2), opacity_logits=2.0)
    views = views_of(ring_of_cameras(1))
    contribution = measure_contribution(device, scene, views)
    # A ball of sigma s pixels fills 2 pi s^2 alpha; s = focal * 0.2 / distance, widened by the dilation of 0.3 px^2.
    distance = np.linalg.norm(views[0].cam_from_world[:, 3])
    expected = 2 * np.pi * ((90 * 0.2 / distance) ** 2 + 0.3) / (1 + np.exp(-2.0))
    assert contribution.sums[0] == pytest.approx(expected, rel=0.05)
    assert contribution.peaks[0] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=0.02)


def test_the_share_that_gives_least_goes_and_ties_are_settled_by_order(device):
    scene = ball_and_floor(100)
    sums = np.repeat(np.arange(1, 51, dtype=np.float32), 2)
    pruned = prune(device, scene, Contribution(sums, np.ones(100, np.float32)), 4.0, 0.05)
    assert pruned.kept.tolist() == list(range(5, 100))
    assert pruned.dropped == {"unseen": 0, "faint": 0, "haze": 0, "least": 5}
    assert np.array_equal(pruned.contribution.sums, sums[5:])


def test_what_is_too_faint_to_draw_is_dropped(device):
    scene = with_row(ball_and_floor(100), 3, opacity_logits=-6.0)
    pruned = prune(device, scene, Contribution(np.ones(100, np.float32), np.ones(100, np.float32)), 4.0, 0.0)
    assert pruned.dropped["faint"] == 1
    assert 3 not in pruned.kept


def test_a_lone_giant_goes_only_when_it_is_haze(device):
    scene = with_row(ball_and_floor(200), 3, means=[0, -90.0, 0], log_scales=3.0)
    ones = np.ones(200, np.float32)
    assert prune(device, scene, Contribution(ones, ones), 4.0, 0.0).dropped["haze"] == 0
    peaks = np.where(np.arange(200) == 3, np.float32(0.02), ones)
    pruned = prune(device, scene, Contribution(ones, peaks), 4.0, 0.0)
    assert pruned.dropped["haze"] == 1
    assert 3 not in pruned.kept


def test_a_handful_of_gaussians_survives(device):
    scene = ball_and_floor(3)
    pruned = prune(device, scene, Contribution(np.ones(3, np.float32), np.ones(3, np.float32)), 4.0, 0.05)
    assert pruned.kept.tolist() == [0, 1, 2]


def test_nothing_at_all_is_left_when_nothing_is_seen(device):
    scene = ball_and_floor(30)
    zeros = np.zeros(30, np.float32)
    assert len(prune(device, scene, Contribution(zeros, zeros), 4.0, 0.05).kept) == 0


def test_far_gaussians_are_pulled_in_without_changing_the_picture(device):
    scene = ball_and_floor(300)
    scene.means[:40] *= 5000.0 / np.linalg.norm(scene.means[:40], axis=1, keepdims=True)
    scene.log_scales[:40] += np.log(2500.0)
    views = views_of(ring_of_cameras())
    pulled, n_far = pull_in(scene, np.zeros(3), 400.0)
    assert n_far == 40
    assert np.linalg.norm(pulled.means, axis=1).max() < 400.1
    assert np.array_equal(pulled.means[40:], scene.means[40:])
    assert np.array_equal(pulled.log_scales[40:], scene.log_scales[40:])
    reference = Reference.of(scene, views, device)
    assert max(picture.max() for picture in reference.pictures) > 0.2
    assert reference.psnr_db(pulled) > 35
    assert reference.psnr_db(scene.select(np.arange(40, 300))) < 30


def test_rows_with_values_that_are_no_numbers_are_found():
    scene = ball_and_floor(10)
    scene.means[1, 2], scene.sh[2, 3, 1], scene.quats[3, 0] = np.nan, np.inf, -np.inf
    scene.opacity_logits[4], scene.log_scales[5, 1], scene.log_scales[6, 0] = np.nan, np.inf, 200.0
    assert np.flatnonzero(~finite_rows(scene)).tolist() == [1, 2, 3, 4, 5, 6]
