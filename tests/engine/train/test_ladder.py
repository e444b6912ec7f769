"""What a run does when memory runs out: on the CPU, under a real limit (on a card: test_on_card)."""

import json
import resource
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from engine.errors import CapacityError
from engine.formats.colmap import read_reconstruction, write_reconstruction
from engine.options import RunOptions, TrainOptions, preset
from engine.scene import Points3D
from engine.train import checkpoint as checkpoints
from engine.train import train
from engine.train.ladder import FEWEST, LAST, Rung, Shortage, asked_bytes, is_shortage, lowered
from engine.train.prepare import Job, load_checkpoint, prepare, run_key
from engine.train.recipe import recipe_of
from engine.train.step import CPU
from engine.workspace import Workspace
from tests.engine.train.test_checkpoint import some_state

N_POINTS = 40_000  # as many gaussians to begin with: 32 MB of state, and another time as much while steps are tried on a copy
TRAIN = TrainOptions(steps=20, max_gaussians=N_POINTS, max_side=160, sh_degree=1, min_psnr_db=0.0, preview_s=0.0, strategy="adc")
OPTIONS: RunOptions = replace(preset("draft"), threads=1, train=TRAIN)
# Trains with less memory than its gaussians come to need, from the moment on that steps are tried.
LIMITED = """
import json, resource, sys
from pathlib import Path
from engine.options import from_dict
from engine.train import train
from engine.workspace import Workspace
from PIL import Image

Image.init()  # loads what pictures of all kinds need

def listen(event):
    print(json.dumps([event.type, getattr(event, "code", ""), getattr(event, "data", {})]), flush=True)
    if getattr(event, "message", "").startswith("timing") and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[3]), resource.RLIM_INFINITY))

try:
    stats = train.run(Workspace.at(Path(sys.argv[1])), from_dict(json.loads(sys.argv[2])), listen)
    print(json.dumps(["stats", "", stats]))
except Exception as error:
    print(json.dumps(["failed", getattr(error, "code", repr(error)), getattr(error, "data", {})]))
"""


def limited(workspace: Workspace, spare_bytes: int) -> list[list]:
    """Train in a process of its own that may take so much more once its first gaussians are there; return what it said."""
    command = [sys.executable, "-c", LIMITED, str(workspace.root), json.dumps(asdict(OPTIONS)), str(spare_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def crowd(workspace: Workspace) -> None:
    """Give the model ``N_POINTS`` points."""
    scene = read_reconstruction(workspace.undistorted / "sparse")
    rng = np.random.default_rng(0)
    xyz = scene.points.xyz[rng.integers(0, len(scene.points.xyz), N_POINTS)] + 0.01 * rng.normal(size=(N_POINTS, 3))
    points = Points3D(xyz, rng.integers(60, 200, (N_POINTS, 3), dtype=np.uint8), np.ones(N_POINTS), np.full(N_POINTS, 3))
    write_reconstruction(workspace.undistorted / "sparse", replace(scene, points=points))


def test_a_run_that_memory_does_not_hold_goes_on_with_fewer_gaussians(posed_workspace: Workspace) -> None:
    crowd(posed_workspace)
    said = limited(posed_workspace, 25_000_000)
    told = [data for kind, code, data in said if (kind, code) == ("warning", "capacity.lowered")]
    assert told
    assert told[0]["max_gaussians"] == N_POINTS
    assert told[0]["next_max_gaussians"] == N_POINTS // 2
    kind, _, stats = said[-1]
    assert kind == "stats", said[-1]
    assert stats["memory_rung"] == len(told)
    assert stats["n_gaussians"] <= stats["max_gaussians"] <= N_POINTS // 2
    assert (posed_workspace.train / "gaussians.ply").exists()


def test_where_nothing_fits_the_numbers_are_told(posed_workspace: Workspace) -> None:
    said = limited(posed_workspace, 100_000)
    kind, code, data = said[-1]
    assert (kind, code) == ("failed", "capacity.memory")
    assert data["max_gaussians"] < N_POINTS
    assert data["rung"] == LAST
    assert data["max_side"] == 80
    assert data["free_bytes"] >= 0


def test_the_ladder_is_two_halvings_of_the_cap_then_one_of_the_photos() -> None:
    rung, cap, side, seen = Rung(), 10_000, 640, []
    for _ in range(LAST):
        rung = lowered(Shortage(rung, cap, side, 5_000_000_000, 1_000, "words"))
        cap, side = rung.max_gaussians or cap, rung.max_side or side
        seen.append((rung.number, cap, side))
    assert seen == [(1, 5000, 640), (2, 2500, 640), (3, 2500, 320)]
    with pytest.raises(CapacityError, match=r"at most 2,500 gaussians and photos of 320 pixels: 5\.00 GB .* 1,000 bytes are free"):
        lowered(Shortage(rung, cap, side, 5_000_000_000, 1_000, "words"))


def test_a_cap_that_cannot_be_lowered_is_passed_over() -> None:
    assert lowered(Shortage(Rung(), FEWEST, 640, 0, 0, "")) == Rung(LAST, FEWEST, 320)
    with pytest.raises(CapacityError):
        lowered(Shortage(Rung(), FEWEST, 64, 0, 0, ""))


@pytest.mark.parametrize(
    ("error", "size_bytes"),
    [
        (MemoryError("a workspace of 294912 bytes could not be had"), 294_912),
        (MemoryError(), 0),
        (RuntimeError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 8 GiB"), 3 << 29),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"), 4096),
    ],
)
def test_the_words_of_kernels_and_torch_are_understood(error: Exception, size_bytes: int) -> None:
    assert is_shortage(error)
    assert asked_bytes(str(error)) == size_bytes


def test_other_errors_are_no_want_of_memory() -> None:
    assert not is_shortage(RuntimeError("there is no CUDA card 63 here"))
    assert not is_shortage(ValueError("out of memory"))


def test_a_checkpoint_goes_on_where_it_fits_the_rung_and_stays_there(posed_workspace: Workspace) -> None:
    key = run_key(posed_workspace, OPTIONS, recipe_of(OPTIONS.train))
    posed_workspace.train.mkdir()
    checkpoints.save(posed_workspace.train, checkpoints.Checkpoint(key, some_state(3), [], 5, 1.5, 60, 7000))
    saved = load_checkpoint(posed_workspace, key, Rung(1, 3500, 0), CPU)
    assert saved is not None
    assert (saved.max_gaussians, saved.rung, saved.state.step) == (3500, 1, 3)
    checkpoints.save(posed_workspace.train, saved)
    resumed = load_checkpoint(posed_workspace, key, Rung(), CPU)
    assert resumed is not None
    assert (resumed.max_gaussians, resumed.rung) == (3500, 1)
    assert load_checkpoint(posed_workspace, key, Rung(2, 4, 0), CPU) is None
    assert list(posed_workspace.train.glob("checkpoint-*")) == []


def test_a_run_that_is_resumed_stays_on_its_rung(posed_workspace: Workspace) -> None:
    posed_workspace.train.mkdir()
    job = Job(posed_workspace, OPTIONS, recipe_of(OPTIONS.train), lambda _: None, None, "cpu")
    prepare(job, Rung(LAST, 2000, 80))
    stats = train.run(posed_workspace, OPTIONS, lambda _: None)
    assert (stats["memory_rung"], stats["max_gaussians"], stats["max_side"]) == (LAST, 2000, 80)
    assert stats["n_gaussians"] <= 2000


def test_no_limit_is_left_behind() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
