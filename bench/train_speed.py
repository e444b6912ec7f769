"""Training speed on one core: 50 photos at 270×480 from some 11 thousand SfM points, 500 steps, no growth. ``python -m bench.train_speed``.

The size and counts are those of the fox photos that research/kernels.md and research/sfm.md measured with. Those photos may not be passed
on and are not here, so the photos come from the demo's generator: the time is comparable, the PSNR is of another scene.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.torch_step import Example as TorchExample
from bench.torch_step import cpu_seconds_per_step
from engine.options import TrainOptions
from engine.render import camera_params
from engine.train.init import gaussians_from_points
from engine.train.recipe import Recipe
from engine.train.schedule import Scale, plan
from engine.train.step import Buffers, Example, TrainState, train_step
from engine.train.views import Split, load_pixels, load_split
from engine.workspace import Workspace, read_stamp, write_json
from kernels.step import Device
from tests.data.cameras import Walk
from tests.data.make_data import make_capture

N_PHOTOS, N_POINTS, N_STEPS, LONG_SIDE = 50, 11_000, 500, 480
STEP_DEG = 2.0  # photos as close together as frames of a video, as the fox's are
MAX_CPU_SECONDS = 6.0
MIN_PSNR_DB = 24.0  # as the issue asks of the fox photos, which are not at hand
TRAIN = {
    "train.steps": N_STEPS,
    "train.max_gaussians": N_POINTS,
    "train.max_side": LONG_SIDE,
    "train.preview_s": 0,
    "train.checkpoint_s": 0,
    "threads": 1,
}


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    figures: dict[str, Any]
    ours_ms: float  # CPU milliseconds of a full-size step
    torch_ms: float


def prepare(root: Path) -> Workspace:
    """Return a workspace with undistorted photos and poses; what an earlier run left is used again."""
    photos = root / "photos"
    if not photos.is_dir():
        print(f"Taking {N_PHOTOS} photos …", flush=True)
        aside = root / "photos.part"
        make_capture(aside, Walk(N_PHOTOS, 405, 720, turn_every=0, step_deg=STEP_DEG))  # larger than trained on, for the features
        aside.rename(photos)
    workspace = Workspace.at(root / "workspace", photos)
    for stage in ("ingest", "poses"):
        run_stage(workspace, stage, {})
    return workspace


def run_stage(workspace: Workspace, stage: str, options: dict[str, Any]) -> None:
    """Run one stage in a process of its own, as the service does."""
    settings = [f"--set={name}={json.dumps(value)}" for name, value in options.items()]
    command = [sys.executable, "-m", "engine", "stage", stage, str(workspace.root), "--photos", str(workspace.photos), *settings]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.stderr.write(ended.stdout[-2000:])
        raise SystemExit(f"{stage} ended with exit status {ended.returncode}")


def train(workspace: Workspace) -> dict[str, Any]:
    """Train anew and return the stage's figures; the stamp of an earlier run is removed first, or nothing would be done."""
    workspace.stamp("train").unlink(missing_ok=True)
    run_stage(workspace, "train", TRAIN)
    stamp = read_stamp(workspace, "train")
    assert stamp is not None
    return stamp.stats


def first_rows(workspace: Workspace, device: Device) -> tuple[Split, torch.Tensor]:
    """Return the photos and the gaussians before the first step."""
    split, scene = load_split(workspace.undistorted, LONG_SIDE, 8)
    return split, gaussians_from_points(scene, device, Recipe(), N_POINTS, torch.Generator().manual_seed(0))


def our_ms(workspace: Workspace, n_steps: int = 40) -> float:
    """Return the CPU milliseconds of our step at full size with all bases stepped, the mean over ``n_steps``."""
    device = Device(n_threads=1)
    split, rows = first_rows(workspace, device)
    state = TrainState.fresh(rows, torch.Generator().manual_seed(0))
    examples = [Example(photo.view, load_pixels(photo), index, key=1 + index) for index, photo in enumerate(split.train)]
    view = examples[0].view
    buffers = Buffers.of(view.height, view.width)
    planned = plan(4, TrainOptions(steps=4, sh_degree=2), Recipe(), Scale(1.0, len(rows), len(rows)))
    used = 0.0
    for index in range(n_steps):
        started = time.process_time()
        train_step(device, state, examples[index % len(examples)], planned, 0.2, buffers)
        used += time.process_time() - started if index >= n_steps // 4 else 0.0
    return 1000 * used / (n_steps - n_steps // 4)


def torch_ms(workspace: Workspace, n_steps: int) -> float:
    """Return the CPU milliseconds of the same step in plain torch on one thread."""
    split, rows = first_rows(workspace, Device(n_threads=1))
    examples = [TorchExample(camera_params(photo.view), load_pixels(photo)) for photo in split.train[:n_steps]]
    return 1000 * cpu_seconds_per_step(rows, examples, 2)


def report(speed: Speed, isa: str) -> str:
    """Return the figures as Markdown."""
    stats = speed.figures
    cells = {
        "photos": f"{stats['n_train']} + {stats['n_test']} held out",
        "gaussians": f"{stats['n_gaussians']:,}",
        "steps": f"{stats['steps']}",
        "kernels": f"{isa}, 1 thread",
        "CPU s": f"{stats['cpu_seconds']:.2f}",
        "PSNR dB": f"{stats['psnr_db']:.2f}",
        "SSIM": f"{stats['ssim']:.3f}",
        "ms/step, full size": f"{speed.ours_ms:.1f}",
        "plain torch": f"{speed.torch_ms:.0f}",
        "ratio": f"{speed.torch_ms / speed.ours_ms:.0f}",
    }
    return "\n".join(["| " + " | ".join(row) + " |" for row in (cells.keys(), ["---"] * len(cells), cells.values())])


def main() -> int:
    """Measure; return 1 when the gate (6 CPU seconds with AVX-512, 24 dB held out) is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.train_speed", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench") / "train_speed")
    parser.add_argument("--torch-steps", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    workspace = prepare(given.folder.resolve())
    speed = Speed(train(workspace), our_ms(workspace), torch_ms(workspace, given.torch_steps))
    isa = Device(n_threads=1).info().name
    print(report(speed, isa))
    if given.json:
        write_json(given.json, {**vars(speed), "kernel": isa})
    stats = speed.figures
    slow = isa == "avx512" and stats["cpu_seconds"] > MAX_CPU_SECONDS
    if slow or stats["psnr_db"] < MIN_PSNR_DB:
        print(f"Missed: {MIN_PSNR_DB:g} dB in at most {MAX_CPU_SECONDS:g} CPU seconds on one AVX-512 core", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
