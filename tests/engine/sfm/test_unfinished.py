"""The real poses stage, killed without warning where it searches, compares and maps: the next attempt goes on, to the same bytes."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import Cancelled, CapacityError, CaptureError, InternalError, SplatError
from engine.options import RunOptions
from engine.sfm.unfinished import DATABASE, unfinished
from engine.workspace import Workspace
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.engine.sfm.test_poses import ROOT, run_stage

MODEL = ("cameras.bin", "images.bin", "points3D.bin", "frames.bin", "rigs.bin")
STOP = Cancelled.by_request()


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("unfinished")
    make_capture(folder / "photos", Walk(5, 480, 360))
    run_stage("ingest", folder / "work", folder / "photos")
    return Workspace.at(folder / "work", folder / "photos")


@pytest.fixture(scope="module")
def alone(ingested: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A stage that nobody disturbed."""
    root = tmp_path_factory.mktemp("alone") / "work"
    shutil.copytree(ingested.root, root)
    assert run_stage("poses", root, ingested.photos)[-1]["stats"]["n_registered"] == 5
    return Workspace.at(root, ingested.photos)


@pytest.fixture
def workspace(ingested: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(ingested.root, tmp_path / "work")
    return Workspace.at(tmp_path / "work", ingested.photos)


def start(workspace: Workspace) -> subprocess.Popen:
    command = [sys.executable, "-m", "engine", "stage", "poses", str(workspace.root), "--photos", str(workspace.photos)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)


def kill_at(workspace: Workspace, words: str, how: int = signal.SIGKILL) -> None:
    with start(workspace) as child, child.stdout as lines:
        for line in lines:
            if words in json.loads(line).get("message", ""):
                os.killpg(child.pid, how)
                break
        for _rest in lines:
            pass
    assert child.returncode not in (0, None), "the stage ended before it could be killed"


def messages(events: list[dict]) -> str:
    return "\n".join(event.get("message", "") for event in events)


def database_of(workspace: Workspace) -> Path:
    (found,) = workspace.root.glob(".unfinished-*/database.db")
    return found


def same_model(one: Workspace, other: Workspace) -> bool:
    return all((one.sparse / name).read_bytes() == (other.sparse / name).read_bytes() for name in MODEL)


def test_a_stage_killed_in_every_step_gives_the_bytes_of_one_left_alone(alone: Workspace, workspace: Workspace) -> None:
    chance = random.Random(20261121)
    kill_at(workspace, f"{chance.randint(1, 3)} of 5 photos searched")
    kill_at(workspace, "10 of 10 pairs of photos compared", signal.SIGTERM)
    kill_at(workspace, f"step {chance.randint(1, 3)}")
    events = run_stage("poses", workspace.root, workspace.photos)
    assert events[-1]["stats"]["n_registered"] == 5
    assert "photos searched" not in messages(events)
    assert "pairs of photos compared" not in messages(events)
    assert same_model(workspace, alone)
    assert not list(workspace.root.glob(".unfinished-*"))


def test_a_batch_that_was_half_compared_is_completed(alone: Workspace, workspace: Workspace) -> None:
    kill_at(workspace, "10 of 10 pairs of photos compared")
    database = database_of(workspace)
    database.with_suffix(".compared.json").unlink()
    with sqlite3.connect(database) as opened:
        opened.execute("DELETE FROM two_view_geometries WHERE pair_id IN (SELECT pair_id FROM two_view_geometries LIMIT 5)")
        opened.execute("DELETE FROM matches WHERE pair_id IN (SELECT pair_id FROM matches LIMIT 2)")
    assert run_stage("poses", workspace.root, workspace.photos)[-1]["type"] == "stage_done"
    assert same_model(workspace, alone)


def attempt(workspace: Workspace, options: RunOptions, error: Exception) -> None:
    with unfinished(workspace, options) as folder:
        with sqlite3.connect(folder / DATABASE) as opened:
            opened.execute("CREATE TABLE IF NOT EXISTS photos (name TEXT)")
        (folder / "scratch").mkdir()
        raise error


def stopped(workspace: Workspace, error: Exception = STOP) -> Path | None:
    """Leave behind what an attempt does that ends by an error; return where, None when that is nothing."""
    with pytest.raises(type(error)):
        attempt(workspace, RunOptions(), error)
    return next(workspace.root.glob(".unfinished-*"), None)


def test_what_is_left_serves_only_the_same_photos_and_options(workspace: Workspace) -> None:
    left, options = stopped(workspace), RunOptions()
    with pytest.raises(Cancelled):
        attempt(workspace, replace(options, poses=replace(options.poses, time_limit_s=99.0)), STOP)
    assert list(workspace.root.glob(".unfinished-*")) == [left], "more time is no other work"
    with unfinished(workspace, replace(options, seed=5)) as folder:
        assert folder != left
        assert not list(folder.iterdir())
    assert list(workspace.root.glob(".unfinished-*")) == [folder]


@pytest.mark.parametrize(("family", "stays"), [(CapacityError, True), (CaptureError, False), (InternalError, False)])
def test_what_an_attempt_broke_on_is_not_gone_on_with(workspace: Workspace, family: type[SplatError], stays: bool) -> None:
    assert (stopped(workspace, family("made.up", "Made up", "for this test")) is not None) == stays


def test_a_damaged_database_is_removed(workspace: Workspace) -> None:
    left = stopped(workspace)
    assert left is not None
    database = left / DATABASE
    database.write_bytes(database.read_bytes()[:100] + b"\xff" * 5000)
    with unfinished(workspace, RunOptions()) as folder:
        assert not list(folder.iterdir())
