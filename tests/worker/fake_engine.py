"""A small engine with the real one's protocol, stamps and exit codes, told by files how to behave: it makes the service's tests quick.

``fake_engine.py CONTROL stage NAME WORKSPACE --options FILE``. CONTROL/NAME.json may hold ``seconds``, ``fail`` (an error's code),
``signal`` (a number it kills itself with), ``deaf`` (ignores SIGTERM), ``times`` (misbehaves only so often), ``grandchild``,
``babble`` (says the same for so many seconds), ``preview`` (shows a picture).
CONTROL/chaos.json makes every stage draw its behaviour: ``seed``, ``seconds`` (from, to), the chances of ``fail``, ``hang`` and ``die``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine import errors
from engine.events import Checkpointed, Event, Progress, StageDone, StageStarted, Warned, failed, to_json_line
from engine.options import STAGES, from_dict
from engine.report import left_out
from engine.stages import stage_key
from engine.workspace import ARTEFACTS, Stamp, Workspace, locked, read_stamp, write_json

STEPS = 20
FAILURES = {"input": errors.InputError, "capture": errors.CaptureError, "capacity": errors.CapacityError, "internal": errors.InternalError}


def say(event: Event) -> None:
    print(to_json_line(event), flush=True)


def note(control: Path, line: str) -> None:
    with (control / "runs.log").open("a") as log:
        log.write(line + "\n")


def device() -> str:
    """Return what the real engine would work on: its setting, and the one card that it sees."""
    return "/".join(filter(None, (os.environ.get("SPLATWORKS_DEVICE", "auto"), os.environ.get("CUDA_VISIBLE_DEVICES"))))


def behaviour(control: Path, stage: str) -> dict:
    """Return how to behave this time, counting the times."""
    path = control / f"{stage}.json"
    if not path.exists():
        return {}
    plan = json.loads(path.read_text())
    counter = control / f"{stage}.count"
    count = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(count + 1))
    return plan if count < plan.get("times", 1_000_000) else {"seconds": plan.get("seconds", 0)}


def drawn(control: Path, stage: str, workspace: Workspace) -> dict | None:
    """Return how the dice say to behave at this attempt; None where no dice are thrown."""
    path = control / "chaos.json"
    if not path.exists():
        return None
    chance = json.loads(path.read_text())
    with (workspace.root / f".{stage}.tries").open("a+b") as tries:
        tries.write(b".")
        count = tries.tell()
    dice = random.Random(f"{chance['seed']}/{workspace.root.name}/{stage}/{count}")
    seconds = dice.uniform(*chance["seconds"])
    plans = [{"fail": "internal.something"}, {"seconds": 20_000}, {"seconds": seconds, "signal": 9}, {"seconds": seconds}]
    bad = [chance[word] for word in ("fail", "hang", "die")]
    return dice.choices(plans, [*bad, 1 - sum(bad)])[0]


def stage_main(control: Path, stage: str, workspace: Workspace, options: dict) -> None:
    plan = drawn(control, stage, workspace) or behaviour(control, stage)
    note(control, f"start {stage} {os.getpid()}")
    note(control, f"device {stage} {device()}")
    stopped = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if plan.get("deaf") else lambda *_: stopped.append(True))
    with locked(workspace):
        key = stage_key(workspace, stage, from_dict(options))
        if (stamp := read_stamp(workspace, stage)) is not None and stamp.key == key:
            say(StageDone(stage, stamp.seconds, True, stamp.stats))
            return
        workspace.stamp(stage).unlink(missing_ok=True)
        say(StageStarted(stage))
        if plan.get("grandchild"):
            note(control, f"grandchild {subprocess.Popen(['sleep', '300']).pid}")
        print("a line for people", file=sys.stderr, flush=True)
        if "fail" in plan:
            raise FAILURES[plan["fail"].partition(".")[0]](plan["fail"], "Told to fail", f"{stage} was told to fail", "Tell it otherwise.")
        until = time.monotonic() + plan.get("babble", 0)
        while time.monotonic() < until:
            say(Progress(stage, 0.5, "still at it", {"step": 7}))
            time.sleep(0.05)
        work(control, stage, workspace, plan, stopped)
        write_results(stage, workspace, options, key)


def work(control: Path, stage: str, workspace: Workspace, plan: dict, stopped: list) -> None:
    """Do twenty steps, from the checkpoint on."""
    checkpoint = workspace.root / f"{stage}.checkpoint"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if first:
        note(control, f"resume {stage} {first}")
    for step in range(first, STEPS):
        data = {"step": step}
        if plan.get("preview") and step % 10 == 5:
            workspace.train.mkdir(exist_ok=True)
            (workspace.train / "preview.webp").write_bytes(f"RIFF {stage} {step}".encode())
            data["preview"] = "train/preview.webp"
        say(Progress(stage, step / STEPS, f"step {step}", data))
        if "signal" in plan and step == 2:
            os.kill(os.getpid(), plan["signal"])
        if stopped:
            raise errors.Cancelled.by_request()
        time.sleep(plan.get("seconds", 0) / STEPS)
        aside = workspace.root / f".{checkpoint.name}"
        aside.write_text(str(step + 1))
        aside.replace(checkpoint)  # killed in between, it leaves the one before
        say(Checkpointed(stage, step + 1))


def write_results(stage: str, workspace: Workspace, options: dict, key: str) -> None:
    """Write the stage's artefacts and its stamp."""
    photos = sorted(path.name for path in workspace.photos.iterdir())
    write_artefacts(stage, workspace, photos)
    if stage == "ingest":
        say(Warned(stage, "input.blurred", f"{photos[0]} is blurred", {"photo": photos[0]}))
    if stage == "compress":
        workspace.assets.mkdir(exist_ok=True)
        for name in ("scene.ply", "scene.sog"):
            (workspace.assets / name).write_bytes(f"{name} of {photos}".encode() * 1000)
        report = {
            "registered": len(photos),
            "photos": len(photos),
            "psnr_db": 30.5,
            "ssim": 0.9,
            "gaussians": options["train"]["max_gaussians"],
            "left_out": left_out(workspace, {}),
            "stages": {each: stamp.stats for each in STAGES if (stamp := read_stamp(workspace, each))},
        }
        write_json(workspace.report, report)
    stats = {"n_photos": len(photos), **({"kernel": device()} if stage == "train" else {})}
    stamp = Stamp(key, options[stage], stats, 0.1)
    write_json(workspace.stamp(stage), stamp.__dict__)
    say(StageDone(stage, 0.1, False, stamp.stats))


