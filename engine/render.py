"""Pictures of gaussians, through the kernels' forward pass (the same that training uses)."""

import numpy as np
import numpy.typing as npt
import torch

from engine.device import open_device
from engine.gaussians import Gaussians, to_rows
from engine.scene import PinholeView
from kernels.step import CameraParams, Device

BLACK = (0.0, 0.0, 0.0)


def camera_params(view: PinholeView) -> CameraParams:
    """Return a view as the kernels want it."""
    pose = tuple(float(value) for value in view.cam_from_world.reshape(-1))
    return CameraParams(pose, view.fx, view.fy, view.cx, view.cy, view.width, view.height)


def render_rows(
    device: Device, rows: torch.Tensor, view: PinholeView, sh_degree: int, background: tuple[float, float, float] = BLACK
) -> torch.Tensor:
    """Return the picture of parameter rows [N, 64], [3, H, W] float32, not clamped."""
    image = torch.empty((3, view.height, view.width), device=device.tensors)
    device.forward(rows, camera_params(view), sh_degree, background, image)
    return image


def render(
    gaussians: Gaussians, view: PinholeView, background: tuple[float, float, float] = BLACK, device: Device | None = None
) -> npt.NDArray[np.float32]:
    """Return the picture of gaussians seen from a view, [H, W, 3] float32, clamped to 0..1."""
    shared = device or open_device()
    rows = torch.from_numpy(to_rows(gaussians)).to(shared.tensors)
    image = render_rows(shared, rows, view, gaussians.sh_degree, background)
    picture: npt.NDArray[np.float32] = image.clamp(0.0, 1.0).permute(1, 2, 0).contiguous().cpu().numpy()
    return picture


def to_bytes(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a picture in 0..1 as rounded bytes."""
    shown: npt.NDArray[np.uint8] = np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown
