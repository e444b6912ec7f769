"""NaN and Inf in whatever a caller hands in: refused by name, before anything is written."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch

from kernels._lib import NonFiniteError
from kernels.step import AdamParams, CameraParams, Device, OptimizerState
from tests.kernels.scenes import scene
from tests.kernels.test_cpu_adam import RATES, fresh_state

HEIGHT, WIDTH = 37, 53
BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.fixture(scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def drawn(request: pytest.FixtureRequest) -> tuple[Device, torch.Tensor]:
    """A device that has just drawn the random scene, and the scene's rows. The checks are the same code for every instruction set."""
    device, subject = Device("cpu", n_threads=request.param), scene("random")
    device.forward(subject.rows, subject.camera, 3, subject.background, torch.empty(3, HEIGHT, WIDTH))
    return device, subject.rows


def spoilt(shape: tuple[int, ...], at: tuple[int, ...], value: float) -> torch.Tensor:
    """Return zeros with one bad value, and a second one behind it which must not be the one that is told."""
    array = torch.zeros(shape)
    array[at] = value
    array.view(-1)[-1] = float("nan")
    return array


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("masked", [False, True])
def test_the_losss_image_is_looked_at_even_where_the_mask_is_zero(device: Device, value: float, masked: bool) -> None:
    image, target = spoilt((3, 40, 70), (1, 17, 60), value), torch.zeros(40, 70, 3, dtype=torch.uint8)
    mask = torch.zeros(40, 70, dtype=torch.uint8) if masked else None
    with pytest.raises(NonFiniteError, match=r"image channel 1, row 17, column 60 is .*(nan|inf)"):
        device.loss(image, target, 0.2, mask=mask)


def test_an_image_whose_squares_overflow_is_refused(device: Device) -> None:
    with pytest.raises(NonFiniteError, match="image: its finite values overflow"):
        device.loss(torch.full((3, 9, 8), 1e30), torch.zeros(9, 8, 3, dtype=torch.uint8), 0.2)


@pytest.mark.parametrize("value", BAD)
def test_backward_names_pixel_gradients_and_leaves_its_output_alone(drawn: tuple[Device, torch.Tensor], value: float) -> None:
    device, rows = drawn
    grad_rows, fine = torch.full_like(rows, 7.0), torch.zeros(3, HEIGHT, WIDTH)
    with pytest.raises(NonFiniteError, match=r"grad_image channel 2, row 36, column 5 is .*(nan|inf)"):
        device.backward(rows, spoilt((3, HEIGHT, WIDTH), (2, 36, 5), value), grad_rows)
    with pytest.raises(NonFiniteError, match=r"grad_transmittance row 0, column 52 is .*(nan|inf)"):
        device.backward(rows, fine, grad_rows, spoilt((HEIGHT, WIDTH), (0, 52), value))
    with pytest.raises(NonFiniteError, match=r"density row 149, column 0 is .*(nan|inf)"):
        device.backward(rows, fine, grad_rows, density=spoilt((len(rows), 4), (149, 0), value))
    assert bool((grad_rows == 7).all())


@pytest.mark.parametrize("value", BAD)
def test_the_fused_step_names_every_array_and_changes_nothing(drawn: tuple[Device, torch.Tensor], value: float) -> None:
    device, rows = drawn
    n, before, fine, state = len(rows), rows.clone(), torch.ones(3, HEIGHT, WIDTH), fresh_state(len(rows))
    moment = spoilt((n, 64), (88, 62), value)
    with pytest.raises(NonFiniteError, match=r"grad_image channel 0, row 3, column 0 is .*(nan|inf)"):
        device.backward_adam(rows, state, spoilt((3, HEIGHT, WIDTH), (0, 3, 0), value), RATES)
    with pytest.raises(NonFiniteError, match=r"moment1 row 88, column 62 is .*(nan|inf)"):
        device.backward_adam(rows, OptimizerState(moment, state.moment2, state.last_step), fine, RATES)
    with pytest.raises(NonFiniteError, match=r"moment2 row 88, column 62 is .*(nan|inf)"):
        device.backward_adam(rows, OptimizerState(state.moment1, moment, state.last_step), fine, RATES)
    with pytest.raises(NonFiniteError, match=r"density row 2, column 1 is .*(nan|inf)"):
        device.backward_adam(rows, state, fine, RATES, spoilt((n, 4), (2, 1), value))
    assert torch.equal(rows, before)
    assert torch.count_nonzero(state.moment1) == torch.count_nonzero(state.last_step) == 0


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", [spec.name for spec in fields(AdamParams) if spec.name not in ("step", "step_sh_rest")])
def test_every_rate_of_the_optimiser_is_named(drawn: tuple[Device, torch.Tensor], name: str, value: float) -> None:
    device, rows = drawn
    with pytest.raises(ValueError, match=rf"^{name} is .*(nan|inf)"):
        device.backward_adam(rows, fresh_state(len(rows)), torch.zeros(3, HEIGHT, WIDTH), replace(RATES, **{name: value}))


