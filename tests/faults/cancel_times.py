"""Cancels at random moments of jobs' lives: how long until the job is cancelled and no process of it lives.

``python -m tests.faults.cancel_times --cancels 50 --seed S --json OUT [--engine fake|real|both]`` starts ``serve`` with its defaults and
submits one job after another. Each is cancelled at a moment drawn evenly over an undisturbed job's time, so while it waits, in any stage,
or while its files are stored. With ``both``, three in ten run the real engine; every stage of the others has a child of its own, and every
second of them is deaf: its stages ignore SIGTERM, and one of them, drawn too, never ends of itself, so that only SIGKILL after the whole
grace ends it. A job that ends before its moment is not counted, and another is run in its place.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from engine.options import STAGES
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.faults.serving import REPOSITORY, Process, Serving, wait_for
from tests.photos import encoded

LIMIT_S = 15.0
PATIENCE_S = 120.0
ENDED = ("succeeded", "failed", "cancelled")
FAKE_ENGINE = REPOSITORY / "tests" / "worker" / "fake_engine.py"
SHARE_OF_REAL = 0.3
FAKE_STAGE_S = 1.5
NEVER_S = 600.0
REAL_OPTIONS = {"train": {"steps": 1000, "max_gaussians": 10_000, "checkpoint_s": 5.0}}


@dataclass(frozen=True)
class Trial:
    """How many cancels, with which engine; ``clocks`` are settings of the service that differ from its defaults."""

    cancels: int = 50
    seed: int = 0
    engine: str = "both"
    stage_s: float = FAKE_STAGE_S
    limit_s: float = LIMIT_S
    clocks: dict[str, str] = field(default_factory=dict)

    def share(self, engine: str) -> int:
        """Return how many cancels an engine gets."""
        if self.engine != "both":
            return self.cancels if engine == self.engine else 0
        n_real = round(SHARE_OF_REAL * self.cancels)
        return n_real if engine == "real" else self.cancels - n_real


@dataclass(frozen=True)
class Cancel:
    """One cancel: what it met, and the seconds until the job was cancelled and until nothing of it lived."""

    engine: str
    met: str
    is_deaf: bool
    cancelled_s: float
    freed_s: float


@dataclass
class Bench:
    """A running service and what its jobs are made of."""

    serving: Serving
    engine: str
    control: Path
    photos: list[tuple[str, bytes]]
    trial: Trial
    chance: random.Random
    own_sessions: set[int] = field(default_factory=set)
    n_jobs: int = 0

    def start(self) -> None:
        """Start the service; what lives then is its own, all that comes later works on a job."""
        self.serving.start()
        self.own_sessions = {process.session for process in self.serving.processes()}

    def workers_on_jobs(self) -> list[Process]:
        """Return every process that works on a job."""
        return [process for process in self.serving.processes() if process.session not in self.own_sessions]

    def submit(self, client: httpx.Client, is_deaf: bool) -> str:
        """Start a job that shares no stage with another, and return its id."""
        self.n_jobs += 1
        endless = self.chance.choice(STAGES) if is_deaf else None
        for stage in STAGES:
            plan = {"seconds": NEVER_S if stage == endless else self.trial.stage_s, "deaf": is_deaf, "grandchild": True}
            (self.control / f"{stage}.json").write_text(json.dumps(plan))
        files = [("files", (name, data, "image/jpeg")) for name, data in self.photos]
        options = {"seed": self.n_jobs, **(REAL_OPTIONS if self.engine == "real" else {})}
        answer = client.post("/v1/jobs", files=files, data={"options": json.dumps(options)})
        return str(answer.raise_for_status().json()["id"])

    def life_s(self, client: httpx.Client) -> float:
        """Return how long a job takes that nobody cancels."""
        began = time.monotonic()
        job_id = self.submit(client, is_deaf=False)
        wait_for("a job's end", lambda: get(client, job_id)["state"] in ENDED, 10 * PATIENCE_S, 0.1)
        job = get(client, job_id)
        if job["state"] != "succeeded":
            raise RuntimeError(f"the undisturbed job {job['state']}: {job['error']}")
        return time.monotonic() - began

    def cancel_one(self, client: httpx.Client, life_s: float, is_deaf: bool) -> Cancel | None:
        """Run a job and cancel it at a moment of its life; None when it ended first."""
        job_id = self.submit(client, is_deaf)
        time.sleep(self.chance.uniform(0.0, life_s))
        before, began = get(client, job_id), time.monotonic()
        answer = client.post(f"/v1/jobs/{job_id}/cancel")
        if answer.status_code == httpx.codes.CONFLICT:
            return None
        answer.raise_for_status()
        wait_for("the job's end", lambda: get(client, job_id)["state"] == "cancelled", PATIENCE_S)
        cancelled_s = time.monotonic() - began
        wait_for("the end of its processes", lambda: not self.workers_on_jobs(), PATIENCE_S)
        freed_s = time.monotonic() - began
        met = before["stage"] if before["state"] == "running" else before["state"]
        return Cancel(self.engine, met, is_deaf, round(cancelled_s, 2), round(freed_s, 2))


def get(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Return a job."""
    found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return found


