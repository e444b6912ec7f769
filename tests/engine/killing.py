"""A stage as a process of its own that dies by SIGKILL, all its children with it, the moment it says some words.

It kills itself: a test that listens and then kills comes too late for a stage that is done soon. Run as
``python -m tests.engine.killing WORDS stage NAME WORKSPACE …``, the rest as ``python -m engine`` takes it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from engine.__main__ import parser, read_options
from engine.events import Event, to_json_line
from engine.stages import run_stage
from engine.workspace import Workspace

ROOT = Path(__file__).parents[2]
NEVER = "\0"


def start(workspace: Workspace, stage: str, *arguments: str, words: str = NEVER) -> subprocess.Popen:
    module = ["engine"] if words == NEVER else ["tests.engine.killing", words]
    command = [sys.executable, "-m", *module, "stage", stage, str(workspace.root), "--photos", str(workspace.photos), *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **streams)


def kill_at(workspace: Workspace, stage: str, words: str, *arguments: str) -> list[str]:
    """Have a stage die when it says these words; return all that it said."""
    with start(workspace, stage, *arguments, words=words) as child, child.stdout as lines:
        said = [json.loads(line).get("message", "") for line in lines]
    assert child.returncode == -signal.SIGKILL, f"{stage} did not die at {words!r}: {said}"
    return said


def kill_after(workspace: Workspace, stage: str, seconds: float, *arguments: str) -> None:
    """Kill a stage so long after its first word, wherever it is by then."""
    with start(workspace, stage, *arguments) as child, child.stdout as lines:
        next(iter(lines))
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def run_whole(workspace: Workspace, stage: str, *arguments: str) -> tuple[list[str], dict]:
    """Run a stage to its end; return what it said, and its last event."""
    with start(workspace, stage, *arguments) as child, child.stdout as lines:
        events = [json.loads(line) for line in lines]
    assert events[-1]["type"] == "stage_done", events[-1]
    return [event.get("message", "") for event in events], events[-1]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left_behind(workspace: Workspace) -> list[str]:
    """Return what is hidden in a workspace: scratch, and folders half filled (half a note, some hundred bytes, may stay until it goes)."""
    return sorted(path.name for path in workspace.root.glob(".*") if path.is_dir())


def main() -> None:
    """Run a stage up to some words."""
    words, arguments = sys.argv[1], parser().parse_args(sys.argv[2:])

    def on_event(event: Event) -> None:
        sys.stdout.write(to_json_line(event) + "\n")
        sys.stdout.flush()
        if words in getattr(event, "message", ""):
            os.killpg(0, signal.SIGKILL)

    run_stage(Workspace.at(Path(arguments.workspace), Path(arguments.photos)), arguments.stage, read_options(arguments), on_event)


if __name__ == "__main__":
    main()
