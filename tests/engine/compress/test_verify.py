import numpy as np
import pytest

from engine.compress.verify import Reference, check_decoded, psnr_db
from engine.errors import InternalError
from engine.formats import spz
from engine.gaussians import Gaussians
from kernels.step import Device
from tests.engine.compress.worlds import ball_and_floor, ring_of_cameras, views_of


def decoded_spz(tmp_path, scene: Gaussians) -> Gaussians:
    spz.write_spz(tmp_path / "scene.spz", scene)
    return spz.read_spz(tmp_path / "scene.spz")


def test_a_sound_file_passes(tmp_path):
    scene = ball_and_floor(200)
    check_decoded("scene.spz", scene, decoded_spz(tmp_path, scene), spz.error_bounds(scene))
    check_decoded("scene.ply", scene, ball_and_floor(200), None)


@pytest.mark.parametrize(
    ("attribute", "row", "value", "said"),
    [
        ("means", (3, 1), 0.9, "means"),
        ("log_scales", (0, 2), 1.0, "log_scales"),
        ("quats", (5,), [0, 1, 0, 0], "rotations"),
        ("opacity_logits", (7,), -3.0, "opacities"),
        ("sh", (2, 0, 1), 4.0, "colours"),
        ("sh", (2, 4, 1), 0.9, "harmonics"),
        ("sh", (2, 4, 1), np.nan, "than the format"),
        ("quats", (1, 0), np.nan, "than the format"),
        ("means", (1, 0), np.inf, "means"),
    ],
)
def test_one_wrong_value_is_found(tmp_path, attribute, row, value, said):
    scene = ball_and_floor(200)
    decoded = decoded_spz(tmp_path, scene)
    getattr(decoded, attribute)[row] = value
    with pytest.raises(InternalError, match=said) as caught:
        check_decoded("scene.spz", scene, decoded, spz.error_bounds(scene))
    assert caught.value.code == "internal.bad_asset"


def test_a_swapped_order_or_a_missing_gaussian_is_found(tmp_path):
    scene = ball_and_floor(200)
    decoded = decoded_spz(tmp_path, scene)
    for changed in (decoded.select(np.arange(199, -1, -1)), decoded.select(np.arange(199))):
        with pytest.raises(InternalError):
            check_decoded("scene.spz", scene, changed, spz.error_bounds(scene))


def test_a_lossless_format_must_be_lossless():
    changed = ball_and_floor(50)
    changed.sh[3, 1, 0] += 1e-6
    with pytest.raises(InternalError, match="sh are off"):
        check_decoded("scene.ply", ball_and_floor(50), changed, None)


def test_psnr_is_that_of_the_definition():
    black, grey = np.zeros((4, 5, 3), np.float32), np.full((4, 5, 3), 0.1, np.float32)
    assert psnr_db([black], [grey]) == pytest.approx(20.0, abs=1e-4)
    assert psnr_db([black, black], [black, grey]) == pytest.approx(20.0 + 10 * np.log10(2), abs=1e-4)
    assert psnr_db([grey], [grey]) == 100.0


def test_a_scene_equals_itself_and_a_changed_one_is_measured():
    scene = ball_and_floor(800)
    reference = Reference.of(scene, views_of(ring_of_cameras())[:2], Device(n_threads=1))
    assert reference.psnr_db(scene) == 100.0
    brighter = ball_and_floor(800)
    brighter.sh[:, 0] += 0.2
    darker = ball_and_floor(800)
    darker.sh[:, 0] -= 0.6
    assert 50 > reference.psnr_db(brighter) > reference.psnr_db(darker) > 5
