"""``python -m bench.load``: what the api's answers take while a training runs on the same cores, beside those of an idle service.

Api, dispatcher, embedded broker and SQLite are started as ``serve`` starts them. Clients in a process of their own poll one job and
listen to its events, first while the job waits (no worker runs), then while it trains. The exit status is 1 when an answer was an error.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

from api.db import migrate
from api.settings import Settings
from bench.load_client import Plan
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.services import Installation, free_port, stack_of

START_S = 120.0
TRAINING_S = 1800.0
# Long enough to outlast the load; the job is cancelled afterwards.
OPTIONS = {"train": {"steps": 100_000}}


@dataclass(frozen=True)
class Load:
    """How much load, for how long, on a job of how many photos."""

    clients: int
    listeners: int
    seconds: float
    every_s: float
    n_photos: int


def measure(load: Load, folder: Path) -> dict[str, Any]:
    """Start the service, put the load on it twice, and return the figures."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    make_capture(photos, Walk(load.n_photos, 720, 540), lambda _done, _all: None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside it ends what it started
    with stack_of("embedded") as stack:
        settings = Settings(data_dir=folder / "data", broker_url=stack.broker.database_url(1), host="127.0.0.1", port=free_port())
        settings.data_dir.mkdir()
        migrate(settings)
        installation = Installation(stack, settings)
        try:
            return under_load(load, installation, sorted(photos.glob("*.jpg")))
        finally:
            installation.end_all()


def under_load(load: Load, installation: Installation, photos: list[Path]) -> dict[str, Any]:
    """Return the figures of the idle service and of the one that trains."""
    port = installation.settings.port
    uvicorn = ("uvicorn", "api.app:create_app", "--factory", "--port", str(port), "--no-access-log")
    api = installation.start("api", *uvicorn)
    installation.start_dispatcher()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        wait_until(lambda: answers(client), START_S)
        job = start_job(client, photos)
        plan = Plan("127.0.0.1", port, job, load.clients, load.listeners, load.seconds, load.every_s)
        memory_mb = {"before": resident_mb(api.pid)}
        idle = one_run(plan, api.pid)
        memory_mb["after_idle"] = resident_mb(api.pid)
        installation.start_worker()
        wait_until(lambda: is_training(client, job), TRAINING_S)
        training = one_run(plan, api.pid)
        memory_mb["after_training"] = resident_mb(api.pid)
        if not is_training(client, job):
            training["errors"].append("the job stopped training while it was watched")
        client.post(f"/v1/jobs/{job}/cancel")
    ratios = {name: round(training[name] / idle[name], 2) for name in ("p50_ms", "p99_ms", "events_p50_ms", "events_p99_ms") if idle[name]}
    errors = len(idle["errors"]) + len(training["errors"])
    return {
        "load": asdict(load),
        "cpus": os.cpu_count(),
        "errors": errors,
        "idle": idle,
        "training": training,
        "ratios": ratios,
        "api_memory_mb": memory_mb,
    }


def one_run(plan: Plan, api_pid: int) -> dict[str, Any]:
    """Run the clients once; return counts, latencies in ms, and what of a core the api used."""
    used, began = cpu_s(api_pid), time.monotonic()
    command = [sys.executable, "-m", "bench.load_client"]
    done = subprocess.run(command, input=json.dumps(asdict(plan)), capture_output=True, text=True, check=True, timeout=plan.seconds + 120)
    seen, wall_s = json.loads(done.stdout), time.monotonic() - began
    n = len(seen["latencies_s"])
    return {
        "requests": n,
        "statuses": seen["statuses"],
        "errors": seen["errors"],
        "events": seen["events"],
        "reconnects": seen["reconnects"],
        **percentiles("", seen["latencies_s"]),
        **percentiles("events_", seen["delays_s"]),
        "api_cpu_ms_a_request": round(1000 * (cpu_s(api_pid) - used) / max(1, n), 2),
        "api_cores": round((cpu_s(api_pid) - used) / wall_s, 3),
    }


def percentiles(prefix: str, seconds: list[float]) -> dict[str, float | None]:
    """Return p50, p99 and the longest in ms; None where nothing was measured."""
    names = ("p50_ms", "p99_ms", "max_ms")
    if len(seconds) < 2:
        return {f"{prefix}{name}": None for name in names}
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{prefix}{name}": round(1000 * value, 1) for name, value in zip(names, (cuts[49], cuts[98], max(seconds)), strict=True)}


def start_job(client: httpx.Client, photos: list[Path]) -> str:
    """Send the photos and start a long training; return the job's id."""
    files = [("files", (path.name, path.read_bytes(), "image/jpeg")) for path in photos]
    answer = client.post("/v1/jobs", files=files, data={"preset": "draft", "options": json.dumps(OPTIONS)})
    answer.raise_for_status()
    return str(answer.json()["id"])


def is_training(client: httpx.Client, job: str) -> bool:
    """Tell whether the job trains; raises when it has ended instead."""
    found = client.get(f"/v1/jobs/{job}").json()
    if found["state"] not in ("queued", "running"):
        raise RuntimeError(f"the job is {found['state']}: {found['error']}")
    (stage,) = [stage for stage in found["stages"] if stage["name"] == "train"]
    return bool(stage["state"] == "running" and stage["progress"] > 0)


def answers(client: httpx.Client) -> bool:
    """Tell whether the api is up."""
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def wait_until(look: Callable[[], bool], timeout_s: float) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s")
        time.sleep(0.2)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6, 1)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--listeners", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=2.0, help="a client polls every so many seconds (the api's Retry-After); 0: at once")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load = Load(given.clients, given.listeners, given.seconds, given.every, given.photos)
    with tempfile.TemporaryDirectory(prefix="sw-load-") as folder:
        found = measure(load, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
