"""Every gradient against differences of the library's own results: forward and backward are one function."""

from dataclasses import replace

import pytest
import torch

from kernels.step import CameraParams, Device
from tests.kernels.scenes import GROUPS, camera_at, relative_error

# Half the step of a central difference, large enough that float32 images tell the difference; colours enter linearly.
STEPS = {
    "means": 2e-3,
    "log_scales": 4e-3,
    "quats": 4e-3,
    "opacity": 1e-2,
    "sh_dc": 5e-2,
    "sh_red": 5e-2,
    "sh_green": 5e-2,
    "sh_blue": 5e-2,
}
# Of the largest gradient in the group. Measured 8e-4 for geometry, 1e-6 for colours; a missing term or a wrong lane shows as 0.1.
TOLERANCE = 3e-3
N = 19  # more than one vector of any width, and none of them full


def smooth_scene() -> tuple[torch.Tensor, CameraParams]:
    """Return gaussians so wide and so thin that no pixel is near the 1/255 cut, stops early, or has a colour below 0."""
    generator = torch.Generator().manual_seed(12)
    camera = replace(camera_at((0.0, 0.0, 0.0), 24, 20, focal=40.0), cx=11.0, cy=10.5)
    pose = torch.tensor(camera.cam_from_world).reshape(3, 4)
    depths = torch.linspace(3.0, 5.0, N)[torch.randperm(N, generator=generator)]
    in_camera = torch.stack([*(0.5 * torch.randn(2, N, generator=generator)), depths], dim=1)
    rows = torch.zeros(N, 64)
    rows[:, 0:3] = (in_camera - pose[:, 3]) @ pose[:, :3]  # the inverse of a rotation is its transpose
    rows[:, 3:6] = 1.2 * torch.rand(N, 3, generator=generator)
    rows[:, 6:10] = torch.nn.functional.normalize(torch.randn(N, 4, generator=generator)) * (0.5 + torch.rand(N, 1, generator=generator))
    rows[:, 10] = -2.0 + 1.5 * torch.rand(N, generator=generator)
    rows[:, 11:14] = 0.5 + torch.rand(N, 3, generator=generator)
    for line in (16, 32, 48):
        rows[:, line : line + 15] = 0.1 * torch.randn(N, 15, generator=generator)
    return rows, camera


def weighed(device: Device, rows: torch.Tensor, camera: CameraParams, by_image: torch.Tensor, by_rest: torch.Tensor) -> float:
    image, transmittance = torch.empty_like(by_image), torch.empty_like(by_rest)
    device.forward(rows, camera, 3, (0.2, 0.5, 0.8), image, transmittance)
    assert float(transmittance.min()) > 1e-3
    return float((image.double() * by_image).sum() + (transmittance.double() * by_rest).sum())


@pytest.mark.parametrize("group", GROUPS)
def test_every_parameters_gradient_is_the_difference_of_images(device: Device, group: str) -> None:
    rows, camera = smooth_scene()
    generator = torch.Generator().manual_seed(13)
    by_image, by_rest = torch.rand(3, 20, 24, generator=generator) - 0.3, torch.rand(20, 24, generator=generator) - 0.3
    weighed(device, rows, camera, by_image, by_rest)
    grad_rows = torch.full_like(rows, float("nan"))
    device.backward(rows, by_image, grad_rows, by_rest)
    gradient, difference = grad_rows[:, GROUPS[group]], torch.empty(N, GROUPS[group].stop - GROUPS[group].start, dtype=torch.float64)
    for row in range(N):
        for column in range(difference.shape[1]):
            ends = []
            for sign in (1, -1):
                moved = rows.clone()
                moved[row, GROUPS[group].start + column] += sign * STEPS[group]
                ends.append((weighed(device, moved, camera, by_image, by_rest), float(moved[row, GROUPS[group].start + column])))
            difference[row, column] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
    assert float(difference.abs().max()) > 0.01
    assert relative_error(gradient, difference) < TOLERANCE


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_the_losss_gradient_is_the_difference_of_losses(device: Device, ssim_weight: float) -> None:
    """Along random directions of a patch of pixels each; no step crosses L1's kink."""
    generator = torch.Generator().manual_seed(14)
    target = torch.randint(0, 256, (33, 41, 3), generator=generator, dtype=torch.uint8)
    truth = target.permute(2, 0, 1) / 255
    image = (
        truth + (0.05 + 0.2 * torch.rand(truth.shape, generator=generator)) * torch.randn(truth.shape, generator=generator).sign()
    ).contiguous()
    mask = (torch.rand(33, 41, generator=generator) < 0.8).to(torch.uint8)
    gradient = torch.empty_like(image)
    device.loss(image, target, ssim_weight, gradient, mask)

    def total(at: torch.Tensor) -> float:
        values = device.loss(at, target, ssim_weight, mask=mask)
        return (1 - ssim_weight) * values.l1 + ssim_weight * (1 - values.ssim)

    for y, x in ((0, 0), (12, 16), (25, 33), (0, 33), (25, 0)):  # corners and middle
        direction = torch.zeros_like(image)
        # With the gradient's own signs the sum cannot cancel; the sizes are random.
        patch = (slice(None), slice(y, y + 8), slice(x, x + 8))
        direction[patch] = gradient[patch].sign() * (0.5 + torch.rand(3, 8, 8, generator=generator))
        step = 4e-3
        difference = (total(image + step * direction) - total(image - step * direction)) / (2 * step)
        along = float((gradient.double() * direction).sum())
        assert along > 0
        assert difference == pytest.approx(along, rel=1e-3)
