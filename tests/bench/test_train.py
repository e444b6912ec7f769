import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.plot import write_learning_curves
from bench.train import HEADER, Job, Point, line, time_to, train
from engine.estimate.stand_in import write_stand_in
from engine.options import with_overrides
from engine.train import train as training
from engine.workspace import Workspace

SETTINGS = ["train.steps=60", "train.max_gaussians=1500", "train.max_side=64", "train.min_psnr_db=0", "threads=1"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("posed")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48)).save(root / "photo.png")
    write_stand_in(root / "undistorted", [root / "photo.png"], [(64, 48)] * 9)
    (root / "poses.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def run(workspace: Path) -> dict:
    return asdict(train(Job(str(workspace), "base", "draft", SETTINGS, 50)))


def test_the_curve_has_its_points_and_time_goes_on(run: dict) -> None:
    steps = [point["step"] for point in run["curve"]]
    assert steps == [*range(50, run["steps"], 50), run["steps"]]
    for clock in ("seconds", "cpu_seconds"):
        values = [point[clock] for point in run["curve"]]
        assert values == sorted(values)
        assert values[0] > 0
    assert run["curve"][-1]["gaussians"] == run["n_gaussians"]
    assert run["curve"][-1]["psnr_db"] > run["curve"][0]["psnr_db"]
    assert run["steps_per_s"] == pytest.approx(run["steps"] / run["seconds"], rel=0.01)
    assert run["estimate"]["seconds"] > 0
    json.dumps(run)


def test_measuring_changes_nothing_of_the_result(run: dict, workspace: Path, tmp_path: Path) -> None:
    plain = Workspace.at(tmp_path)
    for name in ("undistorted", "poses.json"):
        (tmp_path / name).symlink_to(workspace / name)
    options = Job(str(workspace), "base", "draft", SETTINGS, 50).options()
    stats = training.run(plain, with_overrides(options, {}), lambda _: None)
    assert (stats["psnr_db"], stats["ssim"], stats["n_gaussians"]) == (run["psnr_db"], run["ssim"], run["n_gaussians"])


def point(step: int, psnr_db: float) -> Point:
    return Point(step, step / 10, step / 5, 100, psnr_db, 0.5)


def test_the_time_to_a_quality_lies_between_two_points() -> None:
    reached = time_to([point(100, 19.0), point(200, 21.0), point(300, 20.5), point(400, 23.0)], (18.0, 20.0, 22.0, 24.0))
    assert reached["18"] == {"step": 100, "seconds": 10.0, "cpu_seconds": 20.0}
    assert reached["20"] == {"step": 150, "seconds": 15.0, "cpu_seconds": 30.0}
    assert reached["22"]["step"] == 360
    assert "24" not in reached


def test_the_table_and_the_plot_show_every_configuration(run: dict, tmp_path: Path) -> None:
    assert line(run).count("|") == HEADER.splitlines()[0].count("|")
    other = {**run, "label": "train.strategy=adc"}
    picture = write_learning_curves([run, other, {**run, "set": "another"}], tmp_path / "curves.png")
    with Image.open(picture) as opened:
        assert opened.width > 900
        assert opened.height > 500
    with pytest.raises(ValueError, match="no run"):
        write_learning_curves([], tmp_path / "none.png")
