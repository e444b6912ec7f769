"""The real train stage, in a process of its own, killed without warning."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from engine.options import from_dict
from engine.train import train
from engine.unfinished import clear
from engine.workspace import Stamp, Workspace, write_json
from tests.engine.killing import files_of, kill_at, left_behind, run_whole

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
    clear(posed_workspace, "train")
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


MEASURED = ("train/gaussians.ply", "train/metrics.json", "train/preview.webp", "train/renders")


def results(workspace: Workspace) -> dict[str, bytes]:
    found = files_of(workspace.root)
    return {name: data for name, data in found.items() if name.startswith(MEASURED)}


def test_a_stage_killed_while_it_measures_takes_no_step_and_measures_no_photo_again(posed_workspace: Workspace, tmp_path: Path) -> None:
    write_json(posed_workspace.stamp("poses"), asdict(Stamp("posed", {}, {}, 0.0)))
    every_step = {**OPTIONS["train"], "steps": 30, "holdout_every": 2, "checkpoint_s": 1e-6}
    write_json(tmp_path / "options.json", {**OPTIONS, "train": every_step})
    alone, options = Workspace.at(tmp_path / "alone"), ("--options", str(tmp_path / "options.json"))
    shutil.copytree(posed_workspace.root, alone.root, dirs_exist_ok=True)
    run_whole(alone, "train", *options)

    kill_at(posed_workspace, "train", "measuring (2/7 photos)", *options)
    assert (posed_workspace.train / "checkpoint-0000030.pt").exists()
    left = left_behind(posed_workspace)
    photo = sorted((posed_workspace.train / "renders").iterdir())[0]
    photo.write_bytes(photo.read_bytes()[:-10])
    said = kill_at(posed_workspace, "train", "measuring (5/7 photos)", *options)
    assert left_behind(posed_workspace) == left, said
    assert [words for words in said if "(" in words] == [f"measuring ({n}/7 photos)" for n in (0, 1, 3, 4, 5)]
    kill_at(posed_workspace, "train", "measuring (7/7 photos)", *options)
    said, last = run_whole(posed_workspace, "train", *options)
    assert [words for words in said if "(" in words] == ["measuring (0/7 photos)"]
    assert not [words for words in said if words.startswith("step ")]
    assert last["stats"]["resumed_from_step"] == 30
    assert len(results(alone)) == 3 + 2 * 7
    assert results(posed_workspace) == results(alone)
    assert left_behind(posed_workspace) == []
    assert not list(posed_workspace.train.glob("checkpoint-*.pt"))
