"""What each element of the recipe is worth: ``python -m bench.ablation --json OUT [--seeds 0,1] [--jobs 2] WORKSPACE_OR_FOLDER…``.

Trains the base and then each variant, one change at a time, every set and seed, in single-threaded child processes, and prints the
mean differences on held-out photos. A folder of photos is posed first, in a workspace of its own; a posed workspace is only read.
Other variants: ``--variant "name: noise_until=0, train.sh_degree=1"`` (fields of Recipe, or ``train.`` and a field of TrainOptions).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from bench.real import photos_of
from engine.__main__ import parse_value
from engine.options import preset, with_overrides
from engine.train.recipe import recipe_of
from engine.train.train import run
from engine.workspace import Workspace, write_json

Changes = dict[str, Any]

# Each element of the recipe switched off, and the classic strategy in its place.
ELEMENTS: dict[str, Changes] = {
    "base": {},
    "no higher rates in short runs": {"most_haste": 1.0},
    "no coarse to fine": {"levels": ()},
    "no shell": {"shell_share": 0.0},
    "no filling of thin clouds": {"min_points": 0},
    "growth regardless of error": {"score_power": 0.0},
    "halves closer together": {"split_offset": 0.5},
    "no noise": {"noise_until": 0.0},
    "with the regularisers of 3DGS-MCMC": {"opacity_reg": 0.01, "scale_reg": 0.01},
    "with opacity decay": {"opacity_decay": 0.004},
    "no rebirth of the dead after growth": {"relocate_until": 0.6},
    "no floor on sizes": {"floor_px": 0.0},
    "no exposure correction": {"train.exposure": "off"},
    "no SSIM in the loss": {"ssim_weight": 0.0},
    "all colour bases at once": {"sh_speed": 1e9},
    "all colour bases with few photos": {"train.photos_per_degree": 0},
    "colour bases stepped every time": {"sh_rest_every": 1},
    "classic density control (3DGS)": {"train.strategy": "adc"},
    "classic without a ceiling": {"train.strategy": "adc", "train.max_gaussians": 5_000_000},
}


@dataclass(frozen=True)
class Job:
    """One training run: a posed workspace, options of the train stage, and what is changed."""

    workspace: Path
    base: Changes
    variant: str
    changes: Changes
    seed: int


def train_once(job: Job) -> Changes:
    """Train in this process, in a scratch folder beside the set's photos and poses, and return the stage's figures."""
    merged = {**job.base, **job.changes}
    options = {name.removeprefix("train."): value for name, value in merged.items() if name.startswith("train.")}
    chosen = with_overrides(preset("draft"), {"train": options, "seed": job.seed, "threads": 1})
    changes = {name: _tuples(value) for name, value in merged.items() if not name.startswith("train.")}
    recipe = replace(recipe_of(chosen.train), **changes)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.at(Path(scratch))
        for name in ("undistorted", "poses.json"):
            (workspace.root / name).symlink_to(job.workspace.resolve() / name)
        return run(workspace, chosen, lambda _: None, recipe)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value


def in_child(job: Job) -> Changes:
    """Run a job in a process of its own and return its figures with the job's name, set and seed."""
    given = json.dumps({**vars(job), "workspace": str(job.workspace)})
    ended = subprocess.run([sys.executable, "-m", "bench.ablation", "--child", given], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{job.variant} on {job.workspace.name} failed:\n{ended.stderr[-2000:]}")
    stats = json.loads(ended.stdout.splitlines()[-1])
    row = {"set": job.workspace.name, "variant": job.variant, "seed": job.seed, **stats}
    print(f"{row['set']:14} {row['variant']:36} seed {job.seed}: {stats['psnr_db']:.2f} dB", file=sys.stderr, flush=True)
    return row


def posed(folder: Path, scratch: Path) -> Path:
    """Return the posed workspace of a folder: itself, or one in which its photos are posed now."""
    if (folder / "undistorted" / "sparse").is_dir():
        return folder
    root = scratch / folder.resolve().name
    for stage in ("ingest", "poses"):
        subprocess.run([sys.executable, "-m", "engine", "stage", stage, str(root), "--photos", str(photos_of(folder))], check=True)
    return root


def table(rows: list[Changes]) -> str:
    """Return the figures by variant as Markdown: means over sets and seeds, difference to the base, its spread over seeds, each set."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    by_run = {(row["set"], row["variant"], row["seed"]): row for row in rows}
    head = ["variant", "PSNR dB", "Δ dB", "± seeds", "SSIM", "Δ SSIM", "CPU s", "gaussians", *(f"Δ {name}" for name in sets)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for variant in variants:
        mine = [row for row in rows if row["variant"] == variant]
        pairs = [(row, by_run[row["set"], variants[0], row["seed"]]) for row in mine]
        gain = {name: [own["psnr_db"] - base["psnr_db"] for own, base in pairs if own["set"] == name] for name in sets}
        by_seed = {
            seed: mean(own["psnr_db"] - base["psnr_db"] for own, base in pairs if own["seed"] == seed) for seed in {r["seed"] for r in mine}
        }
        spread = (max(by_seed.values()) - min(by_seed.values())) / 2
        cells = [
            variant,
            f"{mean(row['psnr_db'] for row in mine):.2f}",
            f"{mean(own['psnr_db'] - base['psnr_db'] for own, base in pairs):+.2f}",
            f"{spread:.2f}" if len(by_seed) > 1 else "–",
            f"{mean(row['ssim'] for row in mine):.3f}",
            f"{mean(own['ssim'] - base['ssim'] for own, base in pairs):+.3f}",
            f"{mean(row['cpu_seconds'] for row in mine):.1f}",
            f"{mean(row['n_gaussians'] for row in mine):,.0f}",
            *(f"{mean(gain[name]):+.2f}" for name in sets),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_variants(given: argparse.Namespace) -> dict[str, Changes]:
    """Return what to train: the base first, then the variants of the command line, or else every element."""
    chosen = {"base": {}, **{name.strip(): read_changes(text) for name, _, text in (each.partition(":") for each in given.variant)}}
    if given.only:
        chosen.update({name: ELEMENTS[name] for name in given.only.split(",")})
    return chosen if given.variant or given.only else ELEMENTS


def read_changes(text: str) -> Changes:
    """Return the fields and values of ``name=value, name=value``."""
    parts = [part.partition("=") for part in re.split(r", (?=[\w.]+=)", text) if part.strip()]
    return {name.strip(): parse_value(value) for name, _, value in parts}


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", metavar="WORKSPACE_OR_FOLDER")
    parser.add_argument("--json", type=Path, metavar="OUT", help="all figures, as JSON")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--gaussians", type=int, default=30_000)
    parser.add_argument("--side", type=int, default=400, help="longer side of the photos trained on, pixels")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--jobs", type=int, default=2, help="children at a time, one thread each")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these elements")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME:FIELD=VALUE, …")
    parser.add_argument("--set", default="", metavar="FIELD=VALUE, …", help="changes to all, the base too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run all variants on all sets with all seeds, and print the table."""
    given = parse_arguments()
    if given.child:
        values = json.loads(given.child)
        print(json.dumps(train_once(Job(**{**values, "workspace": Path(values["workspace"])}))))
        return 0
    base = {"train.steps": given.steps, "train.max_gaussians": given.gaussians, "train.max_side": given.side, "train.preview_s": 0.0}
    base.update({"train.checkpoint_s": 0.0, "train.min_psnr_db": 0.0, **read_changes(given.set)})
    seeds = [int(seed) for seed in given.seeds.split(",")]
    rows: list[Changes] = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.jobs) as pool:
        workspaces = [posed(folder, Path(scratch)) for folder in given.folders]
        variants = read_variants(given).items()
        jobs = [Job(place, base, name, changes, seed) for seed in seeds for name, changes in variants for place in workspaces]
        for row in pool.map(in_child, jobs):
            rows.append(row)
            if given.json:
                write_json(given.json, {"base": base, "runs": rows})
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
