"""What masks are worth: a made capture with true poses through which something walks, trained with its masks and without.

``python -m bench.masks FOLDER [--photos 24] [--steps 1500]``. Both runs are measured on held-out photos, on what the masks leave.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from engine.events import Event, Warned
from engine.formats.ply import read_ply
from engine.gaussians import to_rows
from engine.options import RunOptions, preset, with_overrides
from engine.pipeline import run_pipeline
from engine.scene import PinholeView
from engine.train.evaluate import evaluate, mean_of
from engine.train.views import load_split
from engine.workspace import Workspace
from kernels.step import Device
from tests.data.cameras import Walk
from tests.data.make_data import make_capture

WALKER = (0.22, 0.55)  # share of width and height
MARGIN = 6  # pixels that a mask is wider than what it hides


def write_transforms(path: Path, views: dict[str, PinholeView]) -> None:
    """Write the true poses as NeRF programs do."""
    frames = []
    for name, view in views.items():
        matrix = np.eye(4)
        matrix[:3, :3] = view.cam_from_world[:, :3].T @ np.diag([1.0, -1.0, -1.0])
        matrix[:3, 3] = -view.cam_from_world[:, :3].T @ view.cam_from_world[:, 3]
        lens = {"fl_x": view.fx, "fl_y": view.fy, "cx": view.cx, "cy": view.cy, "w": view.width, "h": view.height}
        frames.append({"file_path": f"photos/{name}", "transform_matrix": matrix.tolist(), **lens})
    path.write_text(json.dumps({"frames": frames}))


def let_walk(folder: Path, views: dict[str, PinholeView], seed: int = 5) -> None:
    """Paint somebody in a striped shirt into every photo, each time elsewhere, and write the mask that hides it."""
    rng = np.random.default_rng(seed)
    (folder / "masks").mkdir(exist_ok=True)
    for name, view in views.items():
        width, height = round(WALKER[0] * view.width), round(WALKER[1] * view.height)
        left, top = int(rng.integers(0, view.width - width)), int(rng.integers(0, view.height - height))
        box = (left, top, left + width, top + height)
        with Image.open(folder / "photos" / name) as opened:
            photo = opened.convert("RGB")
        shape = Image.new("L", photo.size, 0)
        ImageDraw.Draw(shape).ellipse(box, fill=255)
        stripes = np.zeros((view.height, view.width, 3), np.uint8)
        stripes[...] = np.where((np.arange(view.height) // 12 % 2)[:, None, None], (200, 40, 40), (235, 225, 60))
        photo.paste(Image.fromarray(stripes), mask=shape)
        photo.save(folder / "photos" / name, quality=95)
        mask = Image.new("L", photo.size, 255)
        ImageDraw.Draw(mask).ellipse((box[0] - MARGIN, box[1] - MARGIN, box[2] + MARGIN, box[3] + MARGIN), fill=0)
        mask.save(folder / "masks" / f"{name}.png")


def train(folder: Path, name: str, photos: Path, options: RunOptions) -> Workspace:
    """Run all stages into ``folder``/``name``."""
    workspace = Workspace.at(folder / name, photos)

    def on_event(event: Event) -> None:
        if isinstance(event, Warned):
            print(f"{name}: {event.detail}")

    run_pipeline(workspace, options, on_event)
    return workspace


def measured(workspace: Workspace, masked: Workspace, options: RunOptions) -> dict[str, Any]:
    """Return the held-out figures of one run on what the masks of the other leave."""
    split, _ = load_split(masked.undistorted, options.train.max_side, options.train.holdout_every)
    gaussians = read_ply(workspace.train / "gaussians.ply")
    rows = torch.from_numpy(to_rows(gaussians))
    figures = evaluate(Device(), rows, split.test, options.train, workspace.root / "masked_renders")
    return {name: round(mean_of(figures, name), 3) for name in ("psnr_db", "ssim")} | {"gaussians": len(rows)}


def main() -> int:
    """Make the capture, train twice, print both figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.masks", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    capture, plain = given.folder / "capture", given.folder / "plain"
    for each in (capture, plain):
        shutil.rmtree(each, ignore_errors=True)
    truth = make_capture(capture / "photos", Walk(given.photos, 480, 360, turn_every=0))
    write_transforms(capture / "transforms.json", truth.views)
    let_walk(capture, truth.views)
    shutil.copytree(capture, plain, ignore=shutil.ignore_patterns("masks"))
    options = with_overrides(preset("draft"), {"train": {"steps": given.steps, "max_gaussians": 40_000}, "compress": {"formats": ["ply"]}})
    with_masks = train(given.folder, "with_masks", capture / "photos", options)
    without = train(given.folder, "without", plain / "photos", options)
    result = {"with masks": measured(with_masks, with_masks, options), "without": measured(without, with_masks, options)}
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
