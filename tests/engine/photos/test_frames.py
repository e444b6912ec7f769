"""Videos through the first stage: what becomes of good, odd and hostile ones, alone and among photos."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from engine.containers import container_of
from engine.errors import InputError
from engine.events import Progress
from engine.options import RunOptions
from engine.photos import frames, ingest
from engine.photos.sources import list_sources
from engine.workspace import Workspace
from tests.engine.killing import kill_after, kill_at, left_behind, run_whole
from tests.engine.photos.draw import write_photos
from tests.engine.photos.test_ingest import Run
from tests.engine.photos.test_killed import made
from tests.videos import different, write_video

SHORT_PORTIONS = 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def walk(path: Path, seconds: float = 3.0, start: int = 0) -> Path:
    return write_video(path, different(int(4 * seconds), start), per_s=4.0)


def test_a_video_alone_becomes_photos(folder: Path, tmp_path: Path) -> None:
    walk(folder / "walk.mp4")
    run = Run(tmp_path)
    names = [f"walk_{number:05d}.jpg" for number in range(1, 7)]
    assert list(run.records) == names == sorted(path.name for path in run.workspace.images.iterdir())
    record = run.records["walk_00003.jpg"]
    assert (record["accepted"], record["video"], record["width"], record["height"]) == (True, "walk.mp4", 400, 304)
    assert record["focal_px"] is None
    assert (run.stats["n_files"], run.stats["n_photos"], run.stats["n_videos"], run.stats["n_cameras"]) == (1, 6, 1, 1)
    assert run.warnings() == {}
    fractions = [event.fraction for event in run.events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_photos_and_videos_go_together_in_the_order_of_their_names(folder: Path, tmp_path: Path) -> None:
    write_photos(folder, 3)
    walk(folder / "A.mov", 1.0)
    walk(folder / "z.avi", 1.0, start=50)
    run = Run(tmp_path)
    assert list(run.records) == ["A_00001.jpg", "A_00002.jpg", "IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg", "z_00001.jpg", "z_00002.jpg"]
    groups = {record["video"]: record["camera_group"] for record in run.records.values()}
    assert len(set(groups.values())) == 3, "each video is a camera of its own"


def test_no_two_photos_have_one_name_whatever_the_files_are_called(folder: Path, tmp_path: Path) -> None:
    write_photos(folder, 2)
    (folder / "IMG_0.jpg").rename(folder / "walk_00001.jpg")
    for place, name in enumerate(("walk.mp4", "walk.mov", "a/walk.mp4", "x" * 200 + ".mp4", "ünïcode ∞.mp4")):
        walk(folder / name, 1.0, start=100 * place)
    run = Run(tmp_path)
    names = [record["name"].casefold() for record in run.records.values()]
    assert len(names) == len(set(names)) == 12 == len(list(run.workspace.images.iterdir()))
    assert all(name.isascii() and len(name) <= 90 for name in names)


def test_a_video_is_known_by_its_content_whatever_it_is_called(folder: Path, tmp_path: Path) -> None:
    walk(folder / "walk.mp4").rename(folder / "walk.jpg")
    write_photos(folder, 1)
    (folder / "IMG_0.jpg").rename(folder / "photo.mp4")
    assert [container_of(source.path) for source in list_sources(folder)] == [None, "mp4"]
    run = Run(tmp_path)
    assert (run.stats["n_photos"], run.stats["n_videos"]) == (7, 1)
    assert run.records["photo.mp4"]["accepted"]


def test_a_broken_video_among_photos_is_left_out_by_name(folder: Path, tmp_path: Path) -> None:
    write_photos(folder, 3)
    whole = walk(folder / "walk.mp4").read_bytes()
    (folder / "walk.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    run = Run(tmp_path)
    assert run.stats["n_photos"] == 3
    assert run.warnings() == {"walk.mp4": "photo.unreadable", "empty.mp4": "photo.unreadable"}
    assert run.records["walk.mp4"]["detail"].startswith("walk.mp4 is a video that is cut off")


def test_a_video_that_breaks_its_decoder_costs_itself_and_nothing_else(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """The decoder dies in earnest, in the child, in the second portion: what the first gave is not used either."""
    import os

    write_photos(folder, 3)
    walk(folder / "walk.mp4", 6.0)
    whole = frames.sharpest

    def dying(path, stretches, portion):
        if portion.start > 0:
            os._exit(11)
        return whole(path, stretches, portion)

    monkeypatch.setattr(frames, "sharpest", dying)
    monkeypatch.setattr("engine.photos.video.PORTION_S", SHORT_PORTIONS)
    run = Run(tmp_path)
    assert run.warnings() == {"walk.mp4": "photo.crashes"}
    assert sorted(path.name for path in run.workspace.images.iterdir()) == ["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"]


def test_a_video_whose_end_is_missing_gives_what_it_has(folder: Path, tmp_path: Path) -> None:
    data = walk(folder / "walk.avi", 6.0).read_bytes()
    (folder / "walk.avi").write_bytes(data[: int(0.6 * len(data))])
    run = Run(tmp_path)
    assert 5 <= run.stats["n_photos"] <= 8
    assert run.warnings() == {"walk.avi": "photo.truncated"}


def test_too_few_frames_say_what_to_do_with_a_camera(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "still.mp4", [different(1)[0]] * 20, per_s=4.0)
    with pytest.raises(InputError, match=r"^\d of 10 photos and frames can be used") as caught:
        Run(tmp_path, min_photos=6)
    assert caught.value.code == "input.too_few_photos"
    assert "standing still" in caught.value.hint


def test_pictures_too_small_are_refused_before_they_are_decoded(folder: Path, tmp_path: Path) -> None:
    write_photos(folder, 3)
    write_video(folder / "small.mp4", different(4, width=160, height=120), per_s=2.0)
    run = Run(tmp_path)
    assert run.warnings() == {"small.mp4": "photo.too_small"}


def test_frames_carry_nothing_but_pixels_and_are_not_larger_than_asked(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "walk.mp4", different(4, width=800, height=608), per_s=2.0)
    run = Run(tmp_path, max_side=400)
    for path in run.workspace.images.iterdir():
        with Image.open(path) as photo:
            assert (photo.size, dict(photo.getexif()), set(photo.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}) == (
                (400, 304),
                {},
                set(),
            )


def test_how_many_frames_are_taken_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    walk(folder / "walk.mp4", 10.0)
    assert Run(tmp_path, frames=4).stats["n_photos"] == 4


def test_the_number_of_children_changes_no_byte(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("engine.photos.video.PORTION_S", SHORT_PORTIONS)
    walk(folder / "walk.mp4", 8.0)
    found = []
    for n_threads in (1, 3):
        workspace = Workspace.at(tmp_path / f"work-{n_threads}", folder)
        ingest.run(workspace, RunOptions(threads=n_threads), lambda _event: None)
        found.append(made(workspace))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of video, four portions of work, and two photos."""
    folder = tmp_path_factory.mktemp("long") / "photos"
    write_photos(folder, 2)
    walk(folder / "walk.mp4", 60.0)
    return folder


