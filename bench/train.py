"""Learning curves and training speed: ``python -m bench.train --json OUT [--plot OUT.png] [--compare train.strategy=adc] FOLDER…``.

A folder is a posed workspace (only read) or photos, which are posed first. Every configuration is trained on every set, each in a
process of its own, with held-out photos measured every few steps. That changes neither training nor its random numbers and does not count
as time; of the peak memory it takes a few pictures' worth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.ablation import posed
from bench.plot import write_learning_curves
from bench.real import read_overrides
from engine.events import Event, Progress
from engine.options import RunOptions, TrainOptions, preset, with_overrides
from engine.stages import peak_memory_bytes
from engine.train.evaluate import evaluate, mean_of
from engine.train.step import TrainState
from engine.train.train import run
from engine.train.views import load_split
from engine.workspace import Workspace, write_json
from kernels.step import Device

POINTS = 25  # measurements of a curve, when --every is not given
THRESHOLDS_DB = (18.0, 20.0, 22.0, 24.0, 26.0, 28.0, 30.0, 32.0, 34.0)


@dataclass(frozen=True)
class Job:
    """One run: a posed workspace and a configuration with its label."""

    workspace: str
    label: str
    preset: str
    assignments: list[str]
    every: int

    def options(self) -> RunOptions:
        """Return the options of the run."""
        return with_overrides(preset(self.preset), read_overrides(self.assignments))


@dataclass(frozen=True)
class Point:
    """Where a run stood: seconds of training alone, and the mean over the held-out photos."""

    step: int
    seconds: float
    cpu_seconds: float
    gaussians: int
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Run:
    """What one run gave. Seconds and rates are those of the steps, checkpoints included, measuring left out."""

    set: str
    label: str
    steps: int
    steps_per_s: float
    steps_per_cpu_s: float
    seconds: float
    cpu_seconds: float
    n_threads: int
    kernel: str
    n_gaussians: int
    psnr_db: float
    ssim: float
    peak_memory_bytes: int
    estimate: dict[str, Any]
    curve: list[Point]
    time_to_psnr: dict[str, dict[str, float]]  # dB -> step, seconds and CPU seconds, between the measured points


@dataclass
class Watcher:
    """Measures the held-out photos every few steps, with the clocks stopped."""

    photos: list[Any]
    options: TrainOptions
    every: int  # steps; 0 for as many as make ``POINTS``
    device: Device
    steps: int = 0
    points: list[Point] = field(default_factory=list)
    began: tuple[float, float] = (0.0, 0.0)
    measuring: tuple[float, float] = (0.0, 0.0)

    def on_event(self, event: Event) -> None:
        """Start the clocks when training proper begins: it says so with its estimate."""
        if isinstance(event, Progress) and "estimate" in event.data:
            # The run may take more steps than asked for, where there are many photos.
            self.steps = event.data["steps"]
            self.every = self.every or max(1, self.steps // POINTS)
            self.began = clocks()

    def observe(self, state: TrainState) -> None:
        """Add a point when one is due."""
        if state.step % self.every and state.step != self.steps:
            return
        now = clocks()
        seconds, cpu_seconds = (now[clock] - self.began[clock] - self.measuring[clock] for clock in (0, 1))
        figures = evaluate(self.device, state.rows, self.photos, self.options, None)
        psnr, ssim = mean_of(figures, "psnr_db"), mean_of(figures, "ssim")
        self.points.append(Point(state.step, round(seconds, 3), round(cpu_seconds, 3), len(state.rows), round(psnr, 3), round(ssim, 4)))
        after = clocks()
        self.measuring = (self.measuring[0] + after[0] - now[0], self.measuring[1] + after[1] - now[1])


def clocks() -> tuple[float, float]:
    """Return the wall's clock and this process's CPU clock, seconds."""
    return time.monotonic(), time.process_time()


def train(job: Job) -> Run:
    """Train in this process, in a scratch folder beside the set's photos and poses."""
    chosen = job.options()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.at(Path(scratch))
        for name in ("undistorted", "poses.json"):
            (workspace.root / name).symlink_to(Path(job.workspace).resolve() / name)
        split, _ = load_split(workspace.undistorted, chosen.train.max_side, chosen.train.holdout_every)
        watcher = Watcher(split.test or split.train, chosen.train, job.every, Device(n_threads=chosen.threads))
        stats = run(workspace, chosen, watcher.on_event, observe=watcher.observe)
    return summary(job, stats, watcher)


