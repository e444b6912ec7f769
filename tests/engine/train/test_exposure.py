import numpy as np
import pytest
import torch

from engine.scene import Observations
from engine.train.exposure import Exposure, Samples, is_needed, pixels_at, solve_gains, spread


def some_exposure(n: int = 4) -> Exposure:
    return Exposure.starting_at(torch.linspace(-0.2, 0.2, n)[:, None].expand(n, 3) * torch.tensor([1.0, 0.5, -0.3]))


def test_a_render_is_corrected_by_its_photos_gain_and_offset() -> None:
    exposure = some_exposure()
    exposure.values[1, 1] = torch.tensor([0.1, 0.0, -0.2])
    render = torch.rand(3, 5, 7)
    corrected = render.clone()
    exposure.correct(1, corrected)
    gain = exposure.values[1, 0].exp()
    torch.testing.assert_close(corrected, gain[:, None, None] * render + exposure.values[1, 1][:, None, None])


def test_gradients_are_those_of_autograd() -> None:
    exposure = some_exposure()
    exposure.values[2, 1] = torch.tensor([0.05, -0.02, 0.01])
    render, target = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    values = exposure.values[2].double().requires_grad_(True)
    source = render.clone().requires_grad_(True)
    picture = values[0].exp()[:, None, None] * source + values[1][:, None, None]
    (picture - target).square().mean().backward()
    assert source.grad is not None
    assert values.grad is not None

    corrected = render.float()
    exposure.correct(2, corrected)
    grad = 2.0 * (corrected - target.float()) / corrected.numel()
    # Adam's first step hides the gradient's size; its moment shows it.
    exposure.learn(2, corrected, grad, rate=0.0)
    torch.testing.assert_close(grad.double(), source.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(exposure.moment1[2].double() / 0.1, values.grad, rtol=1e-3, atol=1e-6)


def test_learning_finds_the_exposure_a_photo_was_given() -> None:
    exposure = Exposure.starting_at(torch.zeros(2, 3))
    scene = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    given = [torch.tensor([0.2, 0.1, -0.1]), torch.tensor([-0.2, -0.1, 0.1])]
    for step in range(400):
        index = step % 2
        image = scene.clone()
        exposure.correct(index, image)
        grad = (image - given[index].exp()[:, None, None] * scene) / image.numel()
        exposure.learn(index, image, grad, rate=0.01)
    for index in range(2):
        torch.testing.assert_close(exposure.values[index, 0], given[index], atol=0.02, rtol=0.0)


def test_no_common_cast_can_grow() -> None:
    exposure = some_exposure()
    for step in range(50):
        image = torch.rand(3, 4, 4)
        exposure.learn(step % 4, image, torch.full((3, 4, 4), -1.0), rate=0.05)  # every photo asks for more
    assert float(exposure.values.mean(dim=0).abs().max()) < 1e-6


def test_gains_are_found_from_points_that_several_photos_show() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(-0.3, 0.3, (6, 3))
    true -= true.mean(axis=0)
    colours = np.log(rng.uniform(0.2, 0.8, (200, 3)))
    photo = rng.integers(0, 6, 2000)
    point = rng.integers(0, 200, 2000)
    seen = colours[point] + true[photo] + rng.normal(0.0, 0.02, (2000, 3))
    seen[::20] += 1.0  # glints
    gains = solve_gains(6, Samples(photo, point * 1000 + 7, seen))
    assert np.abs(gains - true).max() < 0.03
    assert np.abs(gains.mean(axis=0)).max() < 1e-9


def test_a_photo_with_few_points_keeps_its_exposure() -> None:
    photo, point = np.array([0] * 50 + [1] * 50 + [2] * 3), np.array([*range(50), *range(50), 0, 1, 2])
    gains = solve_gains(3, Samples(photo, point, np.repeat(np.array([0.1, -0.1, 5.0]), [50, 50, 3])[:, None].repeat(3, axis=1)))
    assert np.abs(gains[2]).max() < 0.2


@pytest.mark.parametrize(
    ("choice", "size", "glare", "expected"),
    [
        ("on", 0.0, 0.0, True),
        ("off", 0.5, 0.0, False),
        ("auto", 0.01, 0.0, False),
        ("auto", 0.2, 0.05, True),
        pytest.param("auto", 0.1, 0.4, False, id="photos differ more by shading than by exposure"),
    ],
)
def test_auto_corrects_where_gains_explain_how_photos_differ(choice: str, size: float, glare: float, expected: bool) -> None:
    rng = np.random.default_rng(0)
    gains = size * np.array([1.0, -1.0, 1.0, -1.0])[:, None].repeat(3, axis=1)
    photo, point = np.arange(400) % 4, np.arange(400) // 4
    samples = Samples(photo, point, gains[photo] + glare * rng.normal(size=(400, 1)).repeat(3, axis=1))
    assert spread(gains) == pytest.approx(size)
    assert is_needed(choice, gains, samples) is expected


def test_colours_are_read_where_the_places_lie() -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    seen = Observations(np.array([[0.1, 0.1], [39.9, 19.9], [40.0, 20.0], [15.0, 10.0]]), np.arange(4))
    colours = pixels_at(pixels, seen.xy / (40, 20))
    assert colours.tolist() == [pixels[y, x].tolist() for x, y in [(0, 0), (3, 1), (3, 1), (1, 1)]]
