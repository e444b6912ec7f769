"""``tests.engine.killing`` for small captures: a stage sets a mark after every photo that it places, not after a minute of work."""

import json
import subprocess
import sys

from engine.sfm import incremental
from engine.workspace import Workspace
from tests.engine import killing

UNSAID = "no such words"


def run(workspace: Workspace, words: str = UNSAID) -> tuple[list[str], int, dict]:
    """Run poses, up to these words; return all that it said, how it ended, and its last event."""
    command = [sys.executable, "-m", "tests.engine.sfm.marking", words, "stage", "poses", str(workspace.root)]
    command += ["--photos", str(workspace.photos), "--set", "threads=2"]
    done = subprocess.run(command, cwd=killing.ROOT, capture_output=True, text=True, timeout=200, check=False, start_new_session=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [event["message"] for event in events if event["type"] == "progress"], done.returncode, events[-1]


if __name__ == "__main__":
    incremental.WORK_BETWEEN_MARKS = 1
    killing.main()
