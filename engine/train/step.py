"""The state of a training run, and one step of it as a straight line."""

from dataclasses import dataclass

import torch

from engine.gaussians import ROW
from engine.render import BLACK, camera_params
from engine.scene import PinholeView
from engine.train.exposure import Exposure
from engine.train.schedule import StepPlan
from kernels.step import DENSITY, Device, LossValues, OptimizerState

CPU = torch.device("cpu")


@dataclass
class TrainState:
    """Everything a run changes; the only mutable object of training. Rows change in number through ``resize_rows`` alone.

    Its tensors are on the run's device. The generator is the CPU's on every device: draws are made there and moved, so that all devices
    draw the same and a checkpoint fits them all.
    """

    rows: torch.Tensor  # [N, 64] float32
    optimizer: OptimizerState
    scores: torch.Tensor  # [N] float32: error charged to each gaussian since the last refinement
    generator: torch.Generator
    density: torch.Tensor  # [N, 4] float32: the kernels' statistics since the last refinement, where the plan asks for them
    step: int = 0
    exposure: Exposure | None = None  # of the training photos, where they need it

    @classmethod
    def fresh(cls, rows: torch.Tensor, generator: torch.Generator, exposure: Exposure | None = None) -> "TrainState":
        """Return the state before the first step."""
        n, where = len(rows), rows.device
        moments = [torch.zeros((n, ROW), device=where) for _ in range(2)]
        optimizer = OptimizerState(moments[0], moments[1], torch.zeros(n, dtype=torch.int32, device=where))
        density = torch.zeros((n, DENSITY), device=where)
        return cls(rows, optimizer, torch.zeros(n, device=where), generator, density, exposure=exposure)

    def resize_rows(self, keep: torch.Tensor, added: torch.Tensor) -> None:
        """Keep the rows that ``keep`` names (int64, in this order) and append ``added`` [A, 64] with moments of zero."""
        n_added, where = len(added), self.rows.device
        self.rows = torch.cat([self.rows[keep], added])
        self.optimizer = OptimizerState(
            torch.cat([self.optimizer.moment1[keep], torch.zeros((n_added, ROW), device=where)]),
            torch.cat([self.optimizer.moment2[keep], torch.zeros((n_added, ROW), device=where)]),
            torch.cat([self.optimizer.last_step[keep], torch.full((n_added,), self.step, dtype=torch.int32, device=where)]),
        )
        self.scores = torch.zeros(len(self.rows), device=where)
        self.density = torch.zeros((len(self.rows), DENSITY), device=where)


@dataclass(frozen=True)
class Buffers:
    """Pictures of one size that a step writes to; kept between steps so that a step allocates nothing."""

    image: torch.Tensor  # [3, H, W] float32
    grad_image: torch.Tensor  # [3, H, W] float32
    error_map: torch.Tensor  # [H, W] float32

    @classmethod
    def of(cls, height: int, width: int, where: torch.device = CPU) -> "Buffers":
        """Return buffers for pictures of a size."""
        image, grad_image = (torch.empty((3, height, width), device=where) for _ in range(2))
        return cls(image, grad_image, torch.empty((height, width), device=where))


@dataclass(frozen=True)
class Example:
    """One photo at the size of the step."""

    view: PinholeView
    pixels: torch.Tensor  # [H, W, 3] uint8
    index: int  # of the photo among those trained on
    key: int  # names pixels and mask, so that what depends on them alone is computed once
    mask: torch.Tensor | None = None  # [H, W] uint8, 0 where the photo shows what the scene shall not have; not compared there
    alpha: torch.Tensor | None = None  # [H, W] uint8, coverage of a cut-out, whose ``pixels`` are as over black
    background: tuple[float, float, float] = BLACK  # what is behind the gaussians, and behind a cut-out


def train_step(device: Device, state: TrainState, example: Example, plan: StepPlan, ssim_weight: float, buffers: Buffers) -> LossValues:
    """Render, compare, and move the gaussians: three calls. With ``plan.score``, charge the error to the gaussians that made it."""
    state.step = plan.adam.step
    device.forward(state.rows, camera_params(example.view), plan.sh_degree, example.background, buffers.image)
    if state.exposure is not None:
        state.exposure.correct(example.index, buffers.image)
    error_map = buffers.error_map if plan.score else None
    loss = device.loss(
        buffers.image,
        example.pixels,
        ssim_weight,
        grad_image=buffers.grad_image,
        mask=example.mask,
        error_map=error_map,
        target_key=example.key,
    )
    if plan.score:
        device.contribution(len(state.rows), sums=state.scores, weight_map=buffers.error_map)
    if state.exposure is not None:
        state.exposure.learn(example.index, buffers.image, buffers.grad_image, plan.lr_exposure)
    device.backward_adam(state.rows, state.optimizer, buffers.grad_image, plan.adam, density=state.density if plan.measure else None)
    return loss
