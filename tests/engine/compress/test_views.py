import dataclasses

import numpy as np
import pytest

from engine.compress.views import MEASURED, load_views
from engine.errors import InternalError
from engine.formats.colmap import write_reconstruction
from engine.options import TrainOptions
from engine.scene import Camera
from tests.engine.compress.worlds import ring_of_cameras


def load(tmp_path, scene, **options):
    write_reconstruction(tmp_path / "sparse", scene)
    return load_views(tmp_path, TrainOptions(**options))


def test_the_held_out_photos_are_those_that_training_held_out(tmp_path):
    views = load(tmp_path, ring_of_cameras(9), holdout_every=4)
    assert [each.name for each in views.photos if each.is_held_out] == ["photo_00.jpg", "photo_04.jpg", "photo_08.jpg"]
    assert [view.cam_from_world.tolist() for view in views.measured] == [views.photos[i].view.cam_from_world.tolist() for i in (0, 4, 8)]


@pytest.mark.parametrize(("n", "every", "expected"), [(3, 0, 3), (20, 0, MEASURED), (2, 8, 2), (60, 8, MEASURED)])
def test_a_few_views_are_measured_however_many_there_are(tmp_path, n, every, expected):
    assert len(load(tmp_path, ring_of_cameras(n), holdout_every=every).measured) == expected


def test_views_shrink_to_the_size_of_training_with_their_focal_length(tmp_path):
    view = load(tmp_path, ring_of_cameras(3), max_side=64).training_size[0]
    assert (view.width, view.height, view.fx) == (64, 48, 60.0)


def test_the_extent_is_the_reach_of_the_cameras_or_what_they_look_at(tmp_path):
    assert load(tmp_path, ring_of_cameras(12)).extent == pytest.approx(4.0, abs=0.1)
    still = ring_of_cameras(12, radius=0.01)
    assert load(tmp_path, still).extent == pytest.approx(np.median(np.linalg.norm(still.points.xyz - [0, -1, 0], axis=1)), rel=0.1)


def test_another_camera_model_is_refused(tmp_path):
    scene = dataclasses.replace(ring_of_cameras(3), cameras={1: Camera(1, "SIMPLE_RADIAL", 96, 72, (90.0, 48.0, 36.0, 0.1))})
    with pytest.raises(InternalError, match="SIMPLE_RADIAL"):
        load(tmp_path, scene)
