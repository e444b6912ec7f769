"""What is particular to a card, or its shim: memory, order of threads, steps that do not wait. test_cpu_*.py have the rest."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from kernels import _lib
from kernels.step import AdamParams, Device, OptimizerState
from kernels.tensors import ROW
from tests.kernels.conftest import card
from tests.kernels.scenes import scene, sized_scene

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(name="cuda")
def fixture_cuda() -> Device:
    """A card that waits for each call."""
    return card()


def trained(device: Device, steps: int = 4, name: str = "random") -> tuple[torch.Tensor, OptimizerState, list[float]]:
    """Return rows, moments and losses after a few steps towards a grey picture."""
    subject = scene(name)
    where = device.tensors
    rows, camera = subject.rows.clone().to(where), subject.camera
    n, shape = len(rows), (3, camera.height, camera.width)
    state = OptimizerState(*(torch.zeros(n, ROW, device=where) for _ in range(2)), torch.zeros(n, dtype=torch.int32, device=where))
    image, grad_image = torch.empty(shape, device=where), torch.empty(shape, device=where)
    target = torch.full((*shape[1:], 3), 100, dtype=torch.uint8, device=where)
    losses = []
    for step in range(1, steps + 1):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), image)
        losses.append(device.loss(image, target, 0.2, grad_image).mse)
        device.backward_adam(rows, state, grad_image, AdamParams(step, 1e-3, 1e-3, 1e-3, 1e-2, 1e-2, 1e-3, step_sh_rest=step % 2 == 0))
    return rows, state, losses


def test_two_cuda_runs_give_the_same_bits(cuda: Device) -> None:
    """No sum depends on the order in which blocks, warps or threads come by: the shim takes another order every time."""
    first, second = trained(cuda), trained(cuda)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].moment2, second[1].moment2)
    assert first[2] == second[2]


def test_cuda_steps_that_do_not_wait_change_nothing_but_when_values_are_told(cuda: Device) -> None:
    waiting, hurried = trained(cuda), trained(card(waits=False))
    assert torch.equal(waiting[0], hurried[0])
    assert torch.equal(waiting[1].moment1, hurried[1].moment1)
    assert hurried[2][2:] == waiting[2][1:-1], "the loss told is that of the step before"


def walked(device: Device, sizes: list[int], steps: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and the last image after steps from cameras that move, their pictures of so many pixels each way in turns."""
    subject = scene("random")
    where, n = device.tensors, len(subject.rows)
    rows = subject.rows.clone().to(where)
    state = OptimizerState(*(torch.zeros(n, ROW, device=where) for _ in range(2)), torch.zeros(n, dtype=torch.int32, device=where))
    image = torch.empty(0)
    for step in range(1, steps + 1):
        side = sizes[step % len(sizes)]
        pose = list(subject.camera.cam_from_world)
        pose[3] += 0.01 * step
        camera = replace(subject.camera, cam_from_world=tuple(pose), width=side, height=side)
        image, grad_image = torch.empty((3, side, side), device=where), torch.empty((3, side, side), device=where)
        target = torch.full((side, side, 3), 10 * step, dtype=torch.uint8, device=where)
        device.forward(rows, camera, 3, (0.0, 0.1 * step, 0.0), image)
        device.loss(image, target, 0.2, grad_image)
        device.backward_adam(rows, state, grad_image, AdamParams(step, 1e-3, 1e-3, 1e-3, 1e-2, 1e-2, 1e-3, step_sh_rest=step % 4 == 0))
    return rows.cpu(), image.cpu()


def test_steps_by_graphs_are_steps_without_them_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras, backgrounds, targets and rates differ in every step: all of it is written into the graph that is launched again."""
    monkeypatch.setenv("SPLATWORKS_GRAPHS", "0")
    plain = card(waits=False)
    rows, image = walked(plain, [48])
    monkeypatch.setenv("SPLATWORKS_GRAPHS", "1")
    replayed = card(waits=False)
    same = walked(replayed, [48])
    assert torch.equal(rows, same[0])
    assert torch.equal(image, same[1])
    assert plain.info().n_replays == 0
    assert replayed.info().n_replays >= 8, "the first frames make room; from then on the same is asked for"


@pytest.mark.parametrize("sizes", [[48, 33], [48, 48, 48, 48, 33]])
def test_graphs_follow_pictures_that_change_their_size(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setenv("SPLATWORKS_GRAPHS", "1")
    waiting, replayed = walked(card(), sizes, 20), walked(card(waits=False), sizes, 20)
    assert torch.equal(waiting[0], replayed[0])
    assert torch.equal(waiting[1], replayed[1])


def test_pictures_of_two_sizes_in_turns_are_not_waited_for() -> None:
    """What is told without waiting is of the frame before; a frame that had to be counted first tells its own."""
    device, subject = card(waits=False), scene("random")
    rows, told = subject.rows.to(device.tensors), []
    for side in (64, 16, 64, 16, 64):
        image = torch.empty((3, side, side), device=device.tensors)
        camera = replace(subject.camera, width=side, height=side)
        told.append(device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image).n_instances)
    large, small = told[:2]
    assert large > small > 0
    assert told[2:] == [small, large, small]


def test_a_runtime_that_refuses_graphs_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLAT_SHIM_GRAPHS", "0")  # the shim's; a card has nothing to refuse for
    monkeypatch.delenv("SPLATWORKS_GRAPHS", raising=False)
    device = card(waits=False)
    if device.info().name != "shim":
        pytest.skip("only the shim refuses when it is told to")
    assert torch.equal(walked(device, [48])[0], walked(card(), [48])[0])
    assert device.info().n_replays == 0


def test_a_graph_is_not_launched_for_a_frame_that_was_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call gathered before it was refused is forgotten, and the next call does its own work."""
    monkeypatch.setenv("SPLATWORKS_GRAPHS", "1")
    device, subject = card(waits=False), scene("random")
    where, camera = device.tensors, subject.camera
    image = torch.empty((3, camera.height, camera.width), device=where)
    rows = subject.rows.to(where)
    for _ in range(4):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), image)
    kept = image.clone()
    broken = rows.clone()
    broken[5, 4] = float("nan")
    device.forward(broken, camera, 3, (0.0, 0.0, 0.0), image)
    with pytest.raises(_lib.NonFiniteError, match="row 5"):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), image)
    for _ in range(2):
        device.forward(rows, camera, 3, (0.0, 0.0, 0.0), image)
    assert torch.equal(image, kept)


