"""One real service for all end-to-end tests, and one small capture. Nothing is replaced: real queue, database, engine, kernels."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.demo import Demo, serving
from tests.data.cameras import Walk
from tests.data.make_data import Truth, make_capture
from tests.e2e.chromium import Browser

PLAN = Walk(n_photos=12, width=480, height=360, turn_every=9, step_deg=7.0)
SMALL = {"train": {"steps": 300, "max_gaussians": 20_000, "max_side": 320}}
DEADLINE_S = 400.0


@dataclass(frozen=True)
class Service:
    """A running service, over plain HTTP."""

    http: httpx.Client

    def send(self, photos: list[tuple[str, bytes]]) -> httpx.Response:
        """Upload files into a new capture."""
        capture = self.http.post("/v1/captures").raise_for_status().json()["id"]
        return self.http.post(f"/v1/captures/{capture}/photos", files=[("files", each) for each in photos])

    def start(self, capture_id: str, options: dict | None = None, preset: str = "draft") -> httpx.Response:
        """Start a job."""
        return self.http.post("/v1/jobs", json={"capture_id": capture_id, "preset": preset, "options": options or SMALL})

    def ended(self, job_id: str) -> dict:
        """Wait for the end of a job."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            job = self.http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).raise_for_status().json()
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job
        raise AssertionError(f"job {job_id} has not ended after {DEADLINE_S:g} s: {job}")

    def outcome(self, photos: list[tuple[str, bytes]], options: dict | None = None) -> dict:
        """Upload, start, wait: the job, or the problem that an earlier answer was."""
        uploaded = self.send(photos)
        if uploaded.is_error:
            return {"state": "refused", "error": uploaded.json()}
        started = self.start(uploaded.json()["capture_id"], options)
        if started.is_error:
            return {"state": "refused", "error": started.json()}
        return {**self.ended(started.json()["id"]), "uploaded": uploaded.json()}


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    demo = Demo(tmp_path_factory.mktemp("service"), PLAN, "draft")
    with serving(demo) as url, httpx.Client(base_url=url, timeout=120.0, trust_env=False) as http:
        yield Service(http)


@pytest.fixture(scope="session")
def capture(tmp_path_factory) -> tuple[Path, Truth]:
    """Photos of an arc, named so that those held out (the 1st and the 9th by name) are not at its ends."""
    folder = tmp_path_factory.mktemp("capture") / "photos"
    taken = make_capture(folder, PLAN).views
    names = {name: f"DSC_{(index + 6) % PLAN.n_photos:02d}.jpg" for index, name in enumerate(sorted(taken))}
    for old, new in names.items():
        (folder / old).rename(folder / new)
    return folder, Truth({names[name]: view for name, view in taken.items()})


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Four photos of noise, for tests of the page: what stands in for the engine there does not look at them."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(9)
    for n in range(4):
        Image.fromarray(random.integers(0, 255, (480, 640, 3), np.uint8)).save(folder / f"{n}.jpg", quality=90)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium with a window of 900 x 700."""
    with Browser(900, 700) as browser:
        yield browser


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of every file of a folder, in order of name."""
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
