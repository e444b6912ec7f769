"""The card that the parts of ``make gpu-check`` work on. Everything also runs on the shim, whose memory is the CPU's: for trying it out."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.kernel_scene import Scene
from kernels.step import AdamParams, Device, OptimizerState

SH_DEGREE = 3
SSIM_WEIGHT = 0.2
BLACK = (0.0, 0.0, 0.0)


def is_real(device: Device) -> bool:
    """Say whether the device is a card, not the shim."""
    return device.tensors.type == "cuda"


def wait(device: Device) -> None:
    """Wait until the card has done everything."""
    if is_real(device):
        torch.cuda.synchronize(device.tensors)


def reset_peak(device: Device) -> None:
    """Give back what torch holds but does not use, and start to note the peak of what it does."""
    if is_real(device):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device.tensors)


def peak_bytes(device: Device) -> int:
    """Return the most bytes that torch's tensors took since ``reset_peak``; our kernels' workspace is not among them."""
    return torch.cuda.max_memory_allocated(device.tensors) if is_real(device) else 0


def median_ms(device: Device, work: Callable[[], object], repetitions: int, warm_up: int = 3) -> float:
    """Return the median milliseconds of a piece of work, each repetition timed by events on the card (by the clock on the shim)."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repetitions):
        if is_real(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - started))
    return float(statistics.median(times))


def per_second(device: Device, work: Callable[[], object], seconds: float, warm_up: int = 10) -> float:
    """Return how often a second a piece of work is done when it is asked for again and again; the card is waited for at the end only."""
    for _ in range(warm_up):
        work()
    wait(device)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            work()
        done += 10
        wait(device)  # once in ten: or a queue of launches could be seconds long when the time is up
    return done / (time.perf_counter() - started)


@dataclass
class OurStep:
    """Our training step on one scene: forward, loss, backward with Adam. Rates of zero: the scene stays what it is."""

    device: Device
    scene: Scene
    rest_every: int = 1  # steps to one that steps the higher colour bases
    step: int = 0

    def __post_init__(self) -> None:
        where, n = self.device.tensors, len(self.scene.rows)
        shape = (3, self.scene.camera.height, self.scene.camera.width)
        self.rows = self.scene.rows.to(where, copy=True)
        moments = [torch.zeros((n, 64), device=where) for _ in range(2)]
        self.state = OptimizerState(moments[0], moments[1], torch.zeros(n, dtype=torch.int32, device=where))
        self.image, self.grad_image = torch.empty(shape, device=where), torch.empty(shape, device=where)
        self.density = torch.zeros((n, 4), device=where)
        self.target = target_for(self.scene).to(where)

    def forward(self) -> None:
        """Render."""
        self.device.forward(self.rows, self.scene.camera, SH_DEGREE, BLACK, self.image)

    def loss(self) -> None:
        """Compare, with the gradient."""
        self.device.loss(self.image, self.target, SSIM_WEIGHT, self.grad_image, target_key=1)

    def whole(self) -> None:
        """Take the whole step."""
        self.step += 1
        self.forward()
        self.loss()
        adam = AdamParams(self.step, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, step_sh_rest=self.step % self.rest_every == 0)
        self.device.backward_adam(self.rows, self.state, self.grad_image, adam, self.density)

    def forward_backward(self, grad_rows: torch.Tensor) -> None:
        """Render, compare, and write the gradients of all rows [N, 64]."""
        self.forward()
        self.loss()
        self.device.backward(self.rows, self.grad_image, grad_rows)


def target_for(scene: Scene) -> torch.Tensor:
    """Return a photo to compare a scene with, [H, W, 3] uint8: noise, which no gradient is zero against."""
    size = (scene.camera.height, scene.camera.width, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
