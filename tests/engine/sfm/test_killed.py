"""The real poses stage, killed without warning while it maps and straightens: the next attempt does nothing twice, to the same bytes."""

import random
import shutil
import signal
from pathlib import Path

import pytest

from engine.workspace import Workspace
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.engine.killing import files_of, kill_after, kill_at, left_behind, run_whole
from tests.engine.photos.draw import jpeg_bytes, texture
from tests.engine.sfm.marking import run
from tests.engine.sfm.test_given import write_transforms

N_PLACED = 5


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Five photos of a plaza and one of something else, all compared: what comes next is mapping."""
    folder = tmp_path_factory.mktemp("matched")
    make_capture(folder / "photos", Walk(N_PLACED, 480, 360))
    (folder / "photos" / "other.jpg").write_bytes(jpeg_bytes(texture(3)))
    workspace = Workspace.at(folder / "work", folder / "photos")
    run_whole(workspace, "ingest")
    kill_at(workspace, "poses", "placing the cameras")
    return workspace


def copy_of(matched: Workspace, folder: Path) -> Workspace:
    shutil.copytree(matched.root, folder)
    return Workspace.at(folder, matched.photos)


@pytest.fixture
def workspace(matched: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(matched, tmp_path / "work")


def made(workspace: Workspace) -> dict[str, bytes]:
    return {f"{name}/{path}": data for name in ("sparse", "undistorted") for path, data in files_of(workspace.root / name).items()}


@pytest.fixture(scope="module")
def alone(matched: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a stage makes that sets the same marks and that nobody disturbed."""
    workspace = copy_of(matched, tmp_path_factory.mktemp("alone") / "work")
    said, _, last = run(workspace)
    assert last["stats"]["n_registered"] == N_PLACED
    assert straight(said) == list(range(1, N_PLACED + 1))
    assert placed(said)[:3] == [1, 2, 3]
    assert left_behind(workspace) == []
    return made(workspace)


def killed(workspace: Workspace, words: str) -> list[str]:
    said, code, _ = run(workspace, words)
    assert code == -signal.SIGKILL, f"the stage did not die at {words!r}: {said}"
    return said


def ended(workspace: Workspace, alone: dict[str, bytes]) -> list[str]:
    """Have a stage end that was killed; return what it said."""
    said, code, last = run(workspace)
    assert code == 0, last
    assert made(workspace) == alone
    assert last["stats"]["attempts"][0]["registered"] == N_PLACED
    assert left_behind(workspace) == []
    return said


def placed(said: list[str]) -> list[int]:
    return [int(words.rpartition(" ")[2]) for words in said if "step" in words]


def straight(said: list[str]) -> list[int]:
    return [int(words.split()[0]) for words in said if words.endswith("without lens distortion")]


def folder_of(workspace: Workspace) -> Path:
    (folder,) = workspace.root.glob(".unfinished-poses-*")
    return folder


def test_no_photo_is_placed_twice(alone: dict[str, bytes], workspace: Workspace) -> None:
    killed(workspace, "step 1")
    assert placed(killed(workspace, "step 2")) == [2], "what was placed was placed again"
    assert placed(ended(workspace, alone))[0] == 3


def test_more_pairs_are_not_compared_twice_and_what_was_mapped_is_not_mapped_again(alone: dict[str, bytes], workspace: Workspace) -> None:
    said = killed(workspace, "15 of 15 pairs of photos compared")
    assert placed(said)
    rest = ended(workspace, alone)
    assert not [words for words in rest if "compared" in words or "(incremental)" in words]


def test_no_photo_is_straightened_twice(alone: dict[str, bytes], workspace: Workspace) -> None:
    killed(workspace, "2 of 5 photos without lens distortion")
    assert straight(killed(workspace, "3 of 5 photos without lens distortion")) == [3]
    said = ended(workspace, alone)
    assert straight(said) == [4, 5]
    assert not [words for words in said if "placing" in words or "compared" in words]


def test_a_stage_killed_at_any_moment_gives_the_bytes_of_one_left_alone(matched: Workspace, workspace: Workspace, tmp_path: Path) -> None:
    untouched = copy_of(matched, tmp_path / "untouched")
    run_whole(untouched, "poses")
    chance = random.Random()
    delays = [chance.uniform(0.0, 1.0) for _ in range(3)]
    for delay in delays:
        kill_after(workspace, "poses", delay)
    run_whole(workspace, "poses")
    assert made(workspace) == made(untouched), f"killed after {delays} s"


def test_points_for_given_poses_are_placed_once(tmp_path: Path) -> None:
    truth = make_capture(tmp_path / "photos", Walk(N_PLACED, 400, 300))
    write_transforms(tmp_path / "transforms.json", truth.views)
    workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
    run_whole(workspace, "ingest")
    untouched = copy_of(workspace, tmp_path / "untouched")
    run_whole(untouched, "poses")
    kill_at(workspace, "poses", "1 of 5 photos without lens distortion")
    points = folder_of(workspace) / "triangulated" / "points3D.bin"
    placed_at = points.stat().st_mtime_ns
    assert straight(kill_at(workspace, "poses", "2 of 5 photos without lens distortion")) == [2]
    assert points.stat().st_mtime_ns == placed_at
    run_whole(workspace, "poses")
    assert made(workspace) == made(untouched)


def test_what_a_power_cut_tears_is_made_again(alone: dict[str, bytes], workspace: Workspace) -> None:
    killed(workspace, "step 2")
    torn = [path for path in folder_of(workspace).rglob("*") if "mark-" in str(path) and path.is_file()]
    assert len(torn) > 3
    for path in torn:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert placed(killed(workspace, "2 of 5 photos without lens distortion"))[0] == 1
    folder = folder_of(workspace)
    note = folder / "straight-IMG_0001.jpg.json"
    for path in (next(folder.glob("attempt-*/points3D.bin")), folder / "straight/images/IMG_0002.jpg", note):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = ended(workspace, alone)
    assert placed(said), "the model that was torn was used"
    assert straight(said) == [1, 2, 3, 4, 5]
