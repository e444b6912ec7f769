"""A real service: ``splatworks serve`` as a user starts it, with a small stand-in for the engine (scene_engine.py)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENGINE = [sys.executable, str(Path(__file__).with_name("scene_engine.py"))]
START_S = 60.0


def environment(**more: str) -> dict[str, str]:
    """What a command sees: the stand-in engine, quick retries, and nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPLATWORKS_")}
    ours = {
        "SPLATWORKS_ENGINE_COMMAND": json.dumps(ENGINE),
        "SPLATWORKS_RETRY_BACKOFF_S": "0.2",
        "SPLATWORKS_POLL_S": "0.2",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    return {**kept, **ours, **more}


def command(*arguments: str) -> list[str]:
    """``splatworks …`` without the installed script."""
    return [sys.executable, "-m", "cli.main", *arguments]


@dataclass
class Serve:
    """One running ``splatworks serve``."""

    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    def start(self) -> "Serve":
        with self.log.open("ab") as log:
            arguments = command("serve", "--port", str(self.port), "--data-dir", str(self.data_dir))
            self.process = subprocess.Popen(
                arguments, env=environment(**self.env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if (self.data_dir / "serve.json").exists() and self.announced["pid"] == self.process.pid:
                return self
            time.sleep(0.05)
        raise AssertionError(f"serve did not start:\n{self.log.read_text()}")

    @property
    def announced(self) -> dict:
        return json.loads((self.data_dir / "serve.json").read_text())

    @property
    def url(self) -> str:
        return self.announced["url"]

    def get(self, path: str) -> dict:
        return httpx.get(f"{self.url}{path}", trust_env=False).raise_for_status().json()

    def stop(self, how: int = signal.SIGTERM, timeout_s: float = 40.0) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def children(self) -> dict[int, str]:
        """Every living process that works for this data folder, by its command line, environment or working folder."""
        found = {}
        needle = str(self.data_dir).encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
                # The broker writes its title over both, but works in its folder.
                if needle in line + (folder / "environ").read_bytes() + bytes((folder / "cwd").readlink()):
                    found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # ended meanwhile
                continue
        own = {os.getpid(), self.process.pid if self.process else 0}
        return {pid: line for pid, line in found.items() if line and pid not in own}


def run(*arguments: str, timeout_s: float = 60.0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a ``splatworks`` command to its end."""
    return subprocess.run(
        command(*arguments),
        check=False,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd="/",
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos, a text that is called photo.jpg, and a file that is no photo at all."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(5)
    for n in range(6):
        small = Image.fromarray(random.integers(0, 255, (30, 40, 3), np.uint8))
        small.resize((640, 480)).save(folder / f"{n}.jpg")
    (folder / "photo.jpg").write_text("this is text")
    (folder / "notes.txt").write_text("left alone")
    return folder


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A service for the tests that do not hurt it."""
    service = Serve(tmp_path_factory.mktemp("served") / "data").start()
    yield service
    service.stop()


@pytest.fixture
def serve_one(tmp_path: Path) -> Iterator[Serve]:
    """A service, not yet started, that a test may hurt; nothing of it is left afterwards."""
    service = Serve(tmp_path / "data")
    yield service
    if service.process is not None:
        service.process.kill()
        service.process.wait()
