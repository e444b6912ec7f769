import pytest
import torch

from kernels import reference
from kernels.step import Device
from tests.kernels.scenes import SCENES, answer, blend_weights, relative_error, scene

# Float32 sums over pixels, as for gradients.
TOLERANCE = 5e-5


def render(device: Device, name: str) -> None:
    subject = scene(name)
    device.forward(subject.rows, subject.camera, 3, subject.background, torch.empty(3, subject.camera.height, subject.camera.width))


@pytest.mark.parametrize("name", SCENES)
def test_density_statistics_are_the_references(device: Device, name: str) -> None:
    subject, truth = scene(name), answer(name)
    start = torch.tensor([0.5, 2.0, 0.05, 7.0]).repeat(len(subject.rows), 1)
    density = start.clone()
    render(device, name)
    device.backward(subject.rows, truth.grad_image, torch.empty_like(subject.rows), truth.grad_transmittance, density)
    expected = reference.density_statistics(start.double(), truth.grad_means2d, truth.projected, subject.camera)
    seen = density[:, 1] == 3
    assert bool((seen >= truth.must_see).all())
    assert bool((seen <= truth.may_see).all())
    assert torch.equal(density[~seen], start[~seen])
    both = seen & truth.projected.visible
    assert relative_error(density[both, 0], expected[both, 0]) < TOLERANCE
    torch.testing.assert_close(density[both, 2].double(), expected[both, 2], rtol=1e-4, atol=0)
    assert bool((density[:, 3] == 7).all())


def test_the_fused_step_gives_the_same_statistics_as_backward(device: Device) -> None:
    from tests.kernels.test_cpu_adam import RATES, fresh_state

    subject, truth = scene("random"), answer("random")
    plain, fused = torch.zeros(len(subject.rows), 4), torch.zeros(len(subject.rows), 4)
    render(device, "random")
    device.backward(subject.rows, truth.grad_image, torch.empty_like(subject.rows), density=plain)
    device.backward_adam(subject.rows.clone(), fresh_state(len(subject.rows)), truth.grad_image, RATES, fused)
    assert float(plain[:, 0].max()) > 0
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", SCENES)
def test_contribution_is_the_references(device: Device, name: str) -> None:
    subject, truth = scene(name), answer(name)
    weight_map = (torch.rand(truth.clean.shape, generator=torch.Generator().manual_seed(4)) + 0.5) * truth.clean
    weights = blend_weights(name)
    sums = (weights * weight_map).sum(dim=(1, 2))
    got_sums, got_peaks = torch.full((len(subject.rows),), 2.0), torch.full((len(subject.rows),), 0.05)
    render(device, name)
    device.contribution(len(subject.rows), got_sums, got_peaks, weight_map)
    assert relative_error(got_sums, sums + 2) < TOLERANCE
    clean, unclean = ((weights * chosen).amax(dim=(1, 2)) for chosen in (truth.clean, ~truth.clean))
    # A pair at the cut shifts the weights behind it by 1/255 of themselves. Where a clean pixel holds the peak it cannot.
    torch.testing.assert_close(got_peaks.double(), torch.maximum(clean, unclean).clamp(min=0.05), rtol=0, atol=5e-3)
    decided = clean > unclean + 5e-3
    torch.testing.assert_close(got_peaks[decided].double(), clean[decided].clamp(min=0.05), rtol=0, atol=1e-4)


def test_contribution_sums_and_peaks_may_be_asked_for_alone_and_add_up(device: Device) -> None:
    n = len(scene("random").rows)
    once, twice, peaks, peaks_again = torch.zeros(n), torch.zeros(n), torch.zeros(n), torch.zeros(n)
    render(device, "random")
    device.contribution(n, once)
    device.contribution(n, None, peaks)
    device.contribution(n, twice, peaks_again)
    device.contribution(n, twice, peaks_again)
    torch.testing.assert_close(twice, 2 * once, rtol=1e-6, atol=1e-7)
    assert torch.equal(peaks, peaks_again)
    expected, _ = reference.contribution(answer("random").projected, scene("random").camera)
    assert relative_error(once, expected) < 1e-2  # here every pixel counts, also those at the cut


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("n", [2, 5, 17, 700])
def test_knn_is_exact(device: Device, n: int, k: int) -> None:
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) * torch.tensor([1.0, 5.0, 0.1])
    torch.testing.assert_close(device.knn(points, k).double(), reference.knn(points.double(), k), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [0, 1])
def test_knn_of_nobody_is_zero(device: Device, n: int) -> None:
    assert device.knn(torch.ones(n, 3), 3).tolist() == [0.0] * n


def test_knn_survives_duplicates_clusters_and_far_outliers(device: Device) -> None:
    generator = torch.Generator().manual_seed(8)
    cluster = torch.randn(300, 3, generator=generator) * 1e-3
    points = torch.cat([cluster, cluster[:50], torch.tensor([[1e4, 0, 0], [-1e4, 5, 0]]), torch.zeros(20, 3)])
    torch.testing.assert_close(device.knn(points, 3).double(), reference.knn(points.double(), 3), rtol=1e-4, atol=1e-10)


def test_knn_of_points_on_a_line_or_in_a_plane_is_exact(device: Device) -> None:
    generator = torch.Generator().manual_seed(9)
    for columns in ([0], [0, 2]):
        points = torch.zeros(200, 3)
        points[:, columns] = torch.randn(200, len(columns), generator=generator)
        torch.testing.assert_close(device.knn(points, 4).double(), reference.knn(points.double(), 4), rtol=1e-5, atol=1e-10)
