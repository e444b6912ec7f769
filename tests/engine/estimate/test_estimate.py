import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.estimate import estimate as estimating
from engine.estimate.estimate import Photos, estimate, photos_in, poses_seconds, searched_megapixels
from engine.estimate.stand_in import RING_RADIUS, ring, write_stand_in
from engine.estimate.words import said, sentences
from engine.formats.colmap import read_reconstruction
from engine.options import preset
from engine.train.shell import project
from engine.train.views import load_split
from tests.videos import different, write_video

SETTINGS = ["train.steps=100", "train.max_gaussians=2000", "train.max_side=96", "threads=1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).resize((384, 288)).save(folder / f"{index}.jpg")
    (folder / "notes.txt").write_text("no photo")
    return folder


def options(**changes: int):
    base = preset("draft")
    return replace(base, threads=1, train=replace(base.train, steps=100, max_gaussians=2000, max_side=96, **changes))


def test_the_command_says_every_stage_and_touches_nothing(photos: Path) -> None:
    before = sorted(photos.iterdir())
    command = [sys.executable, "-m", "engine", "estimate", str(photos), "--json", *(f"--set={each}" for each in SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert list(figures["stages"]) == ["ingest", "poses", "train", "compress"]
    assert (figures["photos"], figures["basis"], figures["threads"]) == (5, "photos", 1)
    assert 1000 <= figures["gaussians"] <= 2000
    assert figures["steps"] >= 100
    assert figures["seconds"] == pytest.approx(sum(stage["seconds"] for stage in figures["stages"].values()), abs=0.3)
    assert figures["low"] < figures["seconds"] < figures["high"]
    assert 100e6 < figures["peak_memory_bytes"] < 100e9
    assert figures["disk_bytes"] > 5 * 384 * 288
    assert sorted(photos.iterdir()) == before


def test_a_folder_without_photos_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "engine", "estimate", str(tmp_path / "empty"), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "input.no_photos"
    assert "empty holds no photo" in done.stderr


def test_more_of_anything_takes_longer(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "slowness", lambda: 1.0)
    draft = preset("draft")
    few, many, large = [(1000, 750)] * 20, [(1000, 750)] * 40, [(1300, 975)] * 20
    assert poses_seconds(few, draft) < poses_seconds(many, draft)
    assert poses_seconds(few, draft) < poses_seconds(large, draft)
    # Beyond the limit only neighbours are matched: twice the photos, no longer four times the pairs.
    assert poses_seconds(few * 10, draft) < 2.6 * poses_seconds(few * 5, draft)
    one, two = (replace(draft, threads=threads) for threads in (1, 2))
    stages = [estimating.before_training(photos_in(photos), each) for each in (one, two)]
    assert stages[0]["poses"].seconds == pytest.approx(2 * stages[1]["poses"].seconds)


def test_small_photos_are_searched_at_twice_their_size() -> None:
    assert searched_megapixels([(1000, 1000), (1600, 1000)]) == [4.0, 1.6]


def test_photos_are_read_by_their_headers(photos: Path) -> None:
    found = photos_in(photos)
    assert found.sizes == [(384, 288)] * 5
    assert Photos(found.paths, [(4000, 3000), (640, 480)]).limited(1600) == [(1600, 1200), (640, 480)]
    with pytest.raises(InputError, match="does not exist"):
        photos_in(photos / "none")


def test_a_video_counts_as_the_frames_that_may_be_taken_of_it(photos: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "walk.mp4", different(4))
    alone = photos_in(tmp_path, 30)
    assert (alone.paths, len(alone.sizes)) == ([], 30)
    (tmp_path / "0.jpg").write_bytes((photos / "0.jpg").read_bytes())
    assert len(photos_in(tmp_path, 30).sizes) == 31


def test_the_stand_in_can_be_trained_on_and_every_camera_sees_the_scene(photos: Path, tmp_path: Path) -> None:
    found = photos_in(photos)
    write_stand_in(tmp_path / "undistorted", found.paths, [(128, 96)] * 7)
    split, scene = load_split(tmp_path / "undistorted", 96, 8)
    assert (len(split.train), len(split.test)) == (6, 1)
    assert read_reconstruction(tmp_path / "undistorted" / "sparse").points.xyz.shape == scene.points.xyz.shape
    for photo in split.train:
        seen, _, _ = project(scene.points.xyz, photo.view)
        assert seen.mean() > 0.5
    centres = np.stack([image.centre_in_world for image in ring([(10, 10)] * 9).images])
    assert np.allclose(np.linalg.norm(centres, axis=1), RING_RADIUS)


def test_a_posed_workspace_is_tried_on_its_own_photos(photos: Path, tmp_path: Path) -> None:
    write_stand_in(tmp_path / "undistorted", photos_in(photos).paths, [(128, 96)] * 7)
    record = {"accepted": True, "name": "a.jpg", "width": 128, "height": 96}
    (tmp_path / "images.json").write_text(json.dumps([record] * 7 + [{**record, "accepted": False}]))
    before = sorted(tmp_path.rglob("*"))
    figures = estimate(tmp_path, options())
    assert list(figures["stages"]) == ["train", "compress"]
    assert (figures["photos"], figures["basis"]) == (7, "poses")
    assert sorted(tmp_path.rglob("*")) == before
    text = sentences(figures)
    assert text.startswith(f"7 photos, 0 megapixels, preset draft, 1 threads: {figures['steps']} steps, 2,000 gaussians\n")
    assert "Train gaussians" in text
    assert "Find cameras" not in text


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (75.0, "1 min 15 s"), (7384.0, "2 h 3 min")])
def test_seconds_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert said(seconds) == words


def test_sizes_alone_stand_for_photos_that_are_still_to_be_taken(tmp_path: Path) -> None:
    figures = estimate(tmp_path, options(), [(384, 288)] * 4)
    assert (figures["photos"], figures["basis"]) == (4, "photos")
    assert figures["megapixels"] == pytest.approx(0.44, abs=0.01)
    assert figures["stages"]["train"]["seconds"] > 0
