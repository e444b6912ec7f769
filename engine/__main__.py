"""The engine from a shell.

``python -m engine run PHOTOS WORKSPACE --preset draft`` does everything. ``python -m engine stage NAME WORKSPACE`` does one stage and
says what it does as JSON lines on standard output: this is what the worker and ``run`` start as a child.
``python -m engine estimate PHOTOS`` says what a run would take; ``python -m engine device`` what it would run on.
"""

import argparse
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import IO, Any

from engine.errors import Cancelled, InternalError, SplatError
from engine.events import Event, failed, to_json_line
from engine.options import PRESETS, STAGES, RunOptions, from_dict, preset, with_overrides
from engine.workspace import Workspace


class Stopper:
    """Turns SIGTERM and SIGINT into ``Cancelled`` at the stage's next event, where its state is whole; a second signal at once."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        """Listen to the signals from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise Cancelled.by_request()
        self.requested = True

    def check(self) -> None:
        """Raise ``Cancelled`` when a signal has come."""
        if self.requested:
            raise Cancelled.by_request()


def run_one_stage(arguments: argparse.Namespace) -> int:
    """Run one stage; events go to standard output, everything else that writes there goes to standard error instead."""
    # Python's zlib and Pillow must be loaded before pycolmap, whose wheel exports its own zlib (research/sfm.md B2).
    import zlib  # noqa: F401, PLC0415

    import PIL.Image  # noqa: F401, PLC0415

    # numpy's own threads make small matrix products ten times slower, and results that depend on their number; the kernels have theirs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Huge pages for torch's large arrays, read when torch is loaded: rows and moments on small ones cost a training step a tenth more.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from engine.stages import run_stage  # noqa: PLC0415

    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    stopper = Stopper()
    stopper.install()

    def on_event(event: Event) -> None:
        write_line(stream, to_json_line(event))
        stopper.check()

    try:
        options = read_options(arguments)
        workspace = Workspace.at(Path(arguments.workspace), Path(arguments.photos) if arguments.photos else None)
        run_stage(workspace, arguments.stage, options, on_event)
    except SplatError as error:
        write_line(stream, to_json_line(failed(arguments.stage, error)))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        internal = as_internal(arguments.stage, error)
        write_line(stream, to_json_line(failed(arguments.stage, internal)))
        return internal.exit_code
    return 0


def write_line(stream: IO[str], line: str) -> None:
    """Write one event. A reader that is gone is no reason to stop: the artefacts matter, the signal comes separately."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        return


def as_internal(stage: str, error: Exception) -> SplatError:
    """Return what a user should read when something of ours, or of the machine's, broke."""
    from engine.errors import CapacityError  # noqa: PLC0415

    if isinstance(error, MemoryError):
        return CapacityError(
            "capacity.memory", "Out of memory", f"{stage} ran out of memory: {error}", "Take a smaller preset or a larger machine."
        )
    if isinstance(error, OSError) and error.errno == 28:  # ENOSPC
        return CapacityError(
            "capacity.disk", "Disk full", f"{stage} found no space left on the disk", "Free some space; the job goes on from where it was."
        )
    return InternalError("internal.stage_failed", "A stage broke", f"{stage}: {type(error).__name__}: {error}")


def read_options(arguments: argparse.Namespace) -> RunOptions:
    """Return the options from --options FILE, or from --preset and --set."""
    if arguments.options:
        return from_dict(json.loads(Path(arguments.options).read_text()))
    overrides: dict[str, Any] = {}
    for assignment in arguments.set:
        path, _, text = assignment.partition("=")
        group = overrides
        *parents, name = path.split(".")
        for parent in parents:
            group = group.setdefault(parent, {})
        group[name] = parse_value(text)
    return with_overrides(preset(arguments.preset), overrides)


