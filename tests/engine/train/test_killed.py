"""The real train stage, in a process of its own, killed without warning."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

from engine.options import from_dict
from engine.train import train
from engine.workspace import Stamp, Workspace, write_json

SEED = 20261120
OPTIONS = {
    "threads": 2,
    "train": {
        "steps": 250,
        "max_gaussians": 4000,
        "max_side": 120,
        "sh_degree": 1,
        "min_psnr_db": 5.0,
        "checkpoint_s": 0.05,
        "preview_s": 0.0,
    },
}


def start(workspace: Workspace, threads: int) -> subprocess.Popen:
    options = workspace.root / "options.json"
    options.write_text(json.dumps({**OPTIONS, "threads": threads}))
    command = [sys.executable, "-m", "engine", "stage", "train", str(workspace.root), "--options", str(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)


def kill_after_checkpoint(workspace: Workspace, number: int, delay_s: float) -> int:
    """Kill the stage some time after its ``number``-th checkpoint; return that checkpoint's step."""
    child, seen = start(workspace, threads=2), []
    with child, child.stdout as lines:
        for line in lines:
            event = json.loads(line)
            seen += [event["step"]] if event["type"] == "checkpoint" else []
            if len(seen) == number:
                break
        time.sleep(delay_s)
        os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL, "the stage ended before it could be killed"
    return seen[-1]


def test_a_stage_killed_twice_without_warning_gives_the_bytes_of_one_left_alone(posed_workspace: Workspace) -> None:
    write_json(posed_workspace.stamp("poses"), asdict(Stamp("posed", {}, {}, 0.0)))
    train.run(posed_workspace, from_dict(OPTIONS), lambda _: None)
    result = posed_workspace.train / "gaussians.ply"
    whole = result.read_bytes()
    result.unlink()

    chance = random.Random(SEED)
    steps = [kill_after_checkpoint(posed_workspace, chance.randint(1, 3), chance.uniform(0.0, 0.05)) for _ in range(2)]
    assert not result.exists()
    assert 0 < steps[0] < steps[1]

    with start(posed_workspace, threads=1) as last, last.stdout as lines:
        done = json.loads(list(lines)[-1])
    assert done["type"] == "stage_done"
    assert done["stats"]["resumed_from_step"] >= steps[1]
    assert result.read_bytes() == whole
    assert not list(posed_workspace.train.glob("checkpoint-*.pt"))
