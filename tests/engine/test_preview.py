import numpy as np
from PIL import Image

from engine.preview import choose_view, write_preview
from kernels.step import Device
from tests.engine.compress.worlds import ball_and_floor, looking_at, ring_of_cameras, views_of


def away_from(view):
    """Return the same camera turned to look away from the scene."""
    centre = -view.cam_from_world[:, :3].T @ view.cam_from_world[:, 3]
    return type(view)(looking_at(centre, 3 * centre), view.fx, view.fy, view.cx, view.cy, view.width, view.height)


def test_the_view_that_shows_something_is_chosen():
    views = views_of(ring_of_cameras(3))
    views[0], views[1] = away_from(views[0]), away_from(views[1])
    assert choose_view(ball_and_floor(), views, Device(n_threads=1)) == 2


def test_the_preview_has_800_pixels_and_shows_the_scene(tmp_path):
    views = views_of(ring_of_cameras(20))
    best = write_preview(tmp_path / "preview.webp", ball_and_floor(), views, Device(n_threads=1))
    assert 0 <= best < 20
    with Image.open(tmp_path / "preview.webp") as picture:
        assert max(picture.size) == 800
        assert np.asarray(picture.convert("L")).std() > 20
