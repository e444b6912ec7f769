import math

import pytest
import torch

from kernels import reference

F64 = torch.float64


def picture(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=generator, dtype=F64)


def bytes_like(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (33, 17)])
def test_ssim_of_a_picture_with_itself_is_one(generator: torch.Generator, height: int, width: int) -> None:
    image = picture(generator, height, width)
    torch.testing.assert_close(reference.ssim(image, image), torch.ones_like(image), rtol=0, atol=1e-12)


def test_ssim_does_not_care_which_picture_is_which(generator: torch.Generator) -> None:
    a, b = picture(generator, 12, 14), picture(generator, 12, 14)
    torch.testing.assert_close(reference.ssim(a, b), reference.ssim(b, a), rtol=0, atol=1e-14)
    assert float(reference.ssim(a, b).max()) < 1


def test_ssim_of_two_flat_pictures_is_the_luminance_term_away_from_the_edges() -> None:
    a, b = torch.full((3, 13, 13), 0.2, dtype=F64), torch.full((3, 13, 13), 0.7, dtype=F64)
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert float(reference.ssim(a, b)[1, 6, 6]) == pytest.approx(expected, abs=1e-12)


def test_ssim_agrees_with_sums_over_the_window_written_out(generator: torch.Generator) -> None:
    x, y = picture(generator, 8, 15), picture(generator, 8, 15)
    row, column = 2, 13  # the window leaves the picture at the top and on the right
    kernel = [math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)]
    total = sum(kernel)
    moments = torch.zeros(5, dtype=F64)
    for i in range(11):
        for j in range(11):
            r, c = row + i - 5, column + j - 5
            if 0 <= r < 8 and 0 <= c < 15:
                p, q = x[1, r, c], y[1, r, c]
                moments += kernel[i] * kernel[j] / total**2 * torch.stack([p, q, p * p, q * q, p * q])
    mx, my, xx, yy, xy = moments.tolist()
    expected = (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4) / ((mx * mx + my * my + 1e-4) * (xx - mx * mx + yy - my * my + 9e-4))
    assert float(reference.ssim(x, y)[1, row, column]) == pytest.approx(expected, abs=1e-12)


def test_loss_mixes_l1_and_ssim(generator: torch.Generator) -> None:
    image, target = picture(generator, 9, 7), bytes_like(generator, 9, 7)
    truth = target.permute(2, 0, 1).double() / 255
    losses = reference.loss(image, target, 0.2)
    assert float(losses.l1) == pytest.approx(float((image - truth).abs().mean()), abs=1e-14)
    assert float(losses.mse) == pytest.approx(float(((image - truth) ** 2).mean()), abs=1e-14)
    assert float(losses.ssim) == pytest.approx(float(reference.ssim(image, truth).mean()), abs=1e-14)
    assert float(losses.total) == pytest.approx(0.8 * float(losses.l1) + 0.2 * (1 - float(losses.ssim)), abs=1e-14)


def test_a_mask_chooses_the_pixels_of_the_means(generator: torch.Generator) -> None:
    image, target = picture(generator, 9, 7), bytes_like(generator, 9, 7)
    truth = target.permute(2, 0, 1).double() / 255
    mask = torch.zeros(9, 7, dtype=torch.uint8)
    mask[2:5, 1:4] = 1
    losses = reference.loss(image, target, 0.2, mask)
    inside = (slice(None), slice(2, 5), slice(1, 4))
    assert float(losses.l1) == pytest.approx(float((image - truth).abs()[inside].mean()), abs=1e-14)
    assert float(losses.mse) == pytest.approx(float(((image - truth) ** 2)[inside].mean()), abs=1e-14)
    assert float(losses.ssim) == pytest.approx(float(reference.ssim(image * mask, truth * mask)[inside].mean()), abs=1e-14)


def test_what_is_masked_out_leaves_no_trace(generator: torch.Generator) -> None:
    image, target = picture(generator, 9, 7).requires_grad_(True), bytes_like(generator, 9, 7)
    mask = (picture(generator, 9, 7)[0] > 0.4).to(torch.uint8)
    reference.loss(image, target, 0.2, mask).total.backward()
    assert torch.count_nonzero(image.grad[:, mask == 0]) == 0
    assert torch.count_nonzero(image.grad[:, mask == 1]) == 3 * mask.sum()
    other = torch.where((mask == 1)[..., None], target, 255 - target)
    assert torch.equal(reference.loss(image.detach(), other, 0.2, mask).total, reference.loss(image.detach(), target, 0.2, mask).total)


def test_an_empty_mask_gives_a_loss_of_zero_without_nan(generator: torch.Generator) -> None:
    image = picture(generator, 4, 4).requires_grad_(True)
    losses = reference.loss(image, bytes_like(generator, 4, 4), 0.2, torch.zeros(4, 4, dtype=torch.uint8))
    losses.total.backward()
    values = [each.detach().item() for each in (losses.total, losses.l1, losses.ssim, losses.mse)]
    assert values == [0.0, 0.0, 1.0, 0.0]
    assert torch.equal(image.grad, torch.zeros_like(image))


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_agrees_with_finite_differences(generator: torch.Generator, masked: bool) -> None:
    target = bytes_like(generator, 5, 6)
    # Offsets of at least 0.01 keep the check off the corner of |image - target|.
    offset = picture(generator, 5, 6) * 0.2 + 0.01
    image = target.permute(2, 0, 1).double() / 255 + offset * torch.where(picture(generator, 5, 6) > 0.5, 1.0, -1.0)
    mask = (picture(generator, 5, 6)[0] > 0.4).to(torch.uint8) if masked else None
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: reference.loss(x, target, 0.3, mask).total, (image,), eps=1e-6, atol=1e-8, rtol=1e-6)