def summary(job: Job, stats: dict[str, Any], watcher: Watcher) -> Run:
    """Return the figures of a finished run."""
    last = watcher.points[-1]
    return Run(
        set=Path(job.workspace).name,
        label=job.label,
        steps=stats["steps"],
        steps_per_s=round(stats["steps"] / last.seconds, 2),
        steps_per_cpu_s=round(stats["steps"] / last.cpu_seconds, 2),
        seconds=last.seconds,
        cpu_seconds=last.cpu_seconds,
        n_threads=watcher.device.info().n_threads,
        kernel=stats["kernel"],
        n_gaussians=stats["n_gaussians"],
        psnr_db=stats["psnr_db"],
        ssim=stats["ssim"],
        peak_memory_bytes=peak_memory_bytes(),
        estimate=stats["estimate"],
        curve=watcher.points,
        time_to_psnr=time_to(watcher.points, THRESHOLDS_DB),
    )


def time_to(points: list[Point], thresholds: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Return when the curve first reached each threshold, on the straight line between two points; those never reached are left out."""
    reached: dict[str, dict[str, float]] = {}
    for threshold in thresholds:
        index = next((index for index, point in enumerate(points) if point.psnr_db >= threshold), None)
        if index is None:
            break
        after = points[index]
        before = points[index - 1] if index else after
        share = (threshold - before.psnr_db) / (after.psnr_db - before.psnr_db) if index else 1.0
        between = {
            name: getattr(before, name) + share * (getattr(after, name) - getattr(before, name)) for name in ("seconds", "cpu_seconds")
        }
        steps = round(before.step + share * (after.step - before.step))
        reached[f"{threshold:g}"] = {"step": steps, **{name: round(value, 2) for name, value in between.items()}}
    return reached


def in_child(job: Job) -> dict[str, Any]:
    """Run a job in a process of its own, so that peak memory and CPU seconds are its own."""
    command = [sys.executable, "-m", "bench.train", "--child", json.dumps(asdict(job))]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{job.label} on {Path(job.workspace).name} ended with exit status {ended.returncode}")
    row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(line(row), file=sys.stderr, flush=True)
    return row


HEADER = (
    "| set | configuration | steps/s | steps/CPU s | s | CPU s | gaussians | PSNR dB | SSIM | peak MB | CPU s to PSNR |\n"
    + "|---" * 11
    + "|"
)


def line(row: dict[str, Any]) -> str:
    """Return a run as a row of Markdown."""
    rates = f"{row['steps_per_s']:.1f} | {row['steps_per_cpu_s']:.1f} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f}"
    quality = f"{row['n_gaussians']:,} | {row['psnr_db']:.2f} | {row['ssim']:.3f} | {row['peak_memory_bytes'] / 1e6:.0f}"
    reached = ", ".join(f"{db} dB: {at['cpu_seconds']:.1f}" for db, at in list(row["time_to_psnr"].items())[-3:])
    return f"| {row['set']} | {row['label']} | {rates} | {quality} | {reached or '–'} |"


def jobs_of(given: argparse.Namespace, scratch: Path) -> list[Job]:
    """Return every set in every configuration: the base, then each ``--compare`` on top of it."""
    variants = [("base" if given.compare else given.preset, []), *((each, each.split()) for each in given.compare)]
    sets = [posed(folder, scratch) for folder in given.folders]
    return [Job(str(root), label, given.preset, [*given.set, *changes], given.every) for root in sets for label, changes in variants]


def main() -> int:
    """Train what the command line names, write figures and plot, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="posed workspace, or folder of photos")
    parser.add_argument("--json", type=Path, metavar="OUT", help="all figures, as JSON")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="the learning curves")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="such as train.steps=500, for all")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="GROUP.NAME=VALUE", help="one more configuration; several values in one by spaces"
    )
    parser.add_argument("--every", type=int, default=0, metavar="STEPS", help=f"between measurements (a {POINTS}th of the run)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(asdict(train(Job(**json.loads(given.child))))))
        return 0
    if not given.folders or not given.json:
        parser.error("name at least one FOLDER, and --json OUT")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for job in jobs_of(given, Path(scratch)):
            rows.append(in_child(job))
            write_json(given.json, {"preset": given.preset, "set": given.set, "runs": rows})
    if given.plot:
        write_learning_curves(rows, given.plot)
    print("\n".join([HEADER, *(line(row) for row in rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