@pytest.fixture(scope="module")
def alone(long: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("alone"), long)
    run_whole(workspace, "ingest", "--set", "threads=1")
    return workspace


def test_a_stage_killed_in_a_video_goes_on_portion_by_portion_to_the_same_bytes(alone: Workspace, long: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, long)
    said = kill_at(workspace, "ingest", "60 of 120 frames taken", "--set", "threads=1")
    assert [words for words in said if "frames" in words] == [f"{n} of 120 frames taken, video 1 of 1" for n in (30, 60)]
    said, _ = run_whole(workspace, "ingest", "--set", "threads=1")
    assert [words for words in said if "frames" in words] == [f"{n} of 120 frames taken, video 1 of 1" for n in (60, 90, 120)]
    assert made(workspace) == made(alone)
    assert left_behind(workspace) == []


def test_a_stage_killed_at_any_moment_of_a_video_gives_the_same_bytes(alone: Workspace, long: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, long)
    for delay in (0.2, 0.7):
        kill_after(workspace, "ingest", delay, "--set", "threads=2")
    run_whole(workspace, "ingest", "--set", "threads=2")
    assert made(workspace) == made(alone)


def test_another_video_under_the_name_is_read_anew(long: Path, tmp_path: Path) -> None:
    shutil.copytree(long, tmp_path / "photos")
    workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
    kill_at(workspace, "ingest", "60 of 120 frames taken", "--set", "threads=1")
    walk(tmp_path / "photos/walk.mp4", 60.0, start=500)
    said, _ = run_whole(workspace, "ingest", "--set", "threads=1")
    assert "30 of 120 frames taken, video 1 of 1" in said
