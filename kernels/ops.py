"""The optional autograd front door: kernels as differentiable torch functions, for users with losses and optimisers of their own.

The engine's trainer does not come this way: ``kernels.step`` is three calls a step, fused with the optimiser.
"""

from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from kernels.step import CameraParams, Device
from kernels.tensors import GaussianTensors, to_rows

Colour = tuple[float, float, float]


@cache
def default_device() -> Device:
    """Return the CPU device that calls without one share: all cores, the best instruction set there is."""
    return Device("cpu")


def rasterize(
    gaussians: GaussianTensors, camera: CameraParams, background: Colour = (0.0, 0.0, 0.0), device: Device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image [3, H, W] and the transmittance [H, W] of the gaussians (float32); differentiable once, in all five tensors.

    The backward pass renders again, so any number of views may be drawn before it. Raises ``ValueError`` for tensors that are not
    float32 on the device. Formulas: ``kernels.reference.render``.
    """
    rows = to_rows(gaussians)
    if rows.dtype != torch.float32:
        raise ValueError(f"the gaussians are {rows.dtype}, expected torch.float32: call .float() on them")
    image, transmittance = _apply_rasterize(rows.contiguous(), camera, gaussians.sh_degree, background, device or default_device())
    return image, transmittance


def ssim_loss(
    image: torch.Tensor, target: torch.Tensor, ssim_weight: float = 0.2, mask: torch.Tensor | None = None, device: Device | None = None
) -> torch.Tensor:
    """Return (1 - w) · L1 + w · (1 - SSIM) as a scalar; differentiable once, in ``image``.

    ``image`` is [3, H, W] float32, ``target`` [H, W, 3] uint8, ``mask`` [H, W] uint8 or None for all pixels. Raises ``ValueError``
    for other dtypes and shapes. Formulas: ``kernels.reference.loss``.
    """
    total: torch.Tensor = _apply_ssim_loss(image.contiguous(), target, ssim_weight, mask, device or default_device())
    return total


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, camera: CameraParams, sh_degree: int, background: Colour, device: Device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.empty(3, camera.height, camera.width)
        transmittance = torch.empty(camera.height, camera.width)
        device.forward(rows, camera, sh_degree, background, image, transmittance)
        ctx.save_for_backward(rows)
        ctx.call = (camera, sh_degree, background, device)
        return image, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: torch.Tensor, grad_transmittance: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (rows,) = ctx.saved_tensors
        camera, sh_degree, background, device = ctx.call
        # The context keeps only its last forward, and another view or another user may have come in between.
        device.forward(rows, camera, sh_degree, background, torch.empty_like(grad_image))
        grad_rows = torch.empty_like(rows)
        device.backward(rows, grad_image.contiguous(), grad_rows, grad_transmittance.contiguous())
        return grad_rows, None, None, None, None


class _SsimLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: torch.Tensor, target: torch.Tensor, ssim_weight: float, mask: torch.Tensor | None, device: Device
    ) -> torch.Tensor:
        grad_image = torch.empty_like(image) if ctx.needs_input_grad[0] else None
        values = device.loss(image, target, ssim_weight, grad_image, mask)
        ctx.grad_image = grad_image
        return image.new_tensor((1 - ssim_weight) * values.l1 + ssim_weight * (1 - values.ssim))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        return grad_total * ctx.grad_image, None, None, None, None


_apply_rasterize: Any = _Rasterize.apply  # torch's own annotation of apply is missing
_apply_ssim_loss: Any = _SsimLoss.apply
