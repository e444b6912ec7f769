"""Speaks the engine's protocol (JSON lines, stamps, assets) and writes a fixed scene: lets the command line, the pages and the
supervisor be tried in seconds. The scene is real and asymmetric, in our axes (x right, y down, z forward): a red ball on the left, a
tall blue column on the right, a green ball high in the middle, grey ground. Its photos' first camera stands at z = 0 and looks along z.

Training takes train.steps / 5000 seconds (3000 steps of the draft preset: 0.6); the stage SCENE_ENGINE_FAIL fails, as a capture error.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.formats.ply import write_ply
from engine.formats.sog import SogOptions, write_sog
from engine.gaussians import Gaussians
from engine.workspace import Stamp, Workspace, write_json

STEPS_PER_S = 5000
SH_C0 = 0.28209479177387814
FOCAL_PX, WIDTH, HEIGHT = 700.0, 800, 600
COLOURS = {"ball": (0.9, 0.1, 0.1), "column": (0.1, 0.2, 0.9), "lamp": (0.1, 0.8, 0.2), "ground": (0.5, 0.5, 0.5)}


def scene() -> Gaussians:
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(1500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    parts = {
        "ball": directions * 0.5 + (-1.0, 0.5, 4.0),
        "column": rng.uniform((0.8, -1.3, 3.8), (1.2, 1.0, 4.2), (2500, 3)),
        "lamp": rng.normal(size=(1000, 3)) * 0.08 + (0.0, -1.0, 4.0),
        "ground": np.stack([rng.uniform(-2, 2, 4000), np.full(4000, 1.0), rng.uniform(2, 6, 4000)], axis=1),
    }
    means = np.concatenate(list(parts.values())).astype(np.float32)
    colours = np.concatenate([np.tile(COLOURS[name], (len(points), 1)) for name, points in parts.items()])
    sh = np.zeros((len(means), 4, 3), np.float32)
    sh[:, 0] = (colours - 0.5) / SH_C0
    quats = np.tile(np.float32([1, 0, 0, 0]), (len(means), 1))
    return Gaussians(means, np.full_like(means, np.log(0.03)), quats, np.full(len(means), 4.0, np.float32), sh)


def cameras() -> list[dict]:
    found = []
    for angle in np.linspace(0.0, 0.8, 6):
        centre = np.array([-4 * np.sin(angle), -0.4, 4 - 4 * np.cos(angle)])
        forward = np.array([0.0, 0.0, 4.0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
        found.append(
            {
                "id": len(found),
                "img_name": f"{len(found)}.jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "position": centre.tolist(),
                "rotation": rotation.tolist(),
                "fx": FOCAL_PX,
                "fy": FOCAL_PX,
            }
        )
    return found


def write_picture(path: Path) -> None:
    """Draw the scene roughly as its first camera sees it, in place of a render."""
    picture = Image.new("RGB", (320, 240), (38, 42, 50))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 190, 320, 240), fill=(128, 128, 128))
    draw.ellipse((52, 115, 128, 191), fill=(230, 26, 26))
    draw.rectangle((213, 64, 247, 190), fill=(26, 51, 230))
    draw.ellipse((150, 39, 170, 59), fill=(26, 204, 51))
    path.parent.mkdir(exist_ok=True)
    picture.save(path)


def say(kind: str, stage: str, **data) -> None:
    print(json.dumps({"type": kind, "stage": stage, **data}), flush=True)


def work(stage: str, workspace: Workspace, options: dict) -> dict:
    n_photos = len(list(workspace.photos.iterdir()))
    if stage == "ingest":
        say("warning", stage, code="input.blurry", detail="0.jpg is blurry", data={})
        return {"n_photos": n_photos}
    if stage == "train":
        n_steps = 20
        for step in range(n_steps):
            time.sleep(options["train"]["steps"] / STEPS_PER_S / n_steps)
            data = {"step": step + 1}
            if step == 2:
                write_picture(workspace.root / "train" / "preview.webp")
                data["preview"] = "train/preview.webp"
            say("progress", stage, fraction=(step + 1) / n_steps, message=f"step {step + 1} of {n_steps}", data=data)
        return {"psnr_db": 30.5, "ssim": 0.95}
    if stage == "compress":
        workspace.assets.mkdir(exist_ok=True)
        gaussians = scene()
        write_sog(workspace.assets / "scene.sog", gaussians, SogOptions(palette=64))
        write_ply(workspace.assets / "scene.ply", gaussians)
        write_json(workspace.assets / "cameras.json", cameras())
        write_picture(workspace.assets / "preview.webp")
        figures = {
            "registered": n_photos,
            "photos": n_photos,
            "psnr_db": 30.5,
            "ssim": 0.95,
            "gaussians": len(gaussians),
            "seconds": {"train": 0.6},
        }
        write_json(workspace.report, figures)
        return {"n_gaussians": len(gaussians)}
    return {"n_registered": n_photos}


def main(stage: str, root: str, options_file: str) -> int:
    workspace = Workspace.at(Path(root))
    say("stage_started", stage)
    if os.environ.get("SCENE_ENGINE_FAIL") == stage:
        error = {
            "family": "capture",
            "code": "capture.low_overlap",
            "title": "Too little overlap",
            "detail": "3 of 9 photos could be placed",
        }
        say("error", stage, error={**error, "hint": "Take photos closer to each other.", "retryable": False, "data": {}})
        return 3
    started = time.monotonic()
    stats = work(stage, workspace, json.loads(Path(options_file).read_text()))
    seconds = time.monotonic() - started
    write_json(
        workspace.stamp(stage),
        {"key": "k", "options": {}, "stats": stats, "seconds": seconds, "peak_memory_bytes": 0, "version": Stamp.version},
    )
    say("stage_done", stage, seconds=seconds, skipped=False, stats=stats)
    return 0


if __name__ == "__main__":
    assert sys.argv[1] == "stage"
    assert sys.argv[4] == "--options"
    sys.exit(main(sys.argv[2], sys.argv[3], sys.argv[5]))
