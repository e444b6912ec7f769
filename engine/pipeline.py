"""All stages in order, each in a child process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO

from engine.errors import InternalError, SplatError, from_dict
from engine.events import Event, Failed, OnEvent, from_json_line
from engine.options import STAGES, RunOptions
from engine.workspace import Workspace, read_json


def run_pipeline(workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, object]:
    """Run every stage that is not up to date and return the report. Raises the ``SplatError`` of the stage that failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(options), file)
        file.flush()
        for stage in STAGES:
            _run_in_child(workspace, stage, Path(file.name), on_event)
    report: dict[str, object] = read_json(workspace.report)
    return report


def _run_in_child(workspace: Workspace, stage: str, options_file: Path, on_event: OnEvent) -> None:
    arguments = ["stage", stage, str(workspace.root), "--photos", str(workspace.photos), "--options", str(options_file)]
    log_path = workspace.root / f"{stage}.log"
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "engine", *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        try:
            assert child.stdout is not None
            with child.stdout as lines:
                error = _forward(lines, on_event)
            code = child.wait()
        except BaseException:
            # Ctrl-C, or a listener that gave up: the child is in its own session, so it must be told.
            _end(child)
            raise
    if error is not None:
        raise error
    if code != 0:
        raise InternalError(
            "internal.stage_crashed", "A stage broke", f"{stage} ended {_how(code)}", f"The log is {log_path.name} in the workspace."
        )


def _forward(lines: IO[str], on_event: OnEvent) -> SplatError | None:
    error: SplatError | None = None
    for line in lines:
        event: Event = from_json_line(line)
        if isinstance(event, Failed):
            error = from_dict(event.error)
        on_event(event)
    return error


def _how(code: int) -> str:
    return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit status {code}"


def _end(child: subprocess.Popen[str], patience_s: float = 10.0) -> None:
    """Ask a child to stop, then make it."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, how)
            child.wait(patience_s)
            return
        except ProcessLookupError:
            child.wait()
            return
        except subprocess.TimeoutExpired:
            continue
