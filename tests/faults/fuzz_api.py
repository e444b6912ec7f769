"""Schemathesis over the OpenAPI document of a running api: ``python -m tests.faults.fuzz_api --examples 200 --json OUT``.

All four phases (examples, coverage, fuzzing, stateful) and all checks of Schemathesis, over a real socket, with a key that every request
needs. Left out, and why:

- revoking keys: it would revoke the very key that the run asks with; tests/api/test_keys.py does it.
- ``/metrics`` may be read from this machine without a key (api/door.py), and the run asks from this machine; tests/api/test_doors.py asks
  as from elsewhere.
- 503 of ``/readyz`` counts as no server error: saying "not ready" so is what the address is for.
- of a request that fits the schema, 410 (deleted), 412 (another version of tus), 413 (too large), 416 (a range outside), 422 (photos or
  options that the schema cannot judge) and 460 (a checksum that does not fit) are right answers as well; our own check
  ``a_valid_request_is_understood`` still refuses an ``input.invalid_request`` there.
- of a request that does not fit, 410, 411, 412 and 413 are refusals too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.db import open_database
from api.services import keys
from tests.photos import encoded, form
from tests.services import REPOSITORY, Installation, Stack, installed, stack_of, until
from tests.worker.conftest import FAKE_ENGINE

PHASES = ("examples", "coverage", "fuzzing", "stateful")
MANY = 10_000_000


@dataclass(frozen=True)
class Plan:
    """How much is tried: cases an operation, the seed, the phases, and seconds at most (None: no end but its own)."""

    examples: int
    seed: int = 1
    phases: tuple[str, ...] = PHASES
    seconds: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What the cases may speak of: a key, and a capture and a finished job that are there."""

    url: str
    key: str
    capture: str
    job: str


@contextmanager
def prepared(stack: Stack, folder: Path) -> Iterator[Prepared]:
    """Serve the api with a key, a capture of photos and a finished job. No dispatcher: nothing is sent to addresses that were made up."""
    control = folder / "control"
    control.mkdir(parents=True)
    # The engine tries no real estimate here: the fake one ends at once.
    command = (sys.executable, str(FAKE_ENGINE), str(control))
    changes = {"require_key": True, "requests_per_minute": MANY, "refusals_per_minute": MANY, "engine_command": command}
    with installed(stack, folder / "data", **changes) as installation:
        installation.start_worker()
        key = new_key(installation)
        with installation.api() as client:
            yield seeded(client, key)


def new_key(installation: Installation) -> str:
    """Make a key that may do all."""
    db = open_database(installation.settings)
    with db.writing() as session:
        _row, key = keys.create(session, keys.NewKey("fuzz", keys.SCOPES))
    db.close()
    return key


def seeded(client: httpx.Client, key: str) -> Prepared:
    """Make a capture and a job, and wait until the job is over."""
    client.headers["Authorization"] = f"Bearer {key}"
    capture = client.post("/v1/captures", json={"name": "fuzz"}).json()["id"]
    client.post(f"/v1/captures/{capture}/photos", files=form(*((f"{n}.jpg", encoded(n)) for n in range(3)))).raise_for_status()
    job = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    until(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", 120.0)
    return Prepared(str(client.base_url).rstrip("/"), key, capture, job)


def configuration(found: Prepared) -> str:
    """Return Schemathesis's configuration; why each exception is made stands at the head of this module."""
    accepted = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "413", "416", "422", "429", "460", "5xx"]
    refused = ["400", "401", "403", "404", "405", "406", "409", "410", "411", "412", "413", "415", "422", "428", "429", "5xx"]
    return f"""
hooks = "tests.faults.fuzz_checks"
continue-on-failure = true
request-timeout = 60.0
max-stream-events = 20

[headers]
Authorization = "Bearer {found.key}"

[checks]
positive_data_acceptance.expected-statuses = {json.dumps(accepted)}
negative_data_rejection.expected-statuses = {json.dumps(refused)}

[dictionaries]
captures = {{ values = ["{found.capture}"] }}
jobs = {{ values = ["{found.job}"] }}
files = {{ values = ["scene.ply", "scene.sog", "report.json", "log.txt"] }}

[parameters]
"path.capture_id" = {{ dictionary = "captures", probability = 0.3 }}
"path.job_id" = {{ dictionary = "jobs", probability = 0.3 }}
"path.name" = {{ dictionary = "files", probability = 0.5 }}

[[operations]]
include-operation-id = "get_readiness"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]

[[operations]]
include-operation-id = "get_metrics"
checks.ignored_auth.enabled = false

[[operations]]
include-operation-id = "revoke_key"
enabled = false
"""


def fuzz(found: Prepared, folder: Path, plan: Plan) -> dict[str, Any]:
    """Run Schemathesis and return its figures; ``failures`` lists each, ``output`` is what it printed."""
    settings, report = folder / "schemathesis.toml", folder / "events.ndjson"
    settings.write_text(configuration(found))
    time_limit = [] if plan.seconds is None else ["--max-time", str(plan.seconds)]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", f"{found.url}/v1/openapi.json"),
        *("--phases", ",".join(plan.phases), "--max-examples", str(plan.examples), "--seed", str(plan.seed)),
        *("--generation-database", "none", "--no-shrink", "--no-color", *time_limit),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    checks, failures = read_report(report)
    return {
        "seed": plan.seed,
        "examples": plan.examples,
        "checks": checks,
        "failures": failures,
        "exit_code": done.returncode,
        "output": done.stdout[-6000:] + done.stderr[-2000:],
    }


def read_report(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return how many checks were made, and those that failed, each once for an operation and a status."""
    n_checks, failed = 0, {}
    for line in path.read_text().splitlines():
        event = json.loads(line).get("ScenarioFinished")
        recorder = event.get("recorder", {}) if event else {}
        for case_id, checks in recorder.get("checks", {}).items():
            n_checks += len(checks)
            sent = recorder.get("interactions", {}).get(case_id, {})
            for check in [each for each in checks if each["status"] not in ("success", "skip")]:
                request, response = sent.get("request") or {}, sent.get("response") or {}
                key = (check["name"], request.get("method"), recorder.get("label"), response.get("status_code"))
                failed.setdefault(
                    key, {"check": key[0], "operation": key[2], "status": key[3], "address": request.get("uri"), "why": check}
                )
    return n_checks, list(failed.values())


def main() -> int:
    """Run as the command line says; 1 when a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz_api", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="cases an operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=None, help="end after so long")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--stack", choices=["embedded", "servers"], default="embedded")
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    given = parser.parse_args()
    plan = Plan(given.examples, given.seed, tuple(given.phases.split(",")), given.seconds)
    with tempfile.TemporaryDirectory(prefix="sw-fuzz-") as name, stack_of(given.stack) as stack:
        folder = Path(name)
        with prepared(stack, folder) as found:
            result = fuzz(found, folder, plan)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(result["output"])
    for each in result["failures"]:
        print(json.dumps({name: each[name] for name in ("check", "operation", "status", "address")}))
    print(f"{result['checks']} checks, {len(result['failures'])} kinds of failures, seed {given.seed}")
    return 0 if result["exit_code"] == 0 and not result["failures"] else 1


if __name__ == "__main__":
    sys.exit(main())
