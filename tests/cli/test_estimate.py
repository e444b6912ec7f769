"""``splatworks estimate``: needs no service, loads the engine in a process of its own."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import run


def test_it_says_how_long_a_splat_would_take(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((320, 240)).save(tmp_path / f"{index}.jpg")
    settings = ("--set", "train.steps=50", "--set", "train.max_side=64", "--set", "train.max_gaussians=1000")
    done = run("estimate", str(tmp_path), *settings, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures["stages"]) == ["ingest", "poses", "train", "compress"]
    assert figures["photos"] == 4


def test_what_is_wrong_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("estimate", str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "empty holds no photo that can be read" in done.stderr
    unknown = run("estimate", str(tmp_path), "--preset", "ultra")
    assert unknown.returncode == 2
    assert "there is no preset 'ultra'" in unknown.stderr