@pytest.mark.parametrize("name", ["rows", "moment1", "moment2"])
def test_rows_that_begin_between_16_bytes_are_refused(cuda: Device, name: str) -> None:
    subject = scene("random")
    where, n = cuda.tensors, len(subject.rows)
    camera = subject.camera
    arrays = {}
    for each in ("rows", "moment1", "moment2"):
        begin = int(each == name)
        arrays[each] = torch.zeros(n * ROW + 1, device=where)[begin : begin + n * ROW].view(n, ROW)
    arrays["rows"].copy_(subject.rows)
    image = torch.empty((3, camera.height, camera.width), device=where)
    state = OptimizerState(arrays["moment1"], arrays["moment2"], torch.zeros(n, dtype=torch.int32, device=where))
    with pytest.raises(ValueError, match="16 bytes"):  # noqa: PT012 - either call may be the one that refuses
        cuda.forward(arrays["rows"], camera, 3, (0.0, 0.0, 0.0), image)
        cuda.backward_adam(arrays["rows"], state, image, AdamParams(1, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3))


def test_a_cuda_step_that_outgrows_its_room_changes_nothing_and_the_next_has_room() -> None:
    device, far = card(waits=False), scene("random")
    where = device.tensors
    rows, camera = far.rows.clone().to(where), far.camera
    rows[:, 3:6] -= 4.0
    n, shape = len(rows), (3, camera.height, camera.width)
    state = OptimizerState(*(torch.zeros(n, ROW, device=where) for _ in range(2)), torch.zeros(n, dtype=torch.int32, device=where))
    image, grad_image = torch.empty(shape, device=where), torch.full(shape, 1e-3, device=where)
    small = device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image).n_instances
    rows[:, 3:6] += 5.0  # many more tiles each
    before = rows.clone()
    for step in (1, 2):
        device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image)
        device.backward_adam(rows, state, grad_image, AdamParams(step, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2))
        torch.cuda.synchronize() if where.type == "cuda" else None
        assert torch.equal(rows, before) == (step == 1)
    assert device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image).n_instances > 2 * small


def test_a_gradient_that_is_not_finite_is_told_a_step_later_and_not_taken() -> None:
    device, subject = card(waits=False), scene("random")
    where = device.tensors
    rows, camera = subject.rows.clone().to(where), subject.camera
    n, shape = len(rows), (3, camera.height, camera.width)
    state = OptimizerState(*(torch.zeros(n, ROW, device=where) for _ in range(2)), torch.zeros(n, dtype=torch.int32, device=where))
    image, grad_image = torch.empty(shape, device=where), torch.full(shape, float("nan"), device=where)
    device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image)
    device.backward_adam(rows, state, grad_image, AdamParams(1, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2))
    with pytest.raises(_lib.NonFiniteError, match="grad_image of the step before"):
        device.forward(rows, camera, 0, (0.0, 0.0, 0.0), image)
    assert torch.equal(rows.cpu(), subject.rows)


def test_a_cuda_step_asks_for_no_memory_once_the_first_has(cuda: Device) -> None:
    trained(cuda, steps=1, name="crowded")
    held = cuda.info().workspace_bytes
    trained(cuda, steps=2, name="crowded")
    trained(cuda, steps=1, name="random")
    assert cuda.info().workspace_bytes == held


def test_tiles_of_large_pictures_are_told_apart(cuda: Device) -> None:
    """More than 65,535 tiles need the long keys."""
    subject = sized_scene(64, 31)
    wide = torch.empty(3, 4, 16384, device=cuda.tensors), torch.empty(3, 2048, 16384, device=cuda.tensors)
    pictures = []
    for image in wide[:1] if cuda.tensors.type == "cpu" else wide:
        camera = type(subject.camera)(**{**vars(subject.camera), "width": image.shape[2], "height": image.shape[1]})
        cuda.forward(subject.rows.to(cuda.tensors), camera, 3, subject.background, image)
        pictures.append(image[:, :4, :64].cpu())
    assert all(torch.equal(pictures[0], each) for each in pictures)


def test_no_such_card_is_refused_by_number(cuda: Device) -> None:
    assert cuda.info().name
    with pytest.raises(RuntimeError, match="no CUDA card 63"):
        Device("cuda:63")
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
        Device("cuda:first")


def test_running_out_of_a_cards_memory_is_told_in_bytes(cuda: Device) -> None:
    """The shim's memory can be limited; a card's tests of this are in bench/gpu_check."""
    if cuda.info().name != "shim":
        pytest.skip("only the shim's memory can be limited")
    code = (
        "import torch\nfrom kernels.step import Device\nfrom tests.kernels.scenes import scene\n"
        "subject = scene('crowded')\nimage = torch.empty(3, subject.camera.height, subject.camera.width)\n"
        "try:\n    Device('cuda').forward(subject.rows, subject.camera, 3, subject.background, image)\n"
        "except MemoryError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "SPLAT_SHIM_MEMORY": "300000"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "bytes could not be had" in done.stdout
