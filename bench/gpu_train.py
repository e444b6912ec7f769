"""Training to PSNR on a card, ours and gsplat's MCMC strategy: ``python -m bench.gpu_train --json OUT [FOLDER…]``.

A FOLDER is a posed workspace (undistorted/, poses.json), or holds several. A made-up set comes after them. Held-out photos are measured
every few steps with the clock stopped and the card waited for.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.gpu_device import wait
from bench.gpu_made_set import MadeSet, make_set
from bench.gpu_mcmc import McmcRun, McmcState, mean_psnr, train_mcmc
from bench.gpu_opponent import compiled, find_gsplat, why_without
from bench.gpu_report import Report
from bench.real import read_overrides
from engine.events import Event, Progress
from engine.options import RunOptions, preset, with_overrides
from engine.train.evaluate import evaluate, mean_of
from engine.train.step import TrainState
from engine.train.train import run
from engine.train.views import TrainingPhoto, load_split
from engine.workspace import Workspace
from kernels.step import Device

POINTS = 20  # measurements of a curve
ASKED_SHARE = 1 / 3  # of gsplat's time to its own final PSNR
NOT_ASKED = {"min_psnr_db": 0.0, "preview_s": 0.0, "checkpoint_s": 0.0}


@dataclass
class Curve:
    """PSNR over steps and seconds of training, measuring left out."""

    device: Device
    every: int
    began: float = 0.0
    measuring: float = 0.0
    points: list[dict[str, float]] = field(default_factory=list)

    def start(self, already_s: float = 0.0) -> None:
        """Start the clock, at seconds that count as training although they were spent before."""
        wait(self.device)
        self.began, self.measuring = time.perf_counter() - already_s, 0.0

    def is_due(self, step: int, last: int) -> bool:
        """Say whether to measure after a step."""
        return step % self.every == 0 or step == last

    def seconds(self) -> float:
        """Return the seconds of training so far, when the card has done what it was told."""
        wait(self.device)
        return time.perf_counter() - self.began - self.measuring

    def add(self, step: int, seconds: float, gaussians: int, psnr_db: float) -> None:
        """Add a point that was measured just now."""
        self.points.append({"step": step, "seconds": round(seconds, 3), "gaussians": gaussians, "psnr_db": round(psnr_db, 3)})
        self.measuring += self.seconds() - seconds

    def time_to(self, psnr_db: float) -> float | None:
        """Return the seconds at which the curve first reached a PSNR, on the straight line between points; None if it never did."""
        before = None
        for point in self.points:
            if point["psnr_db"] >= psnr_db:
                if before is None or point["psnr_db"] == before["psnr_db"]:
                    return point["seconds"]
                share = (psnr_db - before["psnr_db"]) / (point["psnr_db"] - before["psnr_db"])
                return before["seconds"] + share * (point["seconds"] - before["seconds"])
            before = point
        return None


def workspaces_in(folders: list[Path]) -> list[Path]:
    """Return the posed workspaces that are named, or lie in what is named."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(each for each in folder.iterdir() if (each / "undistorted").is_dir()) if folder.is_dir() else []
        found += [folder] if (folder / "undistorted").is_dir() else inside
    return found


