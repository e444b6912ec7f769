import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.data import bad_photos
from tests.data.cameras import Walk, look_at, walk
from tests.data.curves import Arch, Floor, Sky, Torus
from tests.data.make_data import make_capture, read_truth, truth_path
from tests.data.shapes import Box, Frustum, Sphere

PLAN = Walk(n_photos=8, width=240, height=180, turn_every=7)
SHAPES = {
    "box": Box((0.3, 0.5, 0.7)),
    "sphere": Sphere(0.6),
    "frustum": Frustum(0.6, 0.2, 0.9),
    "torus": Torus(0.6, 0.2),
    "arch": Arch(0.5, 0.8, 0.3),
}


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capture") / "photos"
    return folder, make_capture(folder, PLAN)


@pytest.mark.parametrize("name", SHAPES)
def test_a_ray_shot_at_a_point_of_the_surface_from_outside_meets_the_surface(name):
    shape = SHAPES[name]
    rng = np.random.default_rng(1)
    for face in range(len(shape.sizes)):
        u, v = rng.uniform(0.05, 0.95, (2, 200)).astype(np.float32)
        on_face = shape.chart(shape.surface(face, u, v)[0])[0] == face  # a round cap does not fill its square
        u, v = u[on_face], v[on_face]
        point, normal = shape.surface(face, u, v)
        away = (normal + 0.3 * rng.normal(size=normal.shape) * (np.abs(normal) < 0.5)).astype(np.float32)
        away /= np.linalg.norm(away, axis=0)
        o = point + 3 * away
        t = shape.hit(o, -away)
        landed = o - t * away
        assert np.isfinite(t).all()
        exact = t > 3 - 5e-3
        if name in ("box", "sphere", "frustum"):
            assert exact.all(), "a convex solid is met at the point itself"
        assert exact.mean() > 0.6
        found, fu, fv = shape.chart(landed[:, exact])
        again, normals = shape.surface(face, u[exact], v[exact])
        assert (found == face).mean() > 0.97
        assert np.abs(shape.surface(face, fu.astype(np.float32), fv.astype(np.float32))[0] - again)[:, found == face].max() < 0.02
        assert np.allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_rays_that_pass_outside_the_reach_miss(name):
    shape = SHAPES[name]
    rng = np.random.default_rng(2)
    d = rng.normal(size=(3, 500))
    d /= np.linalg.norm(d, axis=0)
    side = np.cross(d.T, rng.normal(size=(500, 3))).T
    side /= np.linalg.norm(side, axis=0)
    o = side * (shape.reach * 1.01) - 5 * d
    assert not np.isfinite(shape.hit(o.astype(np.float32), d.astype(np.float32))).any()


def test_floor_and_sky_surround_every_camera():
    o = np.repeat(np.asarray([[1.0], [2.0], [1.5]], np.float32), 400, axis=1)
    d = np.random.default_rng(3).normal(size=(3, 400)).astype(np.float32)
    d /= np.linalg.norm(d, axis=0)
    t = np.minimum(Floor(3, 10).hit(o, d), Sky(10).hit(o, d))
    assert np.isfinite(t).all()


def test_look_at_gives_a_rotation_that_sees_the_target_in_the_middle():
    pose = look_at(np.asarray((3.0, -2.0, 1.5)), np.asarray((0.1, 0.2, 0.3)), roll_deg=4)
    assert np.allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:, :3]) == pytest.approx(1)
    seen = pose[:, :3] @ (0.1, 0.2, 0.3) + pose[:, 3]
    assert seen[:2] == pytest.approx((0, 0), abs=1e-12)
    assert seen[2] > 0


def test_the_walk_stays_outside_the_things_and_inside_the_backdrop():
    for seed in range(4):
        for shot in walk(Walk(seed=seed)):
            pose = shot.view.cam_from_world
            x, y, z = -pose[:, :3].T @ pose[:, 3]
            assert 3.4 < np.hypot(x, y) < 5.2
            assert 1.2 < z < 3.4


