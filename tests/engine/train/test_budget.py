from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.options import PRESETS, TrainOptions, preset, with_overrides
from engine.render import camera_params
from engine.scene import PinholeView
from engine.train.budget import BYTES_PER_GAUSSIAN, SHARE_OF_MEMORY, UNLIMITED, fit, free_memory_bytes
from engine.train.step import TrainState
from engine.train.views import TrainingPhoto
from kernels.step import AdamParams, Device

ASKED = TrainOptions(steps=1000, max_gaussians=100_000, min_visits=40)
PLENTY = 1 << 40


def photos(count: int, width: int = 1000, height: int = 500) -> list[TrainingPhoto]:
    view = PinholeView(np.eye(3, 4), 500.0, 500.0, width / 2, height / 2, width, height)
    return [TrainingPhoto(f"{index}.png", Path("x.png"), view) for index in range(count)]


def test_what_fits_is_left_as_asked() -> None:
    budget = fit(ASKED, photos(10), PLENTY)
    assert (budget.options, budget.changes, budget.warning) == (ASKED, (), "")


def test_little_memory_lowers_the_budget_and_says_so() -> None:
    budget = fit(ASKED, photos(10), 200_000_000)
    assert budget.options.max_gaussians == int(SHARE_OF_MEMORY * 200_000_000 / BYTES_PER_GAUSSIAN)
    assert budget.warning == f"{budget.options.max_gaussians:,} gaussians instead of 100,000: only 0.2 GB of memory are free"


def test_few_pixels_lower_the_budget_and_say_so_but_not_the_classic_ceiling() -> None:
    small = photos(10, 200, 100)
    budget = fit(ASKED, small, PLENTY)
    assert budget.options.max_gaussians == 10_000
    assert "0.2 megapixels" in budget.changes[0]
    classic = TrainOptions(steps=1000, max_gaussians=100_000, strategy="adc")
    assert fit(classic, small, PLENTY).options == classic


@pytest.mark.parametrize(("n_photos", "steps"), [(25, 1000), (50, 2000), (1000, 3000)])
def test_many_photos_get_more_steps_up_to_a_limit(n_photos: int, steps: int) -> None:
    budget = fit(ASKED, photos(n_photos), PLENTY)
    assert budget.options.steps == steps
    assert len(budget.changes) == (steps != 1000)


def test_no_visits_asked_for_leave_the_steps() -> None:
    assert fit(TrainOptions(steps=7), photos(100), PLENTY).options.steps == 7


@pytest.mark.parametrize(("n_photos", "degree"), [(2, 1), (29, 1), (30, 2), (45, 3), (500, 3)])
def test_few_photos_get_fewer_colour_bases(n_photos: int, degree: int) -> None:
    asked = TrainOptions(sh_degree=3, photos_per_degree=15)
    budget = fit(asked, photos(n_photos), PLENTY)
    assert budget.options.sh_degree == degree
    assert any("degree" in change for change in budget.changes) == (degree < 3)
    for as_it_is in (replace(asked, photos_per_degree=0), replace(asked, strategy="adc")):
        assert fit(as_it_is, photos(n_photos), PLENTY).options.sh_degree == 3


@pytest.mark.parametrize("name", PRESETS)
def test_a_degree_that_the_user_asks_for_is_trained_with_few_photos(name: str) -> None:
    chosen = with_overrides(preset(name), {"train": {"sh_degree": 3}})
    budget = fit(chosen.train, photos(3), PLENTY)
    assert budget.options.sh_degree == 3
    assert not any("degree" in change for change in budget.changes)
    assert fit(preset(name).train, photos(3), PLENTY).options.sh_degree == 1


def test_no_degree_is_none_whatever_the_photos() -> None:
    assert fit(TrainOptions(sh_degree=0, photos_per_degree=15), photos(5), PLENTY).options.sh_degree == 0


def test_a_gaussian_takes_no_more_memory_than_is_reckoned() -> None:
    n = 50_000
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros((n, 64))
    rows[:, :3] = torch.randn((n, 3), generator=generator) + torch.tensor([0.0, 0.0, 5.0])
    rows[:, 3:6], rows[:, 6] = -5.0, 1.0
    state = TrainState.fresh(rows, generator)
    device, view = Device(n_threads=1), photos(1, 320, 240)[0].view
    image = torch.empty((3, 240, 320))
    device.forward(state.rows, camera_params(view), 3, (0.0, 0.0, 0.0), image)
    rates = AdamParams(step=1, lr_means=0.0, lr_log_scales=0.0, lr_quats=0.0, lr_opacity=0.0, lr_sh_dc=0.0, lr_sh_rest=0.0)
    device.backward_adam(state.rows, state.optimizer, torch.ones_like(image), rates)
    optimizer = state.optimizer
    held = (state.rows, optimizer.moment1, optimizer.moment2, optimizer.last_step, state.scores, state.density)
    # While rows are put in order, old and new ones exist side by side, and once more the chosen ones of one array.
    in_state = 2 * sum(tensor.nbytes for tensor in held) + state.rows.nbytes
    assert in_state + device.info().workspace_bytes <= BYTES_PER_GAUSSIAN * n


def test_free_memory_is_the_least_that_machine_and_control_group_leave(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path) == UNLIMITED
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free_memory_bytes(tmp_path) == 4000 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000000\n")
    assert free_memory_bytes(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("2000000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert free_memory_bytes(tmp_path) == 1_200_000
    assert free_memory_bytes() > 1_000_000
