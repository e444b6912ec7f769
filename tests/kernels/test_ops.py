import pytest
import torch

from kernels import ops, reference
from kernels.step import Device
from kernels.tensors import GaussianTensors, from_rows
from tests.kernels.scenes import answer, camera_at, relative_error, scene

NAMES = ("means", "log_scales", "quats", "opacity_logits", "sh")


def leaves(rows: torch.Tensor, sh_degree: int = 3) -> GaussianTensors:
    """Return the named tensors as leaves that want gradients."""
    plain = from_rows(rows, sh_degree)
    return GaussianTensors(*(getattr(plain, name).detach().clone().requires_grad_(True) for name in NAMES))


@pytest.fixture(scope="module")
def one_device() -> Device:
    return Device("cpu", n_threads=1)


@pytest.mark.parametrize("sh_degree", [0, 3])
def test_rasterize_and_its_gradients_are_the_references(one_device: Device, sh_degree: int) -> None:
    subject, truth = scene("random"), answer("random")
    results = []
    for dtype, draw in ((torch.float32, lambda g: ops.rasterize(g, subject.camera, subject.background, one_device)),
                        (torch.float64, lambda g: reference.render(g, subject.camera, subject.background))):  # fmt: skip
        gaussians = leaves(subject.rows.to(dtype), sh_degree)
        image, transmittance = draw(gaussians)
        ((image * truth.grad_image).sum() + (transmittance * truth.grad_transmittance).sum()).backward()
        results.append((image.detach(), transmittance.detach(), gaussians))
    (image, transmittance, got), (expected_image, expected_transmittance, expected) = results
    assert float(((image - expected_image).abs().amax(0) * truth.clean).max()) < 2e-5
    assert float(((transmittance - expected_transmittance).abs() * truth.clean).max()) < 2e-5
    for name in NAMES:
        assert relative_error(getattr(got, name).grad, getattr(expected, name).grad) < 1e-4, name


def test_two_views_drawn_before_one_backward_both_count(one_device: Device) -> None:
    rows = scene("random").rows
    cameras = [scene("random").camera, camera_at((1.0, 0.2, 0.0), 20, 11)]

    def gradient(chosen: list[int]) -> torch.Tensor:
        gaussians = leaves(rows)
        images = [ops.rasterize(gaussians, cameras[i], device=one_device)[0] for i in chosen]
        torch.stack([image.square().sum() for image in images]).sum().backward()
        assert gaussians.means.grad is not None
        return gaussians.means.grad

    torch.testing.assert_close(gradient([0, 1]), gradient([0]) + gradient([1]), rtol=1e-6, atol=1e-6)


def test_only_tensors_that_want_a_gradient_get_one(one_device: Device) -> None:
    plain = from_rows(scene("random").rows, 3)
    sh = plain.sh.clone().requires_grad_(True)
    gaussians = GaussianTensors(plain.means, plain.log_scales, plain.quats, plain.opacity_logits, sh)
    ops.rasterize(gaussians, scene("random").camera, device=one_device)[0].sum().backward()
    assert float(sh.grad.abs().max()) > 0
    assert plain.means.grad is None


def test_ssim_loss_and_its_gradient_are_the_references(one_device: Device, generator: torch.Generator) -> None:
    target = torch.randint(0, 256, (19, 25, 3), generator=generator, dtype=torch.uint8)
    mask = (torch.rand(19, 25, generator=generator) > 0.3).to(torch.uint8)
    image = torch.rand(3, 19, 25, generator=generator).requires_grad_(True)
    exact = image.detach().double().requires_grad_(True)
    total = ops.ssim_loss(image, target, 0.3, mask, one_device)
    (3 * total).backward()
    truth = reference.loss(exact, target, 0.3, mask).total
    (3 * truth).backward()
    assert total.item() == pytest.approx(truth.item(), abs=2e-5)
    assert relative_error(image.grad, exact.grad) < 1e-4


def test_a_scene_can_be_fitted_with_torchs_own_optimiser(one_device: Device) -> None:
    subject = scene("huge")
    with torch.no_grad():
        wanted, _ = ops.rasterize(from_rows(subject.rows, 0), subject.camera, device=one_device)
    target = (wanted.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    gaussians = leaves(subject.rows, 0)
    with torch.no_grad():
        gaussians.sh.add_(0.4)
    optimiser = torch.optim.Adam([gaussians.sh], lr=0.05)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        total = ops.ssim_loss(ops.rasterize(gaussians, subject.camera, device=one_device)[0], target, device=one_device)
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert losses[-1] < 0.5 * losses[0]


def test_gradients_of_gradients_are_refused(one_device: Device) -> None:
    gaussians = leaves(scene("random").rows)
    image, _ = ops.rasterize(gaussians, scene("random").camera, device=one_device)
    (gradient,) = torch.autograd.grad(image.square().sum(), gaussians.means, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_float64_tensors_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"torch.float64, expected torch.float32"):
        ops.rasterize(from_rows(scene("random").rows.double(), 3), scene("random").camera)
