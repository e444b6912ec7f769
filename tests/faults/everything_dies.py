"""Kill -9 of everything, again and again, while a real job runs: what is lost each time, and whether the result is the same.

``python -m tests.faults.everything_dies --kills 10 --seed S --json OUT`` takes photos, runs a job that nobody disturbs, then the same job
on a fresh service whose every process (serve, api, worker, dispatcher, broker, engine) is killed at random moments and started again.
The moments are drawn evenly over the undisturbed job's time, and met at the same point of the work. Figures are seconds.

Lost work of a kill: how long the engine had worked since the last thing on disk that the next start goes on from (a finished stage, a
checkpoint, features and matches); never more than this life of the engine. Whether the next start truly goes on from there is read off its
first report.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from engine.options import STAGES
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.faults.serving import Process, Serving, wait_for

LOST_LIMIT_S = 60.0
TERMINAL = ("succeeded", "failed", "cancelled")
# What a killed stage leaves for the next attempt, besides the stamps of finished stages.
KEPT = ("train/checkpoint-*.pt", ".unfinished-*/database.db*", ".unfinished-*/*.json")
SAME = ("scene.ply", "scene.spz", "scene.sog", "scene.splat", "cameras.json", "colmap.zip", "preview.webp")


@dataclass(frozen=True)
class Trial:
    """What is run: photos, options of the job, kills."""

    kills: int = 10
    seed: int = 0
    photos: int = 24
    width: int = 480
    height: int = 360
    steps: int = 4000
    checkpoint_s: float = 30.0
    gaussians: int = 20_000
    timeout_s: float = 1200.0

    def options(self) -> dict[str, Any]:
        """Return the job's options."""
        train = {"steps": self.steps, "max_gaussians": self.gaussians, "checkpoint_s": self.checkpoint_s, "preview_s": 0.0}
        return {"seed": self.seed, "train": train}


@dataclass(frozen=True)
class Moment:
    """A point of the work: stage and how far in it, and the seconds that had passed since it was first seen there."""

    stage: int
    fraction: float
    after_s: float


@dataclass(frozen=True)
class Kill:
    """What one kill did. ``lost_s`` is the work to be done again; the other seconds count from the kill."""

    stage: str
    at: str
    n_processes: int
    lost_s: float
    ready_s: float
    working_s: float
    went_on: bool


def submit(client: httpx.Client, photos: Path, trial: Trial) -> str:
    """Start the job and return its id."""
    files = [("files", (path.name, path.read_bytes(), "image/jpeg")) for path in sorted(photos.glob("*.jpg"))]
    answer = client.post("/v1/jobs", files=files, data={"preset": "draft", "options": json.dumps(trial.options())})
    return str(answer.raise_for_status().json()["id"])


def position(job: dict[str, Any]) -> tuple[int, float]:
    """Return how far a job is: the stage's number, and the share of it that is done; past all stages when it has ended."""
    if job["state"] in TERMINAL:
        return len(STAGES), 0.0
    number = STAGES.index(job["stage"])
    return number, float(job["stages"][number]["progress"])


