import pytest
import torch

from kernels.step import Device, LossValues
from tests.kernels.conftest import machine_isas
from tests.kernels.scenes import SCENES, answer, scene, sized_scene
from tests.kernels.test_cpu_adam import RATES, fresh_state

THREADS = (1, 2, 5)


@pytest.fixture(scope="module", params=["avx512", "avx2", "generic"])
def devices(request: pytest.FixtureRequest) -> list[Device]:
    """Devices of one instruction set that differ only in their number of threads."""
    if request.param not in machine_isas():
        pytest.skip(f"this machine has no {request.param}")
    return [Device("cpu", n_threads=count, isa=request.param) for count in THREADS]


def whole_step(device: Device, name: str) -> tuple[list[torch.Tensor], LossValues]:
    """Return every array that a step and its companions write, and the loss."""
    subject, n = scene(name), len(scene(name).rows)
    rows, state = subject.rows.clone(), fresh_state(n)
    image, transmittance = torch.empty(3, subject.camera.height, subject.camera.width), torch.empty_like(answer(name).grad_transmittance)
    device.forward(rows, subject.camera, 3, subject.background, image, transmittance)
    target = (answer(name).image.clamp(0, 1) * 200).to(torch.uint8).permute(1, 2, 0).contiguous()
    grad_image, error_map = torch.empty_like(image), torch.empty_like(transmittance)
    values = device.loss(image, target, 0.2, grad_image, error_map=error_map)
    grad_rows, density, sums, peaks = torch.empty_like(rows), torch.zeros(n, 4), torch.zeros(n), torch.zeros(n)
    device.backward(rows, grad_image, grad_rows)
    device.contribution(n, sums, peaks, transmittance)
    device.backward_adam(rows, state, grad_image, RATES, density)
    near = device.knn(subject.rows[:, :3].contiguous(), 3)
    arrays = [image, transmittance, grad_image, error_map, grad_rows, sums, peaks, rows, state.moment1, state.moment2, density, near]
    return arrays, values


@pytest.mark.parametrize("name", SCENES)
def test_any_number_of_threads_gives_the_same_bits(devices: list[Device], name: str) -> None:
    expected, values = whole_step(devices[0], name)
    assert all(bool(array.isfinite().all()) for array in expected)
    for each in devices[1:]:
        arrays, other_values = whole_step(each, name)
        assert other_values == values
        for i, (array, truth) in enumerate(zip(arrays, expected, strict=True)):
            assert torch.equal(array, truth), f"array {i}"


def test_running_again_gives_the_same_bits(devices: list[Device]) -> None:
    for each in devices:
        first, _ = whole_step(each, "dense")
        whole_step(each, "huge")
        again, _ = whole_step(each, "dense")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", SCENES)
def test_instruction_sets_agree_on_gradients(name: str) -> None:
    subject, truth = scene(name), answer(name)
    gradients = []
    for isa in machine_isas():
        each = Device("cpu", n_threads=1, isa=isa)
        each.forward(subject.rows, subject.camera, 3, subject.background, torch.empty_like(truth.grad_image))
        gradients.append(torch.empty_like(subject.rows))
        each.backward(subject.rows, truth.grad_image, gradients[-1])
    for other in gradients[1:]:
        assert float((other - gradients[0]).abs().max() / gradients[0].abs().max()) < 2e-4


def test_a_scene_of_many_chunks_and_tiles_gives_the_same_bits(devices: list[Device]) -> None:
    """20 000 gaussians on 270 × 480 pixels: enough for every thread to take part in every stage."""
    subject = sized_scene(270, 480, 20_000)
    grad_image = torch.randn(3, 480, 270, generator=torch.Generator().manual_seed(6))
    results = []
    for each in devices:
        image, grad_rows, density = torch.empty(3, 480, 270), torch.empty_like(subject.rows), torch.zeros(20_000, 4)
        stats = each.forward(subject.rows, subject.camera, 2, subject.background, image)
        each.backward(subject.rows, grad_image, grad_rows, density=density)
        results.append((stats, image, grad_rows, density))
    assert results[0][0].n_visible > 5_000
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert all(torch.equal(a, b) for a, b in zip(other[1:], results[0][1:], strict=True))
