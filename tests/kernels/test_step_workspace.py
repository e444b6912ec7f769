"""What a context holds between steps, and what its profile says of the schedule."""

import pytest
import torch

from kernels.step import AdamParams, Device, OptimizerState
from tests.kernels.scenes import scene

STEPS = 6


def run_steps(device: Device, name: str, steps: int) -> list[int]:
    """Return the bytes of workspace held after each training step."""
    subject = scene(name)
    rows, camera = subject.rows.clone(), subject.camera
    n, shape = len(rows), (3, camera.height, camera.width)
    state = OptimizerState(torch.zeros(n, 64), torch.zeros(n, 64), torch.zeros(n, dtype=torch.int32))
    image, grad_image, target = torch.empty(shape), torch.empty(shape), torch.full((*shape[1:], 3), 100, dtype=torch.uint8)
    held = []
    for step in range(1, steps + 1):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), image)
        device.loss(image, target, 0.2, grad_image, target_key=1)
        adam = AdamParams(step, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, step_sh_rest=step % 2 == 0)
        device.backward_adam(rows, state, grad_image, adam)
        held.append(device.info().workspace_bytes)
    return held


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("name", ["random", "crowded", "fog"])
def test_a_step_asks_for_no_memory_once_the_first_has(name: str, n_threads: int) -> None:
    held = run_steps(Device("cpu", n_threads), name, STEPS)
    assert held[0] > 0
    assert held == held[:1] * STEPS


def test_a_smaller_scene_fits_what_a_larger_one_left() -> None:
    device = Device("cpu", 2)
    largest = run_steps(device, "crowded", 1)[0]
    assert run_steps(device, "random", 1)[0] == largest


def test_a_simulated_schedule_computes_the_same_and_ends_sooner_than_one_after_another() -> None:
    subject = scene("crowded")
    device = Device("cpu", n_threads=4)
    images = [torch.empty(3, subject.camera.height, subject.camera.width) for _ in range(2)]
    device.forward(subject.rows, subject.camera, 3, subject.background, images[0])
    device.profile(simulate=True)
    device.forward(subject.rows, subject.camera, 3, subject.background, images[1])
    profile = device.profile(enable=False)
    assert torch.equal(images[0], images[1])
    assert 0 < profile.wall_s["forward"] < profile.cpu_s["forward"]
    assert profile.wall_s["forward"] >= profile.cpu_s["forward"] / 4
    assert profile.calls["forward"] == 1
