"""What correcting exposure is worth: ``python -m bench.exposure --json OUT [--vary 0.3] [--set NAME=VALUE] WORKSPACE…``.

Makes the photos that are trained on brighter and darker at random, by up to ``--vary`` of their light (sRGB decoded, scaled, encoded,
clipped), in a copy of each posed workspace; the held-out photos stay as they were. Then trains with and without correction. With
``--vary 0`` the photos are taken as they are. ``NAME=VALUE`` are options of the train stage.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from engine.__main__ import parse_value
from engine.options import preset, with_overrides
from engine.train.train import run
from engine.train.views import TrainingPhoto, load_split
from engine.workspace import Workspace, write_json

SMALL = {"steps": 1000, "max_gaussians": 30_000, "max_side": 320, "min_psnr_db": 0.0, "checkpoint_s": 0.0, "preview_s": 0.0}


def main() -> None:
    """Run the sets given on the command line, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspaces", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--vary", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    train = {**SMALL, **{name: parse_value(value) for name, value in (each.split("=", 1) for each in args.set)}}
    rows = []
    for folder in args.workspaces:
        with tempfile.TemporaryDirectory() as scratch:
            workspace = varied_copy(folder, Path(scratch), int(train["max_side"]), args.vary, args.seed)
            for choice in ("off", "on", "auto"):
                rows.append({"set": folder.name, "exposure": choice, **trained(workspace, {**train, "exposure": choice}, args.seed)})
                print(
                    "{set:12} {exposure:5} {psnr_db:6.2f} dB, fitted {psnr_fitted_db:6.2f} dB, SSIM {ssim:.3f}".format(**rows[-1]),
                    flush=True,
                )
    write_json(args.json, {"vary": args.vary, "seed": args.seed, "train": train, "rows": rows})


def trained(workspace: Workspace, train: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the figures of one run."""
    return run(workspace, with_overrides(preset("draft"), {"train": train, "seed": seed, "threads": 1}), lambda _: None)


def varied_copy(posed: Path, root: Path, max_side: int, vary: float, seed: int) -> Workspace:
    """Return a workspace with the model and photos of ``posed``, those to train on at other exposures whose logarithms' mean is zero."""
    workspace = Workspace.at(root)
    shutil.copytree(posed / "undistorted", workspace.undistorted)
    train = load_split(workspace.undistorted, max_side, preset("draft").train.holdout_every)[0].train
    log_factors = np.log1p(np.random.default_rng(seed).uniform(-vary, vary, len(train)))
    for photo, factor in zip(train, np.exp(log_factors - log_factors.mean()), strict=True):
        expose(photo, float(factor), max_side)
    return workspace


def expose(photo: TrainingPhoto, factor: float, max_side: int) -> None:
    """Scale a photo's light, in place on disk, at no more than the size trained on; without loss, under the same name."""
    with PillowImage.open(photo.path) as opened:
        small = opened.convert("RGB")
    small.thumbnail((max_side, max_side), PillowImage.Resampling.LANCZOS)
    encoded = encode(np.clip(decode(np.asarray(small) / 255.0) * factor, 0.0, 1.0))
    PillowImage.fromarray(np.rint(encoded * 255.0).astype(np.uint8)).save(photo.path, format="PNG")


def decode(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the light that an sRGB value stands for, both in 0..1 (IEC 61966-2-1)."""
    light: npt.NDArray[np.float64] = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light


def encode(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sRGB value of light, both in 0..1."""
    value: npt.NDArray[np.float64] = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return value


if __name__ == "__main__":
    main()
