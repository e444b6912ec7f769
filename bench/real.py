"""Real photo sets through the whole engine: ``python -m bench.real --json OUT [--preset draft] [--set GROUP.NAME=VALUE] FOLDER…``.

Each folder (or its ``images/``) is run in a workspace of its own, stage after stage in child processes, as ``python -m engine run``
does it. A set that cannot be reconstructed is listed with its error; the others go on.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.pictures import write_comparison
from engine.__main__ import parse_value
from engine.errors import SplatError
from engine.events import Event, StageDone
from engine.options import STAGES, RunOptions, preset, with_overrides
from engine.pipeline import run_pipeline
from engine.workspace import Workspace, read_stamp, write_json

# Their licences do not let us pass the photos on, or are not stated (SOURCE.txt of each): only our own renders of them are shown.
RENDERS_ONLY = ("lego", "llff_fern", "llff_flower")


@dataclass(frozen=True)
class Result:
    """One set: what the run reported, or the error that ended it."""

    name: str
    n_files: int
    report: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)


def photos_of(folder: Path) -> Path:
    """Return the folder that holds a set's photos."""
    inside = folder / "images"
    return inside if inside.is_dir() else folder


def run_set(folder: Path, root: Path, options: RunOptions) -> tuple[Result, Workspace]:
    """Run one set in the workspace ``root``; what was finished there before is not done again."""
    photos = photos_of(folder)
    workspace = Workspace.at(root, photos)
    n_files = sum(path.is_file() for path in photos.iterdir())
    report: dict[str, Any] = {}
    error: dict[str, Any] = {}
    try:
        report = dict(run_pipeline(workspace, options, lambda event: tell(folder.name, event)))
    except SplatError as failure:
        error = failure.to_dict()
    stamps = {stage: stamp for stage in STAGES if (stamp := read_stamp(workspace, stage))}
    seconds = {stage: stamp.seconds for stage, stamp in stamps.items()}
    return Result(folder.name, n_files, report, error, seconds, {s: stamp.peak_memory_bytes for s, stamp in stamps.items()}), workspace


def tell(name: str, event: Event) -> None:
    """Write a line when a stage is done."""
    if isinstance(event, StageDone):
        print(f"{name}: {event.stage} {'as before' if event.skipped else 'done'} ({event.seconds:.1f} s)", file=sys.stderr, flush=True)


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    head = (
        "| set | registered | PSNR dB | SSIM | gaussians | ingest s | poses s | train s | compress s | peak MB | ply MB | spz MB | sog MB |"
    )
    lines = [head, "|" + "---|" * 13]
    for result in results:
        if result.error:
            lines.append(f"| {result.name} | `{result.error['code']}`: {result.error['detail']} |" + " |" * 11)
            continue
        report = result.report
        times = [f"{result.seconds.get(stage, 0):.0f}" for stage in STAGES]
        sizes = [f"{report['files'].get(f'scene.{kind}', 0) / 1e6:.2f}" for kind in ("ply", "spz", "sog")]
        quality = [_figure(report["psnr_db"], 2), _figure(report["ssim"], 3), f"{report['gaussians']:,}"]
        peak = max(result.peak_memory_bytes.values(), default=0) / 1e6
        cells = [result.name, f"{report['registered']}/{report['photos']}", *quality, *times, f"{peak:.0f}", *sizes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def read_overrides(assignments: list[str]) -> dict[str, Any]:
    """Return nested options of assignments such as ``train.steps=500``."""
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        *parents, name = path.split(".")
        group = overrides
        for parent in parents:
            group = group.setdefault(parent, {})
        group[name] = parse_value(text)
    return overrides


def main() -> int:
    """Run the sets of the command line; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="all figures, as JSON")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE")
    parser.add_argument("--work", type=Path, help="folder of the workspaces, kept for a later run (default: a temporary one)")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each set: held-out photos beside our renders")
    given = parser.parse_args()
    options = with_overrides(preset(given.preset), read_overrides(given.set))
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in given.folders:
            started = time.monotonic()
            result, workspace = run_set(folder.resolve(), (given.work or Path(scratch)) / folder.resolve().name, options)
            results.append(result)
            print(f"{result.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            write_json(given.json, {"preset": given.preset, "set": given.set, "results": [asdict(each) for each in results]})
            if given.pictures and not result.error:
                write_comparison(workspace.train / "renders", given.pictures / f"{result.name}.webp", result.name not in RENDERS_ONLY)
    print(table(results))
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
