from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine.errors import Cancelled, InternalError
from engine.events import Event, Progress
from engine.options import RunOptions, TrainOptions, preset
from engine.train import train
from engine.train.finite import all_finite
from engine.train.step import TrainState
from engine.workspace import Workspace

STEPS = 40
TRAIN = TrainOptions(steps=STEPS, max_gaussians=2000, max_side=80, sh_degree=1, min_psnr_db=5.0, checkpoint_s=0.0, preview_s=0.0)
OPTIONS: RunOptions = replace(preset("draft"), threads=1, train=TRAIN)


def spoiling(step: int, value: float) -> Callable[[TrainState], None]:
    def spoil(state: TrainState) -> None:
        if state.step == step:
            state.rows[3, 4] = value

    return spoil


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_no_number_ends_the_run_and_is_named(posed_workspace: Workspace, value: float) -> None:
    with pytest.raises(InternalError, match=r"step 13 on IMG_\d+\.png: params row 3, column 4 \(log_scale y\) is (nan|inf)") as caught:
        train.run(posed_workspace, OPTIONS, lambda _: None, observe=spoiling(12, value))
    assert caught.value.code == "internal.not_finite"
    assert "seed" in caught.value.hint
    assert not (posed_workspace.train / "gaussians.ply").exists()


def test_moments_that_are_no_numbers_are_found_at_the_next_step(posed_workspace: Workspace) -> None:
    def spoil(state: TrainState) -> None:
        if state.step == 12:
            state.optimizer.moment1[:, 4] = float("nan")

    with pytest.raises(InternalError, match=r"step 1[34] on IMG") as caught:
        train.run(posed_workspace, OPTIONS, lambda _: None, observe=spoil)
    assert caught.value.code == "internal.not_finite"


def test_after_the_last_step_nothing_that_is_no_number_is_written(posed_workspace: Workspace) -> None:
    with pytest.raises(InternalError, match=rf"after step {STEPS}, the last: params row 3") as caught:
        train.run(posed_workspace, OPTIONS, lambda _: None, observe=spoiling(STEPS, float("nan")))
    assert caught.value.code == "internal.not_finite"
    assert not (posed_workspace.train / "gaussians.ply").exists()


@pytest.mark.parametrize("name", ["rows", "moment2"])
def test_a_checkpoint_with_a_value_that_is_no_number_is_not_taken_up(posed_workspace: Workspace, name: str) -> None:
    train.run(posed_workspace, OPTIONS, lambda _: None)
    whole = (posed_workspace.train / "gaussians.ply").read_bytes()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.data.get("step", 0) >= STEPS // 2:
            raise Cancelled.by_request()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.train.watch.REPORT_S", 0.0)
        with pytest.raises(Cancelled):
            train.run(posed_workspace, OPTIONS, stop)
    (saved,) = posed_workspace.train.glob("checkpoint-*.pt")
    values = torch.load(saved, weights_only=True)
    values[name][0, 0] = float("nan")
    torch.save(values, saved)
    stats = train.run(posed_workspace, OPTIONS, lambda _: None)
    assert stats["resumed_from_step"] == 0
    assert (posed_workspace.train / "gaussians.ply").read_bytes() == whole


def test_whole_numbers_are_always_finite() -> None:
    assert all_finite([torch.ones(3), torch.ones(3, dtype=torch.int32)])
    assert not all_finite([torch.ones(3), torch.tensor([1.0, float("-inf")])])
