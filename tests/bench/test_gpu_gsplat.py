"""The comparison with gsplat, rehearsed without a card: gsplat's own Python on the CPU, our kernels by the shim or on a card.

These tests need gsplat's wheel: GSPLAT=FOLDER (docs/gpu.md).
"""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from bench.gpu_device import OurStep
from bench.gpu_gsplat import SAME_GRADIENT, SAME_IMAGE, TheirStep, beside, compare
from bench.gpu_made_set import MadeSet, make_set
from bench.gpu_mcmc import McmcRun, McmcState, mean_psnr, train_mcmc
from bench.gpu_report import Report
from bench.gpu_scenes import Size
from bench.gpu_train import compare as compare_trainings
from bench.kernel_scene import surface_scene
from engine.options import TrainOptions, preset, with_overrides
from engine.train.views import load_split
from kernels.step import Device
from tests.bench.gsplat_on_cpu import gsplat_on_cpu
from tests.kernels.conftest import card

SIZE = Size(600, 64, 48)
TRAIN = {"steps": 60, "max_gaussians": 1000, "max_side": 64, "sh_degree": 2, "min_psnr_db": 0.0, "preview_s": 0.0, "checkpoint_s": 0.0}


@pytest.fixture
def gsplat(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return gsplat_on_cpu(monkeypatch)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_set(tmp_path / "made", MadeSet(600, 9, 64, 48, 300), Device("cpu"))


def test_gsplat_draws_our_rows_alike_and_finds_the_same_gradients(gsplat: ModuleType) -> None:
    scene, device, report = surface_scene(2000, 128, 96, 20.0), Device("cpu"), Report("Same work")
    step = TheirStep(gsplat, device, scene, torch.optim.Adam, is_selective=False)
    compare(step, OurStep(device, scene), "gsplat", report, SIZE)
    found = report.data[f"{SIZE.name}, gsplat: difference"]
    assert report.failures == []
    assert found["image"] < 1e-5 < SAME_IMAGE
    assert max(found.values()) < 5e-3 < SAME_GRADIENT


def test_other_work_than_ours_is_seen(gsplat: ModuleType) -> None:
    scene, device, report = surface_scene(600, 64, 48, 12.0), Device("cpu"), Report("Other work")
    step = TheirStep(gsplat, device, scene, torch.optim.Adam, is_selective=False)
    with torch.no_grad():
        step.parameters["scales"] += 0.2
    compare(step, OurStep(device, scene), "gsplat", report, SIZE)
    assert any("the pictures of ours and gsplat differ" in failure for failure in report.failures)
    assert any("the gradient of scales" in failure for failure in report.failures)


def test_both_sides_steps_are_measured_on_the_same_work(gsplat: ModuleType) -> None:
    assert card().info().name
    scene, report = surface_scene(600, 64, 48, 12.0), Report("Beside")
    beside(gsplat, SIZE, scene, report, seconds=0.05)
    assert [row["who"] for row in report.rows] == [
        "ours, SH rest every step", "ours, SH rest every 4th", "gsplat, fused Adam", "gsplat, SelectiveAdam",
    ]  # fmt: skip
    assert all(float(str(row["steps/s"])) > 0 for row in report.rows)
    assert not [failure for failure in report.failures if "not the same work" in failure]


def test_gsplats_strategy_trains_to_its_cap(gsplat: ModuleType, made: Path) -> None:
    options = TrainOptions(**TRAIN)
    run = McmcRun(gsplat, Device("cpu"), made / "undistorted", options)
    photos = load_split(made / "undistorted", 64, 8)[0].test
    at: dict[int, float] = {}

    def observe(state: McmcState) -> None:
        if state.step in (1, options.steps):
            at[state.step] = mean_psnr(run, state, photos)

    state = train_mcmc(run, observe)
    assert state.count == options.max_gaussians
    assert state.reading_s > 0
    assert at[options.steps] > at[1] + 1


def test_both_sides_train_on_one_set(gsplat: ModuleType, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert card().info().name
    monkeypatch.setenv("SPLATWORKS_DEVICE", "cuda")
    options, report = with_overrides(preset("draft"), {"train": {**TRAIN, "exposure": "off"}}), Report("Training")
    compare_trainings(gsplat, made, options, report)
    assert [str(row["who"])[:6] for row in report.rows] == ["ours, ", "gsplat"]
    assert len(report.data["made, gsplat MCMC"]) == 20
    first, last = (report.data["made, gsplat MCMC"][place]["psnr_db"] for place in (0, -1))
    assert first < last < 60