def get(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Return the job."""
    found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return found


def follow(client: httpx.Client, job_id: str, timeout_s: float) -> list[tuple[float, tuple[int, float]]]:
    """Return when each point of a job's work was first seen, seconds from now, until it ended."""
    began, seen = time.monotonic(), []

    def ended() -> bool:
        job = get(client, job_id)
        here = position(job)
        if not seen or here > seen[-1][1]:
            seen.append((time.monotonic() - began, here))
        return job["state"] in TERMINAL

    wait_for("the end of the job", ended, timeout_s, 0.1)
    return seen


def moments(timeline: list[tuple[float, tuple[int, float]]], kills: int, chance: random.Random) -> list[Moment]:
    """Return points of the work, drawn evenly over the time it took."""
    drawn = sorted(chance.uniform(0.0, timeline[-1][0]) for _ in range(kills))
    last_before = [max(entry for entry in timeline if entry[0] <= max(at, timeline[0][0])) for at in drawn]
    return [Moment(*point, max(0.0, at - seen_at)) for at, (seen_at, point) in zip(drawn, last_before, strict=True)]


def hashes(client: httpx.Client, job_id: str) -> dict[str, str]:
    """Return the SHA-256 of each file that must not depend on what happened, by name, as the service tells it."""
    items = client.get(f"/v1/jobs/{job_id}/assets").raise_for_status().json()["items"]
    return {item["name"]: item["sha256"] for item in items if item["name"] in SAME}


def kept_at(workspace: Path) -> float:
    """Return when a stopped job last wrote what the next start goes on from, seconds of ``time.time``; 0 when it never did."""
    patterns = (*(f"{stage}.json" for stage in STAGES), *KEPT)
    return max((path.stat().st_mtime for pattern in patterns for path in workspace.glob(pattern)), default=0.0)


def engine_began(engines: list[Process]) -> float | None:
    """Return when the working engine was started; None when none works."""
    return min((process.started_at for process in engines), default=None)


@dataclass
class Victim:
    """The service that is killed, and its job."""

    serving: Serving
    job_id: str
    chance: random.Random
    trial: Trial

    @property
    def workspace(self) -> Path:
        """The job's folder."""
        return self.serving.data_dir / "work" / self.job_id

    def reach(self, moment: Moment) -> dict[str, Any]:
        """Wait until the job is at a point of its work, and return it."""
        with self.serving.client() as client:
            wait_for(
                f"stage {moment.stage} at {moment.fraction:.2f}",
                lambda: position(get(client, self.job_id)) >= (moment.stage, moment.fraction),
                self.trial.timeout_s,
            )
            time.sleep(moment.after_s)
            return get(client, self.job_id)

    def die_at(self, moment: Moment) -> Kill:
        """Kill everything at a point of the work, start again, and wait until the job works again."""
        before = self.reach(moment)
        killed_at, began = time.time(), engine_began(self.serving.engines(self.job_id))
        n_processes = self.serving.kill_everything(self.chance)
        lost_s = 0.0 if began is None else max(0.0, killed_at - max(began, kept_at(self.workspace)))
        step = newest_checkpoint(self.workspace)
        self.serving.start()
        ready_s = time.time() - killed_at
        with self.serving.client() as client:
            again = wait_for("work after the kill", lambda: self._is_at_work(client, before), self.trial.timeout_s)
        working_s = time.time() - killed_at
        stage, at = before["stage"] if before["state"] == "running" else before["state"], where(before)
        return Kill(stage, at, n_processes, round(lost_s, 1), round(ready_s, 1), round(working_s, 1), went_on(again, before, step))

    def _is_at_work(self, client: httpx.Client, before: dict[str, Any]) -> dict[str, Any] | None:
        """Return the job once its new attempt has reported, has come further than the old one, or has ended."""
        job = get(client, self.job_id)
        if job["state"] in TERMINAL:
            return job
        number = STAGES.index(job["stage"])
        is_new = job["stages"][number]["attempt"] > before["stages"][number]["attempt"]
        has_reported = job["stages"][number]["progress"] > 0 or step_of(job) > 0
        return job if job["state"] == "running" and is_new and has_reported else None


def step_of(job: dict[str, Any]) -> int:
    """Return the training step that a job last reported; 0 outside training."""
    return int((job["stages"][STAGES.index("train")]["data"] or {}).get("step", 0)) if job["stage"] == "train" else 0


def newest_checkpoint(workspace: Path) -> int:
    """Return the step of the newest checkpoint; 0 when there is none."""
    return max((int(path.stem.rpartition("-")[2]) for path in workspace.glob("train/checkpoint-*.pt")), default=0)


def went_on(after: dict[str, Any], before: dict[str, Any], step: int) -> bool:
    """Tell whether a job went on from what was on disk: no finished stage is run again, training goes on from its checkpoint."""
    if before["state"] in TERMINAL:
        return after == before
    done = [stage["attempt"] for stage in before["stages"] if stage["state"] in ("done", "skipped")]
    still = [stage["attempt"] for stage in after["stages"]][: len(done)]
    return done == still and (step_of(after) >= step or after["stage"] != "train")


def where(job: dict[str, Any]) -> str:
    """Return how far a job was, in words."""
    number, fraction = position(job)
    return job["state"] if number == len(STAGES) else f"{100 * fraction:.0f} %: {job['stages'][number]['message']}"


def undisturbed(folder: Path, photos: Path, trial: Trial) -> tuple[list[tuple[float, tuple[int, float]]], dict[str, str], dict[str, Any]]:
    """Run the job alone on a service of its own; return when it was where, its files' hashes, and the job."""
    serving = Serving(folder / "alone")
    serving.start()
    try:
        with serving.client() as client:
            job_id = submit(client, photos, trial)
            timeline = follow(client, job_id, trial.timeout_s)
            return timeline, hashes(client, job_id), get(client, job_id)
    finally:
        serving.stop()


def run(trial: Trial, folder: Path) -> dict[str, Any]:
    """Run both jobs in ``folder`` and return the figures."""
    photos = folder / "photos"
    make_capture(photos, Walk(trial.photos, trial.width, trial.height, trial.seed))
    timeline, expected, alone = undisturbed(folder, photos, trial)
    say(f"undisturbed: {alone['state']} after {timeline[-1][0]:.0f} s")
    serving, chance = Serving(folder / "killed"), random.Random(trial.seed)
    serving.start()
    try:
        with serving.client() as client:
            victim = Victim(serving, submit(client, photos, trial), chance, trial)
        began, kills = time.monotonic(), []
        for moment in moments(timeline, trial.kills, chance):
            kills.append(victim.die_at(moment))
            say(f"kill {len(kills)}: {kills[-1]}")
        with serving.client() as client:
            follow(client, victim.job_id, trial.timeout_s)
            job, found = get(client, victim.job_id), hashes(client, victim.job_id)
        return figures(trial, kills, (alone, job), (expected, found)) | {"whole_s": round(time.monotonic() - began, 1)}
    finally:
        serving.stop()


def figures(
    trial: Trial, kills: list[Kill], ends: tuple[dict[str, Any], dict[str, Any]], files: tuple[dict[str, str], dict[str, str]]
) -> Any:
    """Return what is told of a trial; ``passed`` when the job succeeded with the same bytes and no kill cost more than the limit."""
    (alone, job), (expected, found) = ends, files
    most = max((kill.lost_s for kill in kills), default=0.0)
    is_same = bool(expected) and found == expected
    has_gone_on = all(kill.went_on for kill in kills)
    seconds = {stage["name"]: stage["seconds"] for stage in alone["stages"]}
    return {
        "passed": job["state"] == "succeeded" and is_same and most <= LOST_LIMIT_S and has_gone_on,
        "state": job["state"],
        "error": job["error"],
        "same_bytes": is_same,
        "sha256": found,
        "lost_s": {"most": most, "limit": LOST_LIMIT_S, "sum": round(sum(kill.lost_s for kill in kills), 1)},
        "lost_leases": job["lost_leases"],
        "error_attempts": job["error_attempts"],
        "undisturbed_stage_s": seconds,
        "kills": [asdict(kill) for kill in kills],
        "trial": asdict(trial),
    }


def say(line: str) -> None:
    """Tell how it goes."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def main() -> int:
    """Run a trial as the command line says; exit status 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.everything_dies", description=__doc__)
    for name, value in asdict(Trial()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = vars(parser.parse_args())
    target = given.pop("json")
    with tempfile.TemporaryDirectory(prefix="everything-dies-") as folder:
        told = run(Trial(**given), Path(folder))
    text = json.dumps(told, indent=1) + "\n"
    if target:
        target.write_text(text)
    sys.stdout.write(text)
    return 0 if told["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
