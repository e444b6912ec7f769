from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import Cancelled, CaptureError, InputError
from engine.events import Checkpointed, Event, Progress, Warned
from engine.formats.ply import read_ply
from engine.options import STRATEGIES, RunOptions, TrainOptions, preset
from engine.train import prepare, train, watch
from engine.workspace import Workspace, read_json

STEPS = 200
TRAIN = TrainOptions(steps=STEPS, max_gaussians=3000, max_side=160, sh_degree=1, min_psnr_db=5.0, checkpoint_s=0.0, preview_s=0.0)


def options(threads: int = 1, **changes: float | str) -> RunOptions:
    return replace(preset("draft"), threads=threads, train=replace(TRAIN, **changes))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened, dtype=np.float64)


def run(workspace: Workspace, chosen: RunOptions) -> tuple[dict, list[Event]]:
    events: list[Event] = []
    return train.run(workspace, chosen, events.append), events


def test_training_learns_views_that_it_never_saw(posed_workspace: Workspace) -> None:
    before, _ = run(posed_workspace, options(steps=1))
    stats, events = run(posed_workspace, options(steps=400))
    assert stats["psnr_db"] > before["psnr_db"] + 2.0
    assert stats["psnr_db"] > 14.0
    assert (stats["n_train"], stats["n_test"]) == (12, 2)
    assert stats["n_gaussians"] == 3000
    fractions = [event.fraction for event in events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert len(read_ply(posed_workspace.train / "gaussians.ply")) == 3000
    metrics = read_json(posed_workspace.train / "metrics.json")
    assert [each["name"] for each in metrics["photos"]] == ["IMG_0001.png", "IMG_0009.png"]
    photo, render = (pixels_of(posed_workspace.train / "renders" / f"IMG_0009.png.{kind}.png") for kind in ("photo", "render"))
    error = np.mean((photo - render) ** 2)
    shown = 20 * np.log10(255) - 10 * np.log10(error)
    assert shown == pytest.approx(metrics["photos"][1]["psnr_db"], abs=0.1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_and_two_threads_give_the_same_file(posed_workspace: Workspace, strategy: str) -> None:
    run(posed_workspace, options(threads=1, strategy=strategy))
    first = (posed_workspace.train / "gaussians.ply").read_bytes()
    run(posed_workspace, options(threads=2, strategy=strategy))
    assert (posed_workspace.train / "gaussians.ply").read_bytes() == first


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_gives_the_same_file_as_an_uninterrupted_one(posed_workspace: Workspace, strategy: str) -> None:
    run(posed_workspace, options(strategy=strategy))
    whole = (posed_workspace.train / "gaussians.ply").read_bytes()

    def interrupt(event: Event) -> None:
        # Progress comes twice a second: somewhere in the middle, past the first growth.
        if isinstance(event, Progress) and event.data.get("step", 0) >= STEPS // 3:
            raise Cancelled.by_request()

    slow = options(strategy=strategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "REPORT_S", 0.0)
        with pytest.raises(Cancelled):
            train.run(posed_workspace, slow, interrupt)
    assert list(posed_workspace.train.glob("checkpoint-*.pt"))
    stats, _ = run(posed_workspace, slow)
    assert STEPS // 3 <= stats["resumed_from_step"] < STEPS
    assert (posed_workspace.train / "gaussians.ply").read_bytes() == whole


def test_another_seed_gives_another_file(posed_workspace: Workspace) -> None:
    run(posed_workspace, options(steps=20))
    first = (posed_workspace.train / "gaussians.ply").read_bytes()
    run(posed_workspace, replace(options(steps=20), seed=1))
    assert (posed_workspace.train / "gaussians.ply").read_bytes() != first


@pytest.mark.parametrize(("worth_s", "saved"), [(0.0, [STEPS]), (600.0, [])])
def test_the_last_step_is_saved_before_it_is_measured_when_steps_would_be_lost(
    posed_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, worth_s: float, saved: list[int]
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and "measuring" in event.message:
            raise Cancelled.by_request()

    monkeypatch.setattr(watch, "LAST_S", worth_s)
    with pytest.raises(Cancelled):
        train.run(posed_workspace, options(checkpoint_s=600.0), stop)
    assert [int(path.stem[-7:]) for path in posed_workspace.train.glob("checkpoint-*.pt")] == saved
    stats, _ = run(posed_workspace, options(checkpoint_s=600.0))
    assert stats["resumed_from_step"] == sum(saved)


def test_checkpoints_and_previews_come_by_the_clock(posed_workspace: Workspace) -> None:
    _, events = run(posed_workspace, options(steps=60, checkpoint_s=0.01, preview_s=0.01))
    assert sum(isinstance(event, Checkpointed) for event in events) > 3
    previews = [event.data["preview"] for event in events if isinstance(event, Progress) and "preview" in event.data]
    with Image.open(posed_workspace.root / previews[-1]) as preview:
        assert preview.format == "WEBP"


def test_a_bad_result_is_refused_with_its_figures(posed_workspace: Workspace) -> None:
    with pytest.raises(CaptureError, match=r"PSNR is .* below the floor of 60\.0 dB; worst: IMG_00") as caught:
        run(posed_workspace, options(steps=10, min_psnr_db=60.0))
    assert caught.value.code == "capture.low_quality"


def test_no_points_are_refused(posed_workspace: Workspace) -> None:
    from engine.formats.colmap import read_reconstruction, write_reconstruction
    from engine.scene import Points3D

    scene = read_reconstruction(posed_workspace.undistorted / "sparse")
    none = Points3D(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), np.zeros(0, np.int64))
    write_reconstruction(posed_workspace.undistorted / "sparse", replace(scene, points=none))
    with pytest.raises(CaptureError, match="no 3D points"):
        run(posed_workspace, options())


def test_without_a_photo_to_train_on_it_says_so(posed_workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no photo is left"):
        run(posed_workspace, options(holdout_every=1))


def test_nothing_held_out_is_said_in_the_figures(posed_workspace: Workspace) -> None:
    stats, _ = run(posed_workspace, options(steps=10, holdout_every=0))
    assert stats["held_out"] is False
    assert stats["n_train"] == 14


def test_a_machine_with_little_memory_trains_fewer_gaussians_and_warns(posed_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "free_on", lambda _: 8_000_100)
    stats, events = run(posed_workspace, options(steps=150))
    assert stats["n_gaussians"] == 2000
    assert [event.code for event in events if isinstance(event, Warned)].count("capacity.little_memory") == 1


def test_more_photos_than_the_steps_can_visit_lengthen_the_run(posed_workspace: Workspace) -> None:
    stats, events = run(posed_workspace, options(steps=20, min_visits=3))
    assert stats["steps"] == 36
    assert any("36 steps instead of 20" in event.message for event in events if isinstance(event, Progress))
