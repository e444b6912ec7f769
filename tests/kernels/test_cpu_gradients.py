import pytest
import torch

from kernels import reference
from kernels.step import Device
from kernels.tensors import SPARE, from_rows
from tests.kernels.scenes import GROUPS, SCENES, Scene, answer, answer_for, degree_scene, relative_error, scene, sized_scene

# Largest difference as a share of the group's largest gradient. Measured 1.5e-5 (log-scales of needles), elsewhere 1e-6 to 8e-6; sums of
# float32 over pixels cancel. A wrong lane or a missing term shows as 1e-2 or more.
GRADIENT_TOLERANCE = 5e-5


def library_gradient(
    device: Device, subject: Scene, grad_image: torch.Tensor, grad_transmittance: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the library's gradient rows after a forward of its own; they start as NaN so that a row left out is seen."""
    image = torch.empty(3, subject.camera.height, subject.camera.width)
    device.forward(subject.rows, subject.camera, subject.sh_degree, subject.background, image)
    grad_rows = torch.full_like(subject.rows, float("nan"))
    device.backward(subject.rows, grad_image, grad_rows, grad_transmittance)
    return grad_rows


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", SCENES)
def test_every_groups_gradient_is_the_references(device: Device, name: str, group: str) -> None:
    truth, columns = answer(name), GROUPS[group]
    grad_rows = library_gradient(device, scene(name), truth.grad_image, truth.grad_transmittance)
    assert relative_error(grad_rows[:, columns], truth.grad_rows[:, columns]) < GRADIENT_TOLERANCE


@pytest.mark.parametrize("name", SCENES)
def test_the_typical_gaussians_gradient_is_right_too(device: Device, name: str) -> None:
    """A share of the largest gradient says nothing about gaussians that have small ones: compare each row with itself."""
    truth = answer(name)
    grad_rows = library_gradient(device, scene(name), truth.grad_image, truth.grad_transmittance)
    for group, columns in GROUPS.items():
        expected = truth.grad_rows[truth.must_see][:, columns]
        error = (grad_rows[truth.must_see][:, columns] - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-6)
        assert float(error.median()) < 1e-4, group  # measured 2e-5: small gradients cancel more


@pytest.mark.parametrize("name", SCENES)
def test_unseen_gaussians_and_spare_columns_get_exactly_zero(device: Device, name: str) -> None:
    truth = answer(name)
    grad_rows = library_gradient(device, scene(name), truth.grad_image, truth.grad_transmittance)
    assert torch.count_nonzero(grad_rows[~truth.may_see]) == 0
    assert torch.count_nonzero(grad_rows[:, SPARE]) == 0
    assert bool(grad_rows.isfinite().all())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (33, 17)])
def test_gradients_of_every_image_size_are_right(device: Device, width: int, height: int) -> None:
    subject = sized_scene(width, height)
    truth = answer_for(subject)
    grad_rows = library_gradient(device, subject, truth.grad_image, truth.grad_transmittance)
    for group, columns in GROUPS.items():
        assert relative_error(grad_rows[:, columns], truth.grad_rows[:, columns]) < GRADIENT_TOLERANCE, group


@pytest.mark.parametrize("sh_degree", [0, 1, 2])
def test_bases_above_the_degree_get_zero(device: Device, sh_degree: int) -> None:
    subject = degree_scene(sh_degree)
    truth = answer_for(subject)
    grad_rows = library_gradient(device, subject, truth.grad_image, truth.grad_transmittance)
    rest = (sh_degree + 1) ** 2 - 1
    assert torch.count_nonzero(grad_rows[:, 16 + rest : 32]) == 0
    for group, columns in GROUPS.items():
        assert relative_error(grad_rows[:, columns], truth.grad_rows[:, columns]) < GRADIENT_TOLERANCE, group


def test_without_a_transmittance_gradient_it_counts_as_zero(device: Device) -> None:
    truth, subject = answer("random"), scene("random")
    absent = library_gradient(device, subject, truth.grad_image)
    zero = library_gradient(device, subject, truth.grad_image, torch.zeros_like(truth.grad_transmittance))
    assert torch.equal(absent, zero)


def test_gradients_of_stopped_pixels_are_as_small_as_what_was_left(device: Device, generator: torch.Generator) -> None:
    """At pixels that stop early a kernel may go on for a while: its gradient lies near those of stopping at 1e-4 and at 0."""
    subject, truth = scene("solid"), answer("solid")
    grad_image = torch.randn(truth.image.shape, generator=generator) * truth.saturated
    rows = subject.rows.double().requires_grad_(True)
    image, _ = reference.rasterize(reference.project(from_rows(rows, 3), subject.camera), subject.camera, subject.background, 0.0)
    (image * grad_image).sum().backward()
    grad_rows = library_gradient(device, subject, grad_image)
    for group in ("means", "log_scales", "quats", "opacity", "sh_dc"):
        assert relative_error(grad_rows[:, GROUPS[group]], rows.grad[:, GROUPS[group]]) < 5e-3, group


def test_backward_may_be_called_twice_after_one_forward(device: Device) -> None:
    subject, truth = scene("needles"), answer("needles")
    first = library_gradient(device, subject, truth.grad_image)
    again = torch.empty_like(first)
    device.backward(subject.rows, truth.grad_image, again)
    assert torch.equal(again, first)


def test_a_step_against_the_gradient_lowers_the_value_by_its_length(device: Device) -> None:
    """The library's gradient predicts the library's own image: a check that needs no reference."""
    subject, truth = scene("huge"), answer("huge")
    grad_rows = library_gradient(device, subject, truth.grad_image)

    def value(rows: torch.Tensor) -> float:
        image = torch.empty_like(truth.grad_image)
        device.forward(rows, subject.camera, subject.sh_degree, subject.background, image)
        return float((image.double() * truth.grad_image).sum())

    step = 2e-3 / float(grad_rows.double().norm())
    change = value(subject.rows + step * grad_rows) - value(subject.rows - step * grad_rows)
    assert change == pytest.approx(2 * step * float(grad_rows.double().norm()) ** 2, rel=0.02)
