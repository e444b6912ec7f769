from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kernels.step import CameraParams, Device, OptimizerState
from tests.kernels.scenes import answer, camera_at, scene
from tests.kernels.test_cpu_adam import RATES, fresh_state


@pytest.fixture(scope="module")
def one_device() -> Device:
    """The error paths are the same code for every instruction set."""
    return Device("cpu", n_threads=1)


def forward(device: Device, rows: torch.Tensor, camera: CameraParams | None = None, sh_degree: int = 3) -> torch.Tensor:
    camera = camera or scene("random").camera
    image = torch.empty(3, camera.height, camera.width)
    device.forward(rows, camera, sh_degree, (0.0, 0.0, 0.0), image)
    return image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.double(), r"rows.*float64.*float32"),
        (lambda rows: rows[:, :60].contiguous(), r"rows.*60"),
        (lambda rows: rows[0].contiguous(), r"rows.*\(64,\)|rows.*\[64\]"),
        (lambda rows: rows.T.contiguous().T, r"rows.*contiguous"),
        (lambda rows: rows[::2], r"rows.*contiguous"),
    ],
    ids=["dtype", "columns", "dimensions", "transposed", "strided"],
)
def test_wrong_rows_are_named(one_device: Device, change: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward(one_device, change(scene("random").rows))


def test_an_image_of_another_size_than_the_cameras_is_named(one_device: Device) -> None:
    subject = scene("random")
    with pytest.raises(ValueError, match="image"):
        one_device.forward(subject.rows, subject.camera, 3, (0.0, 0.0, 0.0), torch.empty(3, 37, 52))
    with pytest.raises(ValueError, match="transmittance"):
        one_device.forward(subject.rows, subject.camera, 3, (0.0, 0.0, 0.0), torch.empty(3, 37, 53), torch.empty(38, 53))


@pytest.mark.parametrize("sh_degree", [-1, 4])
def test_an_impossible_sh_degree_is_refused(one_device: Device, sh_degree: int) -> None:
    with pytest.raises(ValueError, match="sh_degree"):
        forward(one_device, scene("random").rows, sh_degree=sh_degree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "camera.width is 0, expected 1..16384 pixels"),
        ({"height": 16385}, "camera.height is 16385, expected 1..16384 pixels"),
        ({"fx": float("nan")}, "camera.fx is nan"),
        ({"fy": 0.0}, "camera.fy is 0"),
        ({"cam_from_world": (1.0,) * 11}, "cam_from_world has 11 numbers, expected 12"),
        ({"cam_from_world": (1.0,) * 6 + (float("inf"),) + (1.0,) * 5}, r"cam_from_world\[6\] is inf"),
    ],
)
def test_an_impossible_camera_is_named(one_device: Device, change: dict[str, float], message: str) -> None:
    camera = replace(camera_at((0, 0, 0)), **change)
    with pytest.raises(ValueError, match=message):
        one_device.forward(scene("random").rows, camera, 3, (0.0, 0.0, 0.0), torch.empty(3, camera.height, camera.width))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, 4, 8, 10, 12, 17, 62])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(device: Device, column: int, value: float) -> None:
    rows = scene("random").rows.clone()
    seen = answer("random").must_see.nonzero()[:, 0].tolist()
    row = next(i for i in seen if i > 40)
    rows[row, column] = value
    with pytest.raises(FloatingPointError, match=rf"params row {row}, column {column} \(.*\) is .*(nan|inf)"):
        forward(device, rows)


def test_after_an_error_the_device_works_as_before(one_device: Device) -> None:
    rows = scene("random").rows
    before = forward(one_device, rows)
    with pytest.raises(ValueError, match="rows"):
        forward(one_device, rows.double())
    spoilt = rows.clone()
    spoilt[:, 0] = float("nan")
    with pytest.raises(ValueError, match="row"):
        forward(one_device, spoilt)
    assert torch.equal(forward(one_device, rows), before)


