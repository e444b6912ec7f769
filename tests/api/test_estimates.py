"""POST /v1/estimate, with the fake engine for trials and rows for history."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api.services import estimates
from engine.errors import CapacityError, SplatError
from tests.api.conftest import is_problem
from tests.api.services.test_eta import put_history
from tests.photos import upload
from tests.services import Installation

FAKE_ENGINE = Path(__file__).parents[1] / "worker" / "fake_engine.py"


@dataclass
class Trial:
    client: httpx.Client
    control: Path

    def tell(self, **plan: object) -> None:
        (self.control / "estimate.json").write_text(json.dumps(plan))

    def count(self) -> int:
        log = self.control / "runs.log"
        return log.read_text().count("start estimate") if log.exists() else 0

    def ask(self, **body: object) -> httpx.Response:
        return self.client.post("/v1/estimate", json=body)


@pytest.fixture
def trial(installation: Installation, tmp_path: Path) -> Iterator[Trial]:
    control = tmp_path / "control"
    control.mkdir()
    command = (sys.executable, str(FAKE_ENGINE), str(control))
    installation.settings = installation.settings.model_copy(update={"engine_command": command, "estimate_s": 20.0})
    with installation.api() as client:
        yield Trial(client, control)


COUNT = {"count": 20, "width": 1600, "height": 1200}


def test_without_history_the_engine_tries_it_for_counts_and_for_captures(trial):
    found = trial.ask(photos=COUNT)
    assert found.status_code == 200, found.text
    body = found.json()
    assert (body["basis"], body["n_photos"], body["preset"]) == ("trial", 20, "draft")
    assert [stage["name"] for stage in body["stages"]] == ["ingest", "poses", "train", "compress"]
    assert (body["p50_s"], body["p90_s"], body["minutes"], body["peak_memory_bytes"]) == (80.0, 160.0, 1.3, 1 << 20)
    capture = trial.client.post("/v1/captures", json={}).json()["id"]
    is_problem(trial.ask(capture_id=capture), 422, "input.too_few_photos")
    upload(trial.client, capture, 4)
    assert trial.ask(capture_id=capture, preset="standard").json()["p50_s"] == 16.0
    assert trial.count() == 2


def test_with_history_nothing_is_tried(trial, db):
    put_history(db)
    body = trial.ask(photos={**COUNT, "count": 3}).json()
    assert body["basis"] == "history"
    assert body["p50_s"] == pytest.approx(232 * 1.1, rel=0.01)
    assert body["p90_s"] > body["p50_s"]
    assert (body["peak_memory_bytes"], body["disk_bytes"]) == (1000, 500)
    assert trial.count() == 0


@pytest.mark.parametrize(("plan", "what"), [({"memory": 1 << 60}, "memory"), ({"disk": 1 << 60}, "disk")])
def test_what_cannot_fit_is_refused_and_says_why(trial, plan, what):
    trial.tell(**plan)
    body = is_problem(trial.ask(photos=COUNT), 422, "capacity.does_not_fit")
    assert (body["data"]["what"], body["data"]["needed_bytes"]) == (what, 1 << 60)
    assert what in body["detail"]
    assert body["hint"]


@pytest.mark.parametrize(
    ("fail", "status", "code"),
    [("input.no_photos", 422, "input.no_photos"), ("capacity.memory", 422, "capacity.memory"), ("capture.bad", 422, "capture.bad")],
)
def test_what_the_engine_refuses_is_said_in_its_words(trial, fail, status, code):
    trial.tell(fail=fail)
    is_problem(trial.ask(photos=COUNT), status, code)


def test_one_trial_at_a_time_the_second_is_told_to_come_again(trial):
    trial.tell(seconds=3)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(trial.ask(photos=COUNT).status_code))
    thread.start()
    deadline = time.monotonic() + 20
    while not trial.count() and time.monotonic() < deadline:
        time.sleep(0.05)
    busy = trial.ask(photos=COUNT)
    is_problem(busy, 503, "capacity.busy")
    assert busy.headers["retry-after"]
    thread.join()
    assert answers == [200]
    trial.tell()
    assert trial.ask(photos=COUNT).status_code == 200


def test_a_trial_that_takes_too_long_is_stopped(installation, tmp_path):
    pid = tmp_path / "pid"
    sleeper = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    settings = installation.settings.model_copy(update={"engine_command": (sys.executable, "-c", sleeper), "estimate_s": 2.0})
    with pytest.raises(CapacityError) as caught:
        estimates.asked_of_engine(settings, tmp_path)
    assert caught.value.code == "capacity.slow_estimate"
    assert not Path(f"/proc/{pid.read_text()}").exists()


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (b"", -9, "capacity.killed"),
        (b"", 1, "internal.estimate_failed"),
        (b"[1]", 0, "internal.estimate_failed"),
        (b"{", 0, "internal.estimate_failed"),
    ],
)
def test_an_engine_that_says_nothing_sensible_is_named(said, code, expected):
    with pytest.raises(SplatError) as caught:
        estimates.understood(said, code)
    assert caught.value.code == expected


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "input.invalid_request"),
        ({"capture_id": "x", "photos": COUNT}, "input.invalid_request"),
        ({"photos": {**COUNT, "count": 1}}, "input.invalid_request"),
        ({"photos": {**COUNT, "width": 10**9}}, "input.invalid_request"),
        ({"photos": COUNT, "preset": "lightning"}, "input.unknown_preset"),
        ({"photos": COUNT, "options": {"train": {"steps": 0}}}, "input.invalid_option"),
    ],
)
def test_a_request_that_means_nothing_is_refused_before_anything_runs(trial, body, code):
    is_problem(trial.ask(**body), 422, code)
    assert trial.count() == 0
