"""The fast path: one ``Device`` per process and card, and the three calls of a training step.

This is the Python contract that the engine uses; bodies are thin ctypes calls into the C ABI (kernels/include/splat/splat.h has the
formulas). All tensors are torch, contiguous, on the device's memory; dtype and shape are checked here, once per call, by name.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CameraParams:
    """A pinhole camera: ``cam_from_world`` row-major 3×4 floats, intrinsics in pixels, pixel centres at .5."""

    cam_from_world: tuple[float, ...]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    near_plane: float = 0.01
    far_plane: float = 1e6


@dataclass(frozen=True)
class ForwardStats:
    """What a forward pass met."""

    n_visible: int
    n_instances: int


@dataclass(frozen=True)
class LossValues:
    """Means over the (masked) pixels and channels."""

    l1: float
    ssim: float
    mse: float


@dataclass(frozen=True)
class AdamParams:
    """Rates of one optimiser step; ``step`` counts from 1."""

    step: int
    lr_means: float
    lr_log_scales: float
    lr_quats: float
    lr_opacity: float
    lr_sh_dc: float
    lr_sh_rest: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-15
    opacity_reg: float = 0.0
    scale_reg: float = 0.0
    step_sh_rest: bool = True


@dataclass(frozen=True)
class OptimizerState:
    """Adam's moments, [N, 64] float32 each, and the last step each row was updated, [N] int32."""

    moment1: torch.Tensor  # [N, 64] float32
    moment2: torch.Tensor  # [N, 64] float32
    last_step: torch.Tensor  # [N] int32


class Device:
    """One device, its thread pool and its workspaces. Not for use from two threads at a time."""

    def __init__(self, device: str = "cpu", n_threads: int = 0, isa: str = "auto") -> None: ...

    def forward(
        self,
        rows: torch.Tensor,  # [N, 64] float32
        camera: CameraParams,
        sh_degree: int,
        background: tuple[float, float, float],
        image: torch.Tensor,  # out [3, H, W] float32
        transmittance: torch.Tensor | None = None,  # out [H, W] float32
    ) -> ForwardStats: ...

    def loss(
        self,
        image: torch.Tensor,  # [3, H, W] float32
        target: torch.Tensor,  # [H, W, 3] uint8
        ssim_weight: float,
        grad_image: torch.Tensor | None = None,  # out [3, H, W] float32
        mask: torch.Tensor | None = None,  # [H, W] uint8
        error_map: torch.Tensor | None = None,  # out [H, W] float32
        target_key: int = 0,
    ) -> LossValues: ...

    def backward(
        self,
        rows: torch.Tensor,  # [N, 64] float32
        grad_image: torch.Tensor,  # [3, H, W] float32
        grad_rows: torch.Tensor,  # out [N, 64] float32
        grad_transmittance: torch.Tensor | None = None,  # [H, W] float32
        density: torch.Tensor | None = None,  # in/out [N, 4] float32
    ) -> None: ...

    def backward_adam(
        self,
        rows: torch.Tensor,  # in/out [N, 64] float32
        state: OptimizerState,
        grad_image: torch.Tensor,  # [3, H, W] float32
        adam: AdamParams,
        density: torch.Tensor | None = None,  # in/out [N, 4] float32
    ) -> None: ...

    def contribution(
        self,
        n: int,
        sums: torch.Tensor | None = None,  # in/out [N] float32
        peaks: torch.Tensor | None = None,  # in/out [N] float32
        weight_map: torch.Tensor | None = None,  # [H, W] float32
    ) -> None: ...

    def knn(self, points: torch.Tensor, k: int = 3) -> torch.Tensor:  # points [N, 3] float32 -> [N] float32 mean squared distance
        ...
