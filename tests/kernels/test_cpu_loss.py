import functools

import pytest
import torch

from kernels import reference
from kernels.step import Device
from tests.kernels.scenes import relative_error

SIZES = [(1, 1), (1, 23), (23, 1), (17, 33), (11, 64), (40, 16), (480, 270)]  # height, width
# Means over pixels, measured 1.7e-6. SSIM divides by variances plus 9e-4, which float32 knows to 1e-7 of the mean square.
VALUE_TOLERANCE = 1e-5
# Largest difference of dloss/dimage as a share of its largest value; measured 2e-6 on noise, 4e-5 on nearly flat pictures for that reason.
GRADIENT_TOLERANCE = {"noise": 1e-5, "smooth": 2e-4}


def pictures(height: int, width: int, smooth: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image and a target that differ everywhere, noise or nearly flat (where SSIM cancels most)."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    target = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    if smooth:
        target = (torch.arange(height)[:, None, None] // 3 % 40 + 200).expand(height, width, 3).to(torch.uint8).contiguous()
    noise = torch.randn(3, height, width, generator=generator) * (0.02 if smooth else 0.2)
    # At least 1e-4 apart: the sign of image - target must not be a matter of rounding.
    apart = torch.where(noise < 0, noise.clamp(max=-1e-4), noise.clamp(min=1e-4))
    return (target.permute(2, 0, 1) / 255 + apart).contiguous(), target


def checkered(height: int, width: int) -> torch.Tensor:
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((ys // 4 + xs // 7) % 3 != 1).to(torch.uint8)


@functools.cache
def expected(height: int, width: int, smooth: bool, masked: bool) -> tuple[list[float], torch.Tensor]:
    """Return the reference's l1, ssim and mse at SSIM weight 0.2, and its gradient: once for all instruction sets."""
    image, target = pictures(height, width, smooth)
    exact = image.double().requires_grad_(True)
    truth = reference.loss(exact, target, 0.2, checkered(height, width) if masked else None)
    truth.total.backward()
    assert exact.grad is not None
    return [truth.l1.item(), truth.ssim.item(), truth.mse.item()], exact.grad


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("smooth", [False, True], ids=["noise", "smooth"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_loss_and_its_gradient_are_the_references(device: Device, height: int, width: int, smooth: bool, masked: bool) -> None:
    image, target = pictures(height, width, smooth)
    mask = checkered(height, width) if masked else None
    true_values, true_gradient = expected(height, width, smooth, masked)
    grad_image = torch.full_like(image, float("nan"))
    values = device.loss(image, target, 0.2, grad_image, mask)
    assert [values.l1, values.ssim, values.mse] == pytest.approx(true_values, abs=VALUE_TOLERANCE)
    assert relative_error(grad_image, true_gradient) < GRADIENT_TOLERANCE["smooth" if smooth else "noise"]


@pytest.mark.parametrize("ssim_weight", [0.0, 1.0])
def test_either_part_alone_is_right(device: Device, ssim_weight: float) -> None:
    image, target = pictures(21, 38)
    exact = image.double().requires_grad_(True)
    reference.loss(exact, target, ssim_weight).total.backward()
    grad_image = torch.full_like(image, float("nan"))
    device.loss(image, target, ssim_weight, grad_image)
    assert relative_error(grad_image, exact.grad) < GRADIENT_TOLERANCE["noise"]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (40, 70)])
def test_the_error_map_is_one_minus_ssim_at_each_pixel(device: Device, height: int, width: int) -> None:
    image, target = pictures(height, width)
    error_map = torch.full((height, width), float("nan"))
    device.loss(image, target, 0.2, error_map=error_map)
    true_map = (1 - reference.ssim(image.double(), target.permute(2, 0, 1).double() / 255)).mean(0)
    torch.testing.assert_close(error_map.double(), true_map, rtol=0, atol=1e-5)  # measured 1e-6


def test_what_is_masked_out_leaves_no_trace(device: Device) -> None:
    image, target = pictures(40, 70)
    mask = checkered(40, 70)
    grad_image, error_map = torch.full_like(image, float("nan")), torch.full((40, 70), float("nan"))
    values = device.loss(image, target, 0.2, grad_image, mask, error_map)
    assert torch.count_nonzero(grad_image[:, mask == 0]) == torch.count_nonzero(error_map[mask == 0]) == 0
    other_image = torch.where(mask == 1, image, 7.0)
    other_target = torch.where((mask == 1)[..., None], target, 255 - target)
    assert device.loss(other_image, other_target, 0.2, mask=mask) == values


def test_a_perfect_image_has_no_loss_and_no_gradient(device: Device) -> None:
    _, target = pictures(35, 50)
    image = (target.permute(2, 0, 1).float() / 255).contiguous()
    grad_image = torch.full_like(image, float("nan"))
    values = device.loss(image, target, 1.0, grad_image)
    # The library may multiply by 1/255 where torch divides: half a unit in the last place of difference.
    assert values.l1 == pytest.approx(0, abs=1e-7)
    assert values.ssim == pytest.approx(1, abs=1e-6)
    assert float(grad_image.abs().max()) < 1e-7


def test_an_empty_mask_gives_no_loss_and_no_gradient(device: Device) -> None:
    image, target = pictures(12, 9)
    grad_image = torch.full_like(image, float("nan"))
    values = device.loss(image, target, 0.2, grad_image, torch.zeros(12, 9, dtype=torch.uint8))
    assert (values.l1, values.ssim, values.mse) == (0.0, 1.0, 0.0)
    assert torch.count_nonzero(grad_image) == 0


def test_values_do_not_depend_on_what_else_is_asked_for(device: Device) -> None:
    image, target = pictures(37, 53)
    alone = device.loss(image, target, 0.2)
    with_all = device.loss(image, target, 0.2, torch.empty_like(image), None, torch.empty(37, 53))
    assert alone == with_all


def test_a_kept_target_gives_the_same_bits_and_another_key_another_target(device: Device) -> None:
    image, target = pictures(37, 53)
    other_target = target.flip(0).contiguous()
    mask = checkered(37, 53)
    plain, kept, changed = (torch.empty_like(image) for _ in range(3))
    first = device.loss(image, target, 0.2, plain, mask)
    other = device.loss(image, other_target, 0.2, torch.empty_like(image), mask)
    for _ in range(2):
        assert device.loss(image, target, 0.2, kept, mask, target_key=5) == first
        assert torch.equal(kept, plain)
        assert device.loss(image, other_target, 0.2, changed, mask, target_key=6) == other


def test_a_kept_target_of_another_size_is_not_mixed_up(device: Device) -> None:
    image, target = pictures(37, 53)
    small_image, small_target = pictures(5, 8)
    large, small = device.loss(image, target, 0.2), device.loss(small_image, small_target, 0.2)
    assert device.loss(image, target, 0.2, target_key=1) == large
    assert device.loss(small_image, small_target, 0.2, target_key=2) == small
    assert device.loss(image, target, 0.2, target_key=1) == large