def test_backward_without_a_forward_is_refused() -> None:
    rows = scene("random").rows
    with pytest.raises(ValueError, match="forward"):
        Device("cpu", n_threads=1).backward(rows, torch.zeros(3, 37, 53), torch.empty_like(rows))


def test_backward_with_another_number_of_gaussians_than_the_forward_is_refused(one_device: Device) -> None:
    rows = scene("random").rows
    image = forward(one_device, rows)
    with pytest.raises(ValueError, match=r"\bn\b|rows|gaussians"):
        one_device.backward(rows[:-1], image, torch.empty_like(rows[:-1]))
    with pytest.raises(ValueError, match=r"\bn\b|gaussians"):
        one_device.contribution(len(rows) + 1, torch.zeros(len(rows) + 1))


def test_backward_names_the_array_that_does_not_fit(one_device: Device) -> None:
    rows = scene("random").rows
    image = forward(one_device, rows)
    with pytest.raises(ValueError, match="grad_image"):
        one_device.backward(rows, image[:, :-1].contiguous(), torch.empty_like(rows))
    with pytest.raises(ValueError, match="grad_rows"):
        one_device.backward(rows, image, torch.empty(len(rows), 59))
    with pytest.raises(ValueError, match="density"):
        one_device.backward(rows, image, torch.empty_like(rows), density=torch.zeros(len(rows), 3))


def test_the_optimiser_names_the_array_that_does_not_fit_and_a_step_below_one(one_device: Device) -> None:
    rows = scene("random").rows.clone()
    image = forward(one_device, rows)
    state = fresh_state(len(rows))
    with pytest.raises(ValueError, match="moment2"):
        one_device.backward_adam(rows, OptimizerState(state.moment1, state.moment2[:-1], state.last_step), image, RATES)
    with pytest.raises(ValueError, match="last_step"):
        one_device.backward_adam(rows, OptimizerState(state.moment1, state.moment2, state.last_step.long()), image, RATES)
    with pytest.raises(ValueError, match="step"):
        one_device.backward_adam(rows, state, image, replace(RATES, step=0))
    assert torch.equal(rows, scene("random").rows)


def test_the_loss_names_the_array_that_does_not_fit(one_device: Device) -> None:
    image, target = torch.rand(3, 9, 8), torch.zeros(9, 8, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="target"):
        one_device.loss(image, target.permute(2, 0, 1).contiguous(), 0.2)
    with pytest.raises(ValueError, match="target"):
        one_device.loss(image, target.float(), 0.2)
    with pytest.raises(ValueError, match="mask"):
        one_device.loss(image, target, 0.2, mask=torch.ones(8, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match="grad_image"):
        one_device.loss(image, target, 0.2, torch.empty(3, 9, 9))
    with pytest.raises(ValueError, match="ssim_weight"):
        one_device.loss(image, target, float("nan"))


def test_knn_refuses_an_impossible_k_and_points_that_are_not_finite(one_device: Device) -> None:
    points = torch.rand(10, 3)
    for k in (0, 17):
        with pytest.raises(ValueError, match=r"\bk\b"):
            one_device.knn(points, k)
    points[7, 1] = float("nan")
    with pytest.raises(ValueError, match=r"points.*7.*1"):
        one_device.knn(points, 3)


def test_no_gaussians_pass_through_every_call(one_device: Device) -> None:
    rows = torch.zeros(0, 64)
    image = forward(one_device, rows)
    one_device.backward(rows, image, torch.empty(0, 64), density=torch.zeros(0, 4))
    one_device.backward_adam(rows, fresh_state(0), image, RATES)
    one_device.contribution(0, torch.zeros(0), torch.zeros(0))
    assert one_device.knn(torch.zeros(0, 3)).shape == (0,)


def test_an_unknown_instruction_set_or_device_is_named() -> None:
    with pytest.raises(ValueError, match="sse9"):
        Device("cpu", isa="sse9")
    with pytest.raises(ValueError, match="abacus"):
        Device("abacus")
