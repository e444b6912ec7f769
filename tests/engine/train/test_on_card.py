"""The train stage on a card, or on the shim that runs its kernels on the CPU (``make cuda-check``); skipped where there is neither."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from engine.device import open_device
from engine.errors import Cancelled
from engine.events import Event, Progress
from engine.options import RunOptions, TrainOptions, preset
from engine.render import camera_params
from engine.train import train, watch
from engine.train.budget import CARD_BYTES_PER_GAUSSIAN
from engine.train.step import TrainState
from engine.train.views import load_split
from engine.workspace import Stamp, Workspace, write_json
from kernels.step import AdamParams, Device
from tests.data.cameras import Walk
from tests.engine.train.conftest import posed_folder

STEPS = 40
TRAIN = TrainOptions(
    steps=STEPS, max_gaussians=2500, max_side=80, sh_degree=1, min_psnr_db=5.0, checkpoint_s=0.0, preview_s=0.0, exposure="on"
)
OPTIONS: RunOptions = replace(preset("draft"), threads=1, train=TRAIN)


@pytest.fixture(scope="module")
def card() -> Device:
    try:
        return Device("cuda")
    except RuntimeError as error:
        return pytest.skip(str(error))


@pytest.fixture(scope="module")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return posed_folder(tmp_path_factory.mktemp("small"), Walk(n_photos=5, width=80, height=60, step_deg=6.0))


@pytest.fixture
def workspace(small_scene: Path, tmp_path: Path) -> Workspace:
    workspace = Workspace.at(tmp_path / "work")
    for name in ("images", "sparse"):
        shutil.copytree(small_scene / name, workspace.undistorted / name)
    write_json(workspace.stamp("poses"), asdict(Stamp("posed", {}, {}, 0.0)))
    return workspace


def train_on(name: str, workspace: Workspace, until: int = STEPS, options: RunOptions = OPTIONS) -> dict:
    """Train on a device, stopping after step ``until``; return the figures, empty where it was stopped."""

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and until <= event.data.get("step", 0) < STEPS:
            raise Cancelled.by_request()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATWORKS_DEVICE", name)
        patch.setattr(watch, "REPORT_S", 0.0)
        try:
            return train.run(workspace, options, listen)
        except Cancelled:
            return {}


@pytest.mark.usefixtures("card")
def test_a_card_trains_as_well_as_the_cpu(workspace: Workspace) -> None:
    on_cpu, on_card = train_on("cpu", workspace), train_on("cuda", workspace)
    assert (on_cpu["device"], on_card["device"]) == ("cpu", "cuda")
    assert on_card["kernel"] != on_cpu["kernel"]
    assert on_card["n_gaussians"] == on_cpu["n_gaussians"]
    assert on_card["psnr_db"] == pytest.approx(on_cpu["psnr_db"], abs=0.3)
    assert on_card["ssim"] == pytest.approx(on_cpu["ssim"], abs=0.02)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_on_the_other_device(workspace: Workspace, first: str, second: str) -> None:
    whole = train_on("cpu", workspace)
    assert train_on(first, workspace, until=STEPS // 2) == {}
    moved = train_on(second, workspace)
    assert moved["resumed_from_step"] == STEPS // 2
    assert moved["device"] == second
    assert moved["psnr_db"] == pytest.approx(whole["psnr_db"], abs=0.3)


@pytest.mark.usefixtures("card")
def test_all_of_a_runs_tensors_are_on_the_card(workspace: Workspace, card: Device) -> None:
    seen: list[set[torch.device]] = []

    def look(state: TrainState) -> None:
        optimizer = state.optimizer
        held = (state.rows, optimizer.moment1, optimizer.moment2, optimizer.last_step, state.scores, state.density)
        seen.append({each.device for each in held} | {state.exposure.values.device} if state.exposure else set())
        assert state.generator.device.type == "cpu"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATWORKS_DEVICE", "cuda")
        train.run(workspace, replace(OPTIONS, train=replace(TRAIN, steps=3)), lambda _: None, observe=look)
    assert seen == [{card.tensors}] * 3


def staged(workspace: Workspace, memory_bytes: int) -> list[dict]:
    """Train as the worker does, in a process whose card has so much memory; return its events."""
    options = workspace.root / "options.json"
    options.write_text(json.dumps({"threads": 1, "train": {**asdict(TRAIN), "steps": 2, "strategy": "adc", "max_gaussians": 8000}}))
    command = [sys.executable, "-m", "engine", "stage", "train", str(workspace.root), "--options", str(options)]
    environment = {**os.environ, "SPLATWORKS_DEVICE": "cuda", "SPLAT_SHIM_MEMORY": str(memory_bytes)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def only_on_shim(card: Device) -> None:
    if card.info().name != "shim":
        pytest.skip("only the shim's memory can be limited")


def test_a_card_that_is_full_gets_fewer_gaussians_then_smaller_photos(workspace: Workspace, card: Device) -> None:
    only_on_shim(card)
    events = staged(workspace, 1_500_000)
    told = [event["data"] for event in events if event.get("code") == "capacity.lowered"]
    assert [(each["next_max_gaussians"], each["next_max_side"]) for each in told][:1] == [(4000, 0)]
    assert all(each["asked_bytes"] > 0 for each in told)
    assert events[-1]["type"] == "stage_done", events[-1]
    stats = events[-1]["stats"]
    assert stats["memory_rung"] == told[-1]["rung"] + 1
    assert stats["device"] == "cuda"


def test_a_card_that_holds_nothing_ends_the_run_with_the_numbers(workspace: Workspace, card: Device) -> None:
    only_on_shim(card)
    error = staged(workspace, 200_000)[-1]["error"]
    assert error["code"] == "capacity.memory"
    assert error["retryable"]
    assert error["data"]["asked_bytes"] > 0
    assert (error["data"]["max_gaussians"], error["data"]["max_side"]) == (2000, 40)


@pytest.mark.usefixtures("card")
def test_a_gaussian_takes_no_more_of_a_card_than_is_reckoned(small_scene: Path) -> None:
    view = load_split(small_scene, 80, 0)[0].train[0].view
    n, generator = 4000, torch.Generator().manual_seed(0)
    device = open_device("cuda")
    rows = torch.zeros((n, 64))
    rows[:, :3] = torch.randn((n, 3), generator=generator)
    rows[:, 3:6], rows[:, 6] = -6.0, 1.0
    state = TrainState.fresh(rows.to(device.tensors), generator)
    image = torch.empty((3, view.height, view.width), device=device.tensors)
    device.forward(state.rows, camera_params(view), 3, (0.0, 0.0, 0.0), image)
    rates = AdamParams(step=1, lr_means=0.0, lr_log_scales=0.0, lr_quats=0.0, lr_opacity=0.0, lr_sh_dc=0.0, lr_sh_rest=0.0)
    device.backward_adam(state.rows, state.optimizer, torch.ones_like(image), rates)
    optimizer = state.optimizer
    held = (state.rows, optimizer.moment1, optimizer.moment2, optimizer.last_step, state.scores, state.density)
    assert 3 * sum(tensor.nbytes for tensor in held) + device.info().workspace_bytes <= CARD_BYTES_PER_GAUSSIAN * n
