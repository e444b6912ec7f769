import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from engine.compress.compress import run
from engine.compress.write import palettes_to_try
from engine.errors import Cancelled, CaptureError, InternalError
from engine.events import Progress, Warned
from engine.formats.ply import read_ply
from engine.formats.sog import read_sog
from engine.formats.splat import read_splat
from engine.formats.spz import read_spz
from engine.options import CompressOptions, RunOptions, TrainOptions
from engine.workspace import Workspace
from tests.engine.compress.worlds import ball_and_floor, make_workspace, ring_of_cameras

OPTIONS = RunOptions(threads=1, train=TrainOptions(holdout_every=4))
NAMES = ["cameras.json", "colmap.zip", "preview.webp", "scene.ply", "scene.sog", "scene.splat", "scene.spz"]


def ignore(_event) -> None:
    """Hear no events."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Workspace, dict, list]:
    workspace = make_workspace(tmp_path_factory.mktemp("run"), ball_and_floor())
    events: list = []
    stats = run(workspace, OPTIONS, events.append)
    return workspace, stats, events


def bytes_of(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.assets.iterdir()}


def test_all_files_are_there_and_nothing_else(finished):
    workspace, stats, _ = finished
    assert sorted(bytes_of(workspace)) == NAMES
    assert not [path for path in workspace.root.iterdir() if path.name.startswith(".assets")]
    assert stats["files"]["scene.sog"]["bytes"] == len(bytes_of(workspace)["scene.sog"])
    json.dumps(stats, allow_nan=False)


def test_all_formats_hold_the_same_gaussians_in_the_same_order(finished):
    workspace, stats, _ = finished
    ply = read_ply(workspace.assets / "scene.ply")
    for read, name in ((read_sog, "sog"), (read_spz, "spz"), (read_splat, "splat")):
        decoded = read(workspace.assets / f"scene.{name}")
        assert len(decoded) == len(ply) == stats["n_gaussians"]
        assert np.abs(decoded.means - ply.means).max() < 1e-3


def test_the_least_are_gone_and_the_count_adds_up(finished):
    _, stats, _ = finished
    assert stats["n_trained"] == 1500
    assert stats["n_gaussians"] + sum(stats["dropped"].values()) == 1500
    assert stats["dropped"]["least"] >= 50
    assert stats["prune_psnr_db"] > 35


def test_the_loss_of_each_file_is_measured_and_small(finished):
    _, stats, _ = finished
    assert stats["files"]["scene.sog"]["self_psnr_db"] >= 40
    assert stats["files"]["scene.spz"]["self_psnr_db"] >= 38
    assert stats["files"]["scene.splat"]["self_psnr_db"] >= 25
    assert stats["files"]["scene.sog"]["palette"] == 1024
    assert stats["files"]["scene.sog"]["bytes"] < stats["files"]["scene.ply"]["bytes"] / 3


def test_progress_grows_to_one(finished):
    fractions = [event.fraction for event in finished[2] if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_cameras_json_says_where_each_photo_was(finished):
    cameras = json.loads((finished[0].assets / "cameras.json").read_text())
    truth = ring_of_cameras()
    assert [each["img_name"] for each in cameras] == [image.name for image in truth.images]
    assert [each["name"] for each in cameras if each["preview"]] == [finished[1]["preview_photo"]]
    assert [each["held_out"] for each in cameras] == [index % 4 == 0 for index in range(9)]
    for each, image in zip(cameras, truth.images, strict=True):
        assert np.allclose(each["cam_from_world"], image.cam_from_world)
        assert np.allclose(each["position"], image.centre_in_world)
        assert np.allclose(np.array(each["rotation"])[:, 2], -image.centre_in_world / np.linalg.norm(image.centre_in_world))  # forward
    assert {name: cameras[0][name] for name in ("fx", "fy", "cx", "cy", "width", "height")} == {
        "fx": 90.0,
        "fy": 90.0,
        "cx": 48.0,
        "cy": 36.0,
        "width": 96,
        "height": 72,
    }


def test_the_colmap_model_is_whole(finished):
    workspace = finished[0]
    with zipfile.ZipFile(workspace.assets / "colmap.zip") as archive:
        assert archive.testzip() is None
        for name in ("cameras.bin", "images.bin", "points3D.bin"):
            assert archive.read(f"sparse/0/{name}") == (workspace.sparse / name).read_bytes()


def test_the_preview_is_a_picture_of_the_scene(finished):
    with Image.open(finished[0].assets / "preview.webp") as picture:
        assert picture.size == (800, 600)
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    assert pixels.std() > 20


def test_a_second_run_gives_the_same_bytes(finished, tmp_path):
    again = make_workspace(tmp_path, ball_and_floor())
    run(again, RunOptions(threads=2, train=TrainOptions(holdout_every=4)), ignore)
    assert bytes_of(again) == bytes_of(finished[0])


def test_only_what_is_asked_for_is_written_and_old_files_go(tmp_path):
    workspace = make_workspace(tmp_path, ball_and_floor(300, degree=0))
    workspace.assets.mkdir()
    (workspace.assets / "scene.old").write_text("from before")
    stats = run(workspace, RunOptions(threads=1, compress=CompressOptions(formats=("sog", "sog"), sog_palette=64)), ignore)
    assert sorted(bytes_of(workspace)) == ["cameras.json", "colmap.zip", "preview.webp", "scene.sog"]
    assert list(stats["files"]) == ["scene.sog"]


def test_a_few_broken_gaussians_are_dropped_and_counted(tmp_path):
    scene = ball_and_floor(600)
    scene.means[3, 0], scene.sh[4, 2, 1] = np.nan, np.inf
    stats = run(make_workspace(tmp_path, scene), OPTIONS, ignore)
    assert stats["dropped"]["not_finite"] == 2


def test_training_that_diverged_fails_and_leaves_the_old_files(tmp_path):
    scene = ball_and_floor(600)
    scene.opacity_logits[::10] = np.nan
    workspace = make_workspace(tmp_path, scene)
    workspace.assets.mkdir()
    (workspace.assets / "scene.ply").write_text("from before")
    with pytest.raises(CaptureError) as caught:
        run(workspace, OPTIONS, ignore)
    assert caught.value.code == "capture.degenerate_geometry"
    assert bytes_of(workspace) == {"scene.ply": b"from before"}


def test_a_scene_that_no_photo_sees_fails_by_name(tmp_path):
    scene = ball_and_floor(600)
    scene.means[:, 1] -= 1000.0
    with pytest.raises(CaptureError, match="only 0 gaussians"):
        run(make_workspace(tmp_path, scene), OPTIONS, ignore)


def test_very_few_gaussians_are_enough(tmp_path):
    stats = run(make_workspace(tmp_path, ball_and_floor(40)), OPTIONS, ignore)
    assert 16 <= stats["n_gaussians"] <= 40
    assert stats["files"]["scene.sog"]["palette"] == stats["n_gaussians"]


def test_a_loss_that_shows_is_told(tmp_path):
    scene = ball_and_floor(1500, degree=2)
    scene.sh[:, 1:] *= 20.0
    events: list = []
    run(make_workspace(tmp_path, scene), RunOptions(threads=1, compress=CompressOptions(formats=("sog",), sog_palette=16)), events.append)
    warning = next(event for event in events if isinstance(event, Warned))
    assert warning.code == "compress.visible_loss"
    assert warning.data["palette"] == 16


def test_harmonics_get_more_bits_when_the_loss_shows(finished, tmp_path):
    assert finished[1]["files"]["scene.spz"]["sh_bits"] == [5, 4]
    scene = ball_and_floor(1500, degree=3)
    scene.sh[:, 1:] = np.clip(6.0 * scene.sh[:, 1:], -0.9, 0.9)
    spz = run(make_workspace(tmp_path, scene), RunOptions(threads=1, compress=CompressOptions(formats=("spz",))), ignore)["files"][
        "scene.spz"
    ]
    assert spz["sh_bits"] == [6, 5]
    assert spz["self_psnr_db"] >= 40


def test_stopping_in_the_middle_leaves_no_half_written_folder(tmp_path):
    workspace = make_workspace(tmp_path, ball_and_floor(300))

    def stop(event) -> None:
        if isinstance(event, Progress) and "scene.sog" in event.message:
            raise Cancelled.by_request()

    with pytest.raises(Cancelled):
        run(workspace, OPTIONS, stop)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".unfinished-")) == [
        "sparse",
        "train",
        "undistorted",
    ]


def test_a_damaged_training_result_is_our_fault(tmp_path):
    workspace = make_workspace(tmp_path, ball_and_floor(100))
    trained = workspace.train / "gaussians.ply"
    trained.write_bytes(trained.read_bytes()[:-1])
    with pytest.raises(InternalError, match=r"gaussians\.ply"):
        run(workspace, OPTIONS, ignore)


def test_a_missing_training_result_is_named(tmp_path):
    workspace = make_workspace(tmp_path, ball_and_floor(100))
    (workspace.train / "gaussians.ply").unlink()
    with pytest.raises(InternalError, match=r"gaussians\.ply"):
        run(workspace, OPTIONS, ignore)


@pytest.mark.parametrize(
    ("n", "degree", "asked", "expected"),
    [
        (100, 3, 0, [100]),
        (2000, 3, 0, [1024]),
        (20_000, 3, 0, [1024, 4096, 16384]),
        (500, 3, 64, [64]),
        (500, 3, 9999, [500]),
        (500, 0, 0, [1]),
    ],
)
def test_palettes_never_have_more_entries_than_gaussians(n, degree, asked, expected):
    assert palettes_to_try(ball_and_floor(n, degree), asked) == expected