def write_artefacts(stage: str, workspace: Workspace, photos: list[str]) -> None:
    """Write what the stages before training leave for later ones: a picture a photo, and empty folders."""
    for name in ARTEFACTS.get(stage, ()):
        path = workspace.root / name
        if name.endswith(".json"):
            write_json(path, [{"name": each, "source_name": each, "accepted": True} for each in photos])
        elif name != "given":
            path.mkdir(exist_ok=True)
            for each in photos if name in ("images", "undistorted") else ():
                (path / each).write_bytes(f"{stage} of {each}".encode())


def device_main(control: Path) -> int:
    """Say what the engine works on, as the real one does after trying it."""
    if behaviour(control, "device").get("fail"):
        print("told to find no card", file=sys.stderr)
        return 4
    print(device())
    return 0


def estimate_main(control: Path, arguments: list[str]) -> int:
    """Say what a run would take, in round figures; ``estimate.json`` may hold ``seconds``, ``fail``, ``memory``."""
    plan = behaviour(control, "estimate")
    note(control, f"start estimate {os.getpid()}")
    time.sleep(plan.get("seconds", 0))
    if "fail" in plan:
        error = FAILURES[plan["fail"].partition(".")[0]](
            plan["fail"], "Told to fail", "the estimate was told to fail", "Tell it otherwise."
        )
        print(json.dumps({"error": error.to_dict()}))
        return error.exit_code
    n_photos = len(json.loads(Path(arguments[arguments.index("--sizes") + 1]).read_text()))
    one = {"seconds": 1.0 * n_photos, "low": 1.0, "high": 2.0 * n_photos, "peak_memory_bytes": plan.get("memory", 1 << 20)}
    print(json.dumps({"stages": dict.fromkeys(STAGES, one), "disk_bytes": plan.get("disk", 1 << 20)}))
    return 0


def main() -> int:
    if sys.argv[2:] == ["device"]:
        return device_main(Path(sys.argv[1]))
    if sys.argv[2] == "estimate":
        return estimate_main(Path(sys.argv[1]), sys.argv[3:])
    control, _word, stage, root, _flag, options = sys.argv[1:]
    workspace = Workspace.at(Path(root))
    try:
        stage_main(Path(control), stage, workspace, json.loads(Path(options).read_text()))
    except errors.SplatError as error:
        say(failed(stage, error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