def photos_for(engine: str, folder: Path, seed: int) -> list[tuple[str, bytes]]:
    """Return photos that an engine can use; the fake one looks at none."""
    if engine == "fake":
        return [(f"{n}.jpg", encoded(n)) for n in range(3)]
    make_capture(folder / "photos", Walk(10, 360, 270, seed))
    return [(path.name, path.read_bytes()) for path in sorted((folder / "photos").glob("*.jpg"))]


def run_with(engine: str, trial: Trial, folder: Path) -> list[Cancel]:
    """Run the cancels of one engine."""
    control = folder / f"control-{engine}"
    control.mkdir()
    command = {"SPLATWORKS_ENGINE_COMMAND": json.dumps([sys.executable, str(FAKE_ENGINE), str(control)])} if engine == "fake" else {}
    serving = Serving(folder / engine, {**trial.clocks, **command})
    bench = Bench(serving, engine, control, photos_for(engine, folder, trial.seed), trial, random.Random(trial.seed))
    done: list[Cancel] = []
    try:
        bench.start()
        with serving.client() as client:
            life_s = bench.life_s(client)
            while len(done) < trial.share(engine):
                cancel = bench.cancel_one(client, life_s, engine == "fake" and len(done) % 2 == 1)
                done += [cancel] if cancel else []
                sys.stderr.write(f"{len(done)} of {trial.share(engine)}: {cancel or 'ended before it was cancelled'}\n")
        return done
    finally:
        serving.stop()


def run(trial: Trial, folder: Path) -> dict[str, Any]:
    """Run all cancels in ``folder`` and return the figures."""
    cancels = [cancel for engine in ("real", "fake") if trial.share(engine) for cancel in run_with(engine, trial, folder)]
    freed = sorted(cancel.freed_s for cancel in cancels)
    return {
        "passed": len(cancels) == trial.cancels and freed[-1] <= trial.limit_s,
        "cancels": len(cancels),
        "limit_s": trial.limit_s,
        "p50_s": freed[len(freed) // 2],
        "p100_s": freed[-1],
        "met": {met: sum(cancel.met == met for cancel in cancels) for met in sorted({cancel.met for cancel in cancels})},
        "each": [asdict(cancel) for cancel in cancels],
        "trial": asdict(trial),
    }


def main() -> int:
    """Run a trial as the command line says; exit status 1 when a cancel took too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cancel_times", description=__doc__)
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("fake", "real", "both"), default="both")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cancel-times-") as folder:
        told = run(Trial(given.cancels, given.seed, given.engine), Path(folder))
    text = json.dumps(told, indent=1) + "\n"
    if given.json:
        given.json.write_text(text)
    sys.stdout.write(text)
    return 0 if told["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