def test_photos_carry_what_a_phone_notes(capture):
    folder, _ = capture
    with Image.open(folder / "IMG_0001.jpg") as photo:
        tags = photo.getexif()
    details = tags.get_ifd(ExifTags.IFD.Exif)
    assert tags[ExifTags.Base.Make] == "Splatworks"
    assert details[ExifTags.Base.FocalLengthIn35mmFilm] == 26
    assert float(details[ExifTags.Base.FocalLength]) == pytest.approx(4.25)
    assert details[ExifTags.Base.DateTimeOriginal].startswith("2026:06:01 ")
    assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_photos_turned_upright_have_the_size_of_the_truth(capture):
    folder, truth = capture
    turned = 0
    for name, view in truth.views.items():
        with Image.open(folder / name) as stored:
            turned += stored.getexif()[ExifTags.Base.Orientation] != 1
            assert stored.size == (PLAN.width, PLAN.height)
            assert ImageOps.exif_transpose(stored).size == (view.width, view.height)
    assert turned == 1


def test_the_truth_on_disk_is_the_truth_returned(capture):
    folder, truth = capture
    assert sorted(json.loads(truth_path(folder).read_text())) == sorted(truth.views)
    for name, view in read_truth(folder).views.items():
        assert np.array_equal(view.cam_from_world, truth.views[name].cam_from_world)
        assert view.fx == pytest.approx(26 / 36 * 240)


def test_the_true_poses_explain_the_pixels(capture):
    """Spots of the open floor in front, seen from two places, are as bright where the truth says they are, and not a little beside it."""
    folder, truth = capture
    x, y = (each.ravel() for each in np.meshgrid(np.linspace(-0.4, 2.0, 50), np.linspace(-2.9, -1.9, 30)))
    spots = np.stack([x, y, np.zeros(1500)], axis=1)
    first, second = (_brightness(folder, name, truth.views[name], spots) for name in ("IMG_0001.jpg", "IMG_0002.jpg"))
    beside = _brightness(folder, "IMG_0002.jpg", truth.views["IMG_0002.jpg"], spots + np.asarray((0.25, 0.1, 0)))
    assert _correlation(first, second) > 0.9
    assert _correlation(first, beside) < 0.6


def _brightness(folder, name, view, spots):
    with Image.open(folder / name) as stored:
        pixels = np.asarray(ImageOps.exif_transpose(stored).convert("L"), float)
    in_camera = spots @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    x = np.round(view.fx * in_camera[:, 0] / in_camera[:, 2] + view.cx - 0.5).astype(int)
    y = np.round(view.fy * in_camera[:, 1] / in_camera[:, 2] + view.cy - 0.5).astype(int)
    inside = (in_camera[:, 2] > 0.5) & (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
    return np.where(inside, pixels[y.clip(0, pixels.shape[0] - 1), x.clip(0, pixels.shape[1] - 1)], np.nan)


def _correlation(first, second):
    both = np.isfinite(first) & np.isfinite(second)
    return np.corrcoef(first[both], second[both])[0, 1]


def test_the_same_plan_gives_the_same_bytes_and_another_seed_other_ones(tmp_path):
    small = Walk(n_photos=2, width=120, height=90, turn_every=0)
    for name, plan in (("one", small), ("two", small), ("other", Walk(2, 120, 90, seed=1, turn_every=0))):
        make_capture(tmp_path / name, plan)
    one, two, other = ((tmp_path / name / "IMG_0002.jpg").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_bad_photos_are_what_they_claim_to_be(capture, tmp_path):
    folder, _ = capture
    photo = folder / "IMG_0001.jpg"
    assert len({path.read_bytes() for path in bad_photos.copies(tmp_path / "copies", photo).iterdir()}) == 1
    assert len({path.read_bytes() for path in bad_photos.blank(tmp_path / "blank").iterdir()}) == 5
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(bad_photos.text_as_jpeg(tmp_path / "text.jpg"))
    with Image.open(bad_photos.truncated(tmp_path / "cut.jpg", photo)) as cut, pytest.raises(OSError, match="truncated"):
        cut.load()
    with Image.open(bad_photos.wide_png(tmp_path / "wide.png", height=40)) as wide:
        assert wide.size == (60_000, 40)
        assert np.asarray(wide).max() == 0
    assert len(bad_photos.hostile_names(tmp_path / "hostile", [photo] * 8)) == 8
