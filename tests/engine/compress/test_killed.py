"""The real compress stage, killed without warning: the next attempt counts no view and writes no file again, to the same bytes."""

import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from engine import unfinished as left
from engine.compress import compress
from engine.compress.kept import hash_scene, read_tally, write_tally
from engine.compress.prune import Contribution, Tally
from engine.errors import Cancelled
from engine.events import Checkpointed, Event, Progress
from engine.options import CompressOptions, RunOptions
from engine.unfinished import Headway, Pieces
from engine.workspace import Stamp, Workspace, write_json
from kernels.step import Device
from tests.engine.compress.worlds import ball_and_floor, make_workspace
from tests.engine.killing import files_of, kill_after, kill_at, left_behind, run_whole

THREADS = ("--set", "threads=1", "--set", "compress.sog_palette=0")
KINDS = ("ply", "spz", "sog", "splat")
N_VIEWS = 9


def make(root: Path) -> Workspace:
    """Return a workspace whose shine needs more than one try at SPZ and at SOG."""
    scene = ball_and_floor(1500, degree=3)
    scene.sh[:, 1:] = np.clip(6.0 * scene.sh[:, 1:], -0.9, 0.9)
    workspace = make_workspace(root, scene)
    write_json(workspace.stamp("train"), asdict(Stamp("trained", {}, {}, 0.0)))
    return workspace


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A stage that nobody disturbed."""
    workspace = make(tmp_path_factory.mktemp("alone"))
    said, _ = run_whole(workspace, "compress", *THREADS)
    assert written(said) == ["ply", "spz", "spz", "sog", "splat"]
    assert left_behind(workspace) == []
    return workspace


def written(said: list[str]) -> list[str]:
    """Return the formats of which a file was written, in order."""
    return [words.rpartition(".")[2] for words in said if words.startswith("Writing scene.")]


def measured(said: list[str]) -> int:
    return sum(words.startswith("Measuring what") for words in said)


def test_a_stage_killed_again_and_again_does_nothing_twice_and_gives_the_bytes_of_one_left_alone(alone: Workspace, tmp_path: Path) -> None:
    workspace = make(tmp_path)
    said = kill_at(workspace, "compress", f"({N_VIEWS}/{N_VIEWS} photos)", *THREADS)
    assert measured(said) == N_VIEWS
    said = kill_at(workspace, "compress", "Writing scene.sog", *THREADS)
    assert (measured(said), written(said)) == (0, ["ply", "spz", "spz", "sog"])
    said = kill_at(workspace, "compress", "Rendering the preview", *THREADS)
    assert (measured(said), written(said)) == (0, ["sog", "splat"])
    assert not workspace.assets.exists()
    said, _ = run_whole(workspace, "compress", *THREADS)
    assert (measured(said), written(said)) == (0, [])
    assert files_of(workspace.assets) == files_of(alone.assets)
    assert left_behind(workspace) == []


def test_a_stage_killed_at_any_moment_gives_the_bytes_of_one_left_alone(alone: Workspace, tmp_path: Path) -> None:
    chance, workspace = random.Random(), make(tmp_path)
    delays = [chance.uniform(0.2, 2.5) for _ in range(3)]
    for delay in delays:
        kill_after(workspace, "compress", delay, *THREADS)
    run_whole(workspace, "compress", *THREADS)
    assert files_of(workspace.assets) == files_of(alone.assets), f"killed after {delays} s"
    assert left_behind(workspace) == []


def test_a_torn_file_is_written_anew(alone: Workspace, tmp_path: Path) -> None:
    workspace = make(tmp_path)
    kill_at(workspace, "compress", "Rendering the preview", *THREADS)
    (torn,) = workspace.root.glob(".unfinished-compress-*/sog-*/scene.sog")
    torn.write_bytes(torn.read_bytes()[:-1] + b"!")
    said, _ = run_whole(workspace, "compress", *THREADS)
    assert (measured(said), written(said)) == (0, ["sog"])
    assert files_of(workspace.assets) == files_of(alone.assets)


class Attempt:
    """An attempt in this process that hears its events, and may be stopped by them."""

    def __init__(self, workspace: Workspace, options: RunOptions, stop_at: str = "\0") -> None:
        self.events: list[Event] = []
        self.said: list[str] = []
        self.stop_at = stop_at
        try:
            self.stats = compress.run(workspace, options, self.hear)
        except Cancelled:
            assert stop_at in self.said[-1]

    def hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Progress):
            self.said.append(event.message)
            if self.stop_at in event.message:
                raise Cancelled.by_request()


OPTIONS = RunOptions(threads=1)


def test_views_counted_are_kept_from_time_to_time_and_said_to_be(alone: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left, "TELL_EVERY_S", 0.0)
    workspace = make(tmp_path)
    first = Attempt(workspace, OPTIONS, stop_at=f"(4/{N_VIEWS} photos)")
    assert sum(isinstance(event, Checkpointed) for event in first.events) == 4
    assert len(list(workspace.root.glob(".unfinished-*/tally-*.npy"))) == 1
    second = Attempt(workspace, OPTIONS)
    assert measured(second.said) == N_VIEWS - 4
    assert files_of(workspace.assets) == files_of(alone.assets)


def test_each_file_is_written_once_whichever_it_stops_at(alone: Workspace, tmp_path: Path) -> None:
    workspace, told = make(tmp_path), []
    for kind in KINDS:
        told += written(Attempt(workspace, OPTIONS, stop_at=f"Writing scene.{kind}").said)[:-1]
    told += written(Attempt(workspace, OPTIONS).said)
    assert told == ["ply", "spz", "spz", "sog", "splat"]
    assert files_of(workspace.assets) == files_of(alone.assets)


def test_a_try_that_was_not_good_enough_is_not_made_again(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    first = Attempt(workspace, OPTIONS, stop_at="Writing scene.sog")
    assert written(first.said) == ["ply", "spz", "spz", "sog"]
    second = Attempt(workspace, OPTIONS)
    assert written(second.said) == ["sog", "splat"]
    assert second.stats["files"]["scene.spz"]["sh_bits"] == [6, 5]


def test_other_options_and_other_gaussians_find_nothing(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    Attempt(workspace, OPTIONS, stop_at="Writing scene.sog")
    others = Attempt(workspace, replace(OPTIONS, compress=CompressOptions(prune_share=0.2)), stop_at="Writing scene.ply")
    assert measured(others.said) == N_VIEWS
    shutil.copy(make_workspace(tmp_path / "other", ball_and_floor(1500, degree=3, seed=5)).train / "gaussians.ply", workspace.train)
    assert measured(Attempt(workspace, OPTIONS, stop_at="Writing scene.ply").said) == N_VIEWS


def test_a_tally_is_kept_bit_for_bit_and_one_that_is_damaged_is_not_taken(tmp_path: Path) -> None:
    device, pieces = Device(n_threads=1), Pieces(tmp_path, Headway("compress", lambda _event: None))
    drawn = np.random.default_rng(0).random((2, 50), np.float32)
    assert read_tally(pieces, 50, device).n_views == 0
    for n_views in (3, 7):
        write_tally(pieces, Tally.of(Contribution(*(n_views * drawn)), n_views, device))
    found = read_tally(pieces, 50, device)
    assert found.n_views == 7
    assert np.array_equal(np.stack([found.contribution.sums, found.contribution.peaks]), 7 * drawn)
    (path,) = tmp_path.glob("tally-*.npy")
    path.write_bytes(path.read_bytes()[:-4])
    assert read_tally(pieces, 50, device).n_views == 0


def test_the_key_of_a_scene_knows_every_bit_of_it() -> None:
    scene = ball_and_floor(50)
    given = Contribution(np.ones(50, np.float32), np.ones(50, np.float32))
    keys = {hash_scene(scene, given)}
    for array in (*vars(scene).values(), given.sums):
        flat = array.reshape(-1)
        flat[7] = np.nextafter(flat[7], np.float32(9.0))
        keys.add(hash_scene(scene, given))
    assert len(keys) == 7
