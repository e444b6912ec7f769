"""The slow step must be a fair opponent: it draws what the specification draws and moves the same way."""

import pytest
import torch

from bench.torch_step import Example, cpu_seconds_per_step, render, step
from kernels import reference
from kernels.step import CameraParams
from kernels.tensors import GaussianTensors, to_rows


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(5)
    n = 60
    means = torch.randn((n, 3), generator=generator) * 0.6 + torch.tensor([0.0, 0.0, 3.0])
    gaussians = GaussianTensors(
        means,
        torch.randn((n, 3), generator=generator) * 0.3 - 2.5,
        torch.randn((n, 4), generator=generator),
        torch.randn(n, generator=generator),
        torch.randn((n, 9, 3), generator=generator) * 0.3,
    )
    pose = (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0)
    return gaussians, CameraParams(pose, 40.0, 40.0, 20.5, 17.0, 41, 35)


def test_it_draws_what_the_specification_draws(scene):
    image, _ = reference.render(*scene)
    assert image.max() > 0.2
    assert torch.allclose(render(*scene), image, atol=2e-3)  # the specification stops at a transmittance of 1e-4


def test_it_learns_and_its_time_is_measured(scene):
    gaussians, camera = scene
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 255, (camera.height, camera.width, 3), generator=generator, dtype=torch.uint8)
    rows = to_rows(gaussians)
    parameters = rows.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=1e-2)
    losses = [step(parameters, optimizer, Example(camera, target), 2) for _ in range(6)]
    assert losses[-1] < losses[0]
    assert cpu_seconds_per_step(rows, [Example(camera, target)], 2) > 0
