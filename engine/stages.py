"""Run one stage in this process: skip it when its stamp matches, otherwise run it and stamp it."""

import importlib
import os
import resource
import time
from dataclasses import asdict
from typing import Any, Protocol, cast

from engine import keys, report
from engine.errors import InternalError
from engine.events import OnEvent, StageDone, StageStarted
from engine.options import STAGES, RunOptions
from engine.unfinished import clear
from engine.workspace import Stamp, Workspace, hash_file, locked, read_stamp, write_json

# Loaded by name, one a process: importing pycolmap beside torch costs seconds and its zlib harms the process (research/sfm.md B2).
MODULES = {
    "ingest": "engine.photos.ingest",
    "poses": "engine.sfm.poses",
    "train": "engine.train.train",
    "compress": "engine.compress.compress",
}


class Stage(Protocol):
    """A stage's module."""

    def run(self, workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, Any]:
        """Read artefacts, write artefacts, return figures as JSON values."""
        ...


def stage_key(workspace: Workspace, stage: str, options: RunOptions) -> str:
    """Return the key of what a stage would make of what lies in the workspace."""
    source = _photos_key(workspace) if stage == STAGES[0] else _previous_key(workspace, stage)
    return keys.stage_key(stage, source, options)


def _photos_key(workspace: Workspace) -> str:
    # Links are not followed out of the folder by accident: a photo is a regular file.
    files = workspace.given_files() if workspace.photos.is_dir() else []
    return keys.photos_key((os.path.relpath(path, workspace.photos), hash_file(path)) for path in files)


def _previous_key(workspace: Workspace, stage: str) -> str:
    before = STAGES[STAGES.index(stage) - 1]
    stamp = read_stamp(workspace, before)
    if stamp is None:
        raise InternalError(
            "internal.missing_artefact", "Stage out of order", f"{stage} needs the result of {before}, which has not finished"
        )
    return stamp.key


def run_stage(workspace: Workspace, stage: str, options: RunOptions, on_event: OnEvent) -> Stamp:
    """Bring one stage up to date and return its stamp. The last stage also writes the report."""
    with locked(workspace):
        key = stage_key(workspace, stage, options)
        stamp = read_stamp(workspace, stage)
        skipped = stamp is not None and stamp.key == key
        if stamp is None or stamp.key != key:
            stamp = _run_afresh(workspace, stage, options, on_event, key)
        clear(workspace, stage)
        if stage == STAGES[-1]:
            write_json(workspace.report, report.collect(workspace))
        on_event(StageDone(stage, stamp.seconds, skipped, stamp.stats))
        return stamp


def _run_afresh(workspace: Workspace, stage: str, options: RunOptions, on_event: OnEvent, key: str) -> Stamp:
    workspace.stamp(stage).unlink(missing_ok=True)
    on_event(StageStarted(stage))
    # Wall seconds of this attempt; what earlier attempts spent before a crash is in their own log.
    started = time.monotonic()
    module = cast(Stage, importlib.import_module(MODULES[stage]))
    stats = module.run(workspace, options, on_event)
    stamp = Stamp(key, asdict(getattr(options, stage)), stats, round(time.monotonic() - started, 3), peak_memory_bytes())
    write_json(workspace.stamp(stage), asdict(stamp))
    return stamp


def peak_memory_bytes() -> int:
    """Return the most memory this process, or a child it waited for, has held."""
    unit = 1024 if os.uname().sysname == "Linux" else 1
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