def parse_value(text: str) -> Any:
    """Return JSON where the text is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def run_all(arguments: argparse.Namespace) -> int:
    """Run every stage with progress bars (or JSON lines)."""
    from engine.pipeline import run_pipeline  # noqa: PLC0415
    from engine.progress import ProgressBars  # noqa: PLC0415

    try:
        options = read_options(arguments)
        workspace = Workspace.at(Path(arguments.workspace), Path(arguments.photos))
        if arguments.json:
            report = run_pipeline(workspace, options, print_event)
        else:
            with ProgressBars() as bars:
                report = run_pipeline(workspace, options, bars.on_event)
    except SplatError as error:
        sys.stderr.write(f"\n{error.title}: {error.detail}\n{error.hint}\n")
        return error.exit_code
    if not arguments.json:
        shown = {name: report[name] for name in ("registered", "photos", "psnr_db", "ssim", "gaussians", "seconds", "files")}
        sys.stdout.write(json.dumps(shown, indent=1) + "\n")
    return 0


def run_estimate(arguments: argparse.Namespace) -> int:
    """Say what a run will take, in words or as JSON; training is tried for some seconds."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from engine.estimate.estimate import estimate  # noqa: PLC0415
    from engine.estimate.words import sentences  # noqa: PLC0415

    try:
        sizes = read_sizes(Path(arguments.sizes)) if arguments.sizes else None
        figures = estimate(Path(arguments.folder), read_options(arguments), sizes)
    except SplatError as error:
        if arguments.json:
            write_line(sys.stdout, json.dumps({"error": error.to_dict()}))
        sys.stderr.write(f"{error.title}: {error.detail}\n{error.hint}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(figures, indent=1) + "\n" if arguments.json else sentences(figures))
    return 0


def read_sizes(path: Path) -> list[tuple[int, int]]:
    """Return the sizes of photos in a JSON file: [[width, height], …]."""
    return [(int(width), int(height)) for width, height in json.loads(path.read_text())]


def run_device(_arguments: argparse.Namespace) -> int:
    """Say what stages would run on here, after trying it: the setting's word, and the kernels' name of it."""
    from engine.device import device_name, open_device  # noqa: PLC0415

    try:
        name = device_name()
        sys.stdout.write(f"{name}\n" if name == "cpu" else f"{name}: {open_device(name).info().name}\n")
    except SplatError as error:
        sys.stderr.write(f"{error.detail}\n")
        return error.exit_code
    return 0


def print_event(event: Event) -> None:
    """Write an event as a line on standard output."""
    write_line(sys.stdout, to_json_line(event))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    root = argparse.ArgumentParser(prog="python -m engine", description="Photos in, gaussian splats out.")
    commands = root.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="all stages, each only if it is not up to date")
    run.add_argument("photos")
    run.add_argument("workspace")
    run.add_argument("--json", action="store_true", help="events as JSON lines instead of bars")
    stage = commands.add_parser("stage", help="one stage; events as JSON lines on standard output")
    stage.add_argument("stage", choices=STAGES)
    stage.add_argument("workspace")
    stage.add_argument("--photos", help="folder of photos (default: WORKSPACE/photos)")
    estimate = commands.add_parser("estimate", help="what a run will take: seconds of each stage, memory, disk")
    estimate.add_argument("folder", help="photos, or a workspace with poses")
    estimate.add_argument("--json", action="store_true", help="figures as JSON")
    estimate.add_argument("--sizes", help="JSON file of [width, height] of each photo; the folder's only lend their colours")
    commands.add_parser("device", help="what stages would run on here, after trying it")
    for command in (run, stage, estimate):
        command.add_argument("--preset", default="draft", help=", ".join(PRESETS))
        command.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="such as train.steps=500")
        command.add_argument("--options", help="JSON file of options, instead of --preset and --set")
    return root


def main() -> int:
    """Parse the command line and do what it says; return the exit status."""
    arguments = parser().parse_args()
    commands = {"run": run_all, "stage": run_one_stage, "estimate": run_estimate, "device": run_device}
    return commands[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(main())