def ours(folder: Path, options: RunOptions) -> tuple[Curve, dict[str, Any]]:
    """Train with our trainer; return its curve and figures."""
    device = Device("cuda")  # to measure with: its calls wait
    every, photos = max(1, options.train.steps // POINTS), held_out(folder, options)
    curve = Curve(device, every)

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and "estimate" in event.data:
            curve.start()

    def observe(state: TrainState) -> None:
        if curve.is_due(state.step, options.train.steps):
            seconds = curve.seconds()
            psnr = mean_of(evaluate(device, state.rows, photos, options.train, None), "psnr_db")
            curve.add(state.step, seconds, len(state.rows), psnr)

    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.at(Path(scratch))
        for name in ("undistorted", "poses.json"):
            if (folder / name).exists():
                (workspace.root / name).symlink_to((folder / name).resolve())
        stats = run(workspace, options, on_event, observe=observe)
    return curve, stats


def theirs(gsplat: Any, folder: Path, options: RunOptions) -> Curve:
    """Train with gsplat; return its curve."""
    device = Device("cuda", waits=False)
    mcmc = McmcRun(gsplat, device, folder / "undistorted", options.train)
    curve, photos = Curve(device, max(1, options.train.steps // POINTS)), held_out(folder, options)

    def observe(state: McmcState) -> None:
        if state.step == 1:
            curve.start(state.reading_s)  # our trainer decodes photos as it goes; kernels are loaded now, as ours are after the trial
        if state.step > 1 and curve.is_due(state.step, options.train.steps):
            seconds = curve.seconds()
            curve.add(state.step, seconds, state.count, mean_psnr(mcmc, state, photos))

    train_mcmc(mcmc, observe)
    return curve


def trained_on(folder: Path, options: RunOptions) -> list[TrainingPhoto]:
    """Return all photos of a set, those to measure with among them."""
    split, _ = load_split(folder / "undistorted", options.train.max_side, options.train.holdout_every)
    return [*split.train, *split.test]


def held_out(folder: Path, options: RunOptions) -> list[TrainingPhoto]:
    """Return the photos to measure with."""
    split, _ = load_split(folder / "undistorted", options.train.max_side, options.train.holdout_every)
    return split.test or split.train


def add_row(report: Report, name: str, who: str, curve: Curve, goal_db: float | None) -> None:
    """Add a run, with its time to the PSNR that gsplat ended with."""
    last = curve.points[-1]
    report.add(
        {
            "set": name,
            "who": who,
            "steps/s": last["step"] / last["seconds"],
            "seconds": last["seconds"],
            "gaussians": int(last["gaussians"]),
            "PSNR dB": last["psnr_db"],
            "s to gsplat's PSNR": curve.time_to(goal_db) if goal_db is not None else None,
        }
    )
    report.keep(f"{name}, {who}", curve.points)


def compare(gsplat: Any, folder: Path, options: RunOptions, report: Report) -> None:
    """Train one set on both sides, ours first."""
    mine, stats = ours(folder, options)
    name, has_layers = folder.name, any(photo.mask or photo.alpha for photo in trained_on(folder, options))
    if gsplat is not None and has_layers:
        report.note(f"{name}: photos with masks or cut-outs, which gsplat's trainer takes otherwise than ours; not compared")
    if gsplat is None or has_layers:
        add_row(report, name, f"ours, {stats['kernel']}", mine, None)
        return
    report.keep(f"{name}, ours", mine.points)  # so that it stays if the time is up
    opponent = theirs(gsplat, folder, options)
    goal_db = opponent.points[-1]["psnr_db"]
    add_row(report, name, f"ours, {stats['kernel']}", mine, goal_db)
    add_row(report, name, "gsplat MCMC", opponent, goal_db)
    reached = mine.time_to(goal_db)
    if reached is None or reached > ASKED_SHARE * opponent.points[-1]["seconds"]:
        took = f"{reached:.1f} s" if reached is not None else "never"
        report.fail(
            f"{name}: gsplat's {goal_db:.2f} dB were reached after {took}; asked: a third of its {opponent.points[-1]['seconds']:.1f} s"
        )


def main() -> int:
    """Train what is named, then a made-up set."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_train", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE")
    parser.add_argument("--made", default="300000,80,1280,720,30000", help="gaussians, photos, width, height, points of the made-up set")
    parser.add_argument("folders", type=Path, nargs="*")
    given = parser.parse_args()
    os.environ["SPLATWORKS_DEVICE"] = "cuda"
    chosen = with_overrides(preset(given.preset), read_overrides(given.set))
    train = {name: getattr(chosen.train, name) for name in ("steps", "max_gaussians", "max_side", "sh_degree")}
    options = with_overrides(chosen, {"train": {**NOT_ASKED, "steps": chosen.train.steps, "exposure": "off"}})
    report = Report(f"Training to PSNR: {', '.join(f'{name} {value:,}' for name, value in train.items())}", given.json)
    gsplat = find_gsplat(os.environ.get("GSPLAT", ""))
    report.note(f"gsplat {compiled()}" if gsplat is not None else why_without(os.environ.get("GSPLAT", "")))
    if not given.folders:
        report.note("no real set: name posed workspaces by GPU_CHECK_SCENES")
    for folder in workspaces_in(given.folders):
        compare(gsplat, folder, options, report)
    with tempfile.TemporaryDirectory() as scratch:
        made = make_set(Path(scratch) / "made", MadeSet(*map(int, given.made.split(","))), Device("cuda"))
        compare(gsplat, made, options, report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    torch.set_num_threads(4)
    raise SystemExit(main())
