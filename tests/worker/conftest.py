"""A complete installation with the fake engine, on each stack."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.photos import encoded, form
from tests.services import Installation, Stack, installed, stack_of, until

SEEDS = itertools.count(1000)
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


@pytest.fixture(scope="session", params=["embedded", "servers"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stack_of(request.param) as found:
        yield found


@dataclass
class Service:
    """An installation whose engine obeys."""

    installation: Installation
    control: Path

    def tell(self, stage: str, **plan: object) -> None:
        """Say how a stage is to behave."""
        (self.control / f"{stage}.json").write_text(json.dumps(plan))

    def runs(self, word: str = "") -> list[list[str]]:
        """Return what the engine noted: lines such as ``start train 123``."""
        path = self.control / "runs.log"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if not word or line[0] == word]

    def started(self, stage: str) -> list[int]:
        """Return the pids of the engine's runs of a stage."""
        return [int(pid) for _word, name, pid in self.runs("start") if name == stage]


@contextlib.contextmanager
def obedient(stack: Stack, folder: Path) -> Iterator[Service]:
    """Make an installation with the fake engine, nothing running yet."""
    control = folder / "control"
    control.mkdir()
    command = (sys.executable, str(FAKE_ENGINE), str(control))
    with installed(stack, folder / "data", engine_command=command) as installation:
        yield Service(installation, control)


@pytest.fixture
def service(stack: Stack, tmp_path: Path) -> Iterator[Service]:
    with obedient(stack, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, httpx.Client]]:
    with obedient(stack, tmp_path_factory.mktemp("shared")) as made:
        made.installation.start_worker()
        made.installation.start_dispatcher()
        with made.installation.api() as client:
            yield made, client


@pytest.fixture
def running(shared: tuple[Service, httpx.Client]) -> tuple[Service, httpx.Client]:
    """A service whose processes are up and whose engine has been told nothing; a test that ends the worker starts another."""
    made, client = shared
    for path in made.control.iterdir():
        path.unlink()
    until(lambda: client.get("/readyz").status_code == 200)
    return shared


def new_capture(client) -> str:
    """Upload three photos that no other capture has, so that nothing is kept of them; return the capture's id."""
    capture = client.post("/v1/captures", json={}).json()["id"]
    files = form(*((f"IMG_{n}.jpg", encoded(next(SEEDS))) for n in range(3)))
    assert client.post(f"/v1/captures/{capture}/photos", files=files).status_code == 201
    return capture


def start_job(client, capture: str | None = None, **body) -> str:
    """Start a job over a capture, a new one unless it is named; return its id."""
    capture = capture or new_capture(client)
    answer = client.post("/v1/jobs", json={"capture_id": capture, **body})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def job_in(client, job_id: str, *states: str, timeout_s: float = 30.0) -> dict:
    """Return the job once it is in one of the states."""

    def look() -> dict | None:
        job = client.get(f"/v1/jobs/{job_id}").json()
        return job if job["state"] in states else None

    return until(look, timeout_s)