@pytest.mark.parametrize("value", BAD)
def test_contribution_names_its_arrays(drawn: tuple[Device, torch.Tensor], value: float) -> None:
    device, n = drawn[0], len(drawn[1])
    bad, good = spoilt((n,), (31,), value), torch.zeros(n)
    with pytest.raises(NonFiniteError, match=r"weight_map row 9, column 44 is .*(nan|inf)"):
        device.contribution(n, good, good.clone(), spoilt((HEIGHT, WIDTH), (9, 44), value))
    with pytest.raises(NonFiniteError, match=r"sums row 31, column 0 is .*(nan|inf)"):
        device.contribution(n, bad, good)
    with pytest.raises(NonFiniteError, match=r"peaks row 31, column 0 is .*(nan|inf)"):
        device.contribution(n, good, bad)
    assert torch.count_nonzero(good) == 0


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("n", [1, 2, 30_000])  # the last is more than one task's share
def test_knn_names_the_point(device: Device, n: int, value: float) -> None:
    with pytest.raises(NonFiniteError, match=rf"points row {n - 1}, column 1 is .*(nan|inf)"):
        device.knn(spoilt((n, 3), (n - 1, 1), value))


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_background_is_named(drawn: tuple[Device, torch.Tensor], channel: int, value: float) -> None:
    background = tuple(value if c == channel else 0.5 for c in range(3))
    with pytest.raises(ValueError, match=rf"background\[{channel}\] is .*(nan|inf)"):
        drawn[0].forward(drawn[1], scene("random").camera, 3, background, torch.empty(3, HEIGHT, WIDTH))


def with_pose(index: int) -> Callable[[CameraParams, float], CameraParams]:
    return lambda camera, value: replace(
        camera, cam_from_world=(*camera.cam_from_world[:index], value, *camera.cam_from_world[index + 1 :])
    )


def with_number(name: str) -> Callable[[CameraParams, float], CameraParams]:
    return lambda camera, value: replace(camera, **{name: value})


CAMERA = {name: with_number(name) for name in ("fx", "fy", "cx", "cy", "near_plane", "far_plane")}
POSE = {rf"cam_from_world\[{index}\]": with_pose(index) for index in range(12)}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", CAMERA | POSE)
def test_every_number_of_the_camera_is_named(drawn: tuple[Device, torch.Tensor], name: str, value: float) -> None:
    camera = (CAMERA | POSE)[name](scene("random").camera, value)
    with pytest.raises(ValueError, match=rf"camera\.{name} is .*(nan|inf)"):
        drawn[0].forward(drawn[1], camera, 3, (0.0, 0.0, 0.0), torch.empty(3, HEIGHT, WIDTH))


@pytest.mark.parametrize("column", [*range(14), *range(16, 31), *range(32, 47), *range(48, 63)])
def test_every_parameter_of_a_seen_gaussian_is_looked_at(device: Device, column: int) -> None:
    rows = scene("dense").rows.clone()
    rows[577, column] = float("inf")
    rows[577, 0:3] = rows[577, 0:3] if column < 3 else 0.0
    camera = replace(scene("dense").camera, cam_from_world=(1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3))
    with pytest.raises(NonFiniteError, match=rf"params row 577, column {column} \(.*\) is inf"):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), torch.empty(3, HEIGHT, WIDTH))
