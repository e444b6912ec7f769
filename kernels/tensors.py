"""The parameters of N gaussians as named torch tensors, and as the kernels' rows [N, 64] (layout: kernels/include/splat/splat.h)."""

from dataclasses import dataclass

import torch

ROW = 64
MEANS = slice(0, 3)
LOG_SCALES = slice(3, 6)
QUATS = slice(6, 10)
OPACITY = slice(10, 11)
SH_DC = slice(11, 14)
SH_REST = tuple(slice(16 * channel, 16 * channel + 15) for channel in (1, 2, 3))  # red, green, blue
SPARE = (14, 15, 31, 47, 63)


@dataclass(frozen=True)
class GaussianTensors:
    """N gaussians with K = (degree + 1)² colour bases; any float dtype, any of them may require gradients."""

    means: torch.Tensor  # [N, 3] float
    log_scales: torch.Tensor  # [N, 3] float
    quats: torch.Tensor  # [N, 4] float, wxyz, any length but 0
    opacity_logits: torch.Tensor  # [N] float
    sh: torch.Tensor  # [N, K, 3] float

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        k = self.sh.shape[1] if self.sh.ndim == 3 else 0
        if k not in (1, 4, 9, 16):
            raise ValueError(f"sh is {tuple(self.sh.shape)}, expected [N, K, 3] with K = 1, 4, 9 or 16")
        expected = {"means": (n, 3), "log_scales": (n, 3), "quats": (n, 4), "opacity_logits": (n,), "sh": (n, k, 3)}
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected a float tensor {shape}")

    def __len__(self) -> int:
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Highest degree of the colour's spherical harmonics, 0..3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[int(self.sh.shape[1])]


def to_rows(gaussians: GaussianTensors) -> torch.Tensor:
    """Return the parameter rows, [N, 64], of the same dtype; differentiable. Spare columns and absent bases are 0."""
    n, rest = len(gaussians), gaussians.sh.shape[1] - 1
    zeros = gaussians.means.new_zeros(n, 16)
    parts = [
        gaussians.means,
        gaussians.log_scales,
        gaussians.quats,
        gaussians.opacity_logits[:, None],
        gaussians.sh[:, 0],
        zeros[:, :2],
    ]
    for channel in range(3):
        parts += [gaussians.sh[:, 1:, channel], zeros[:, : 16 - rest]]
    return torch.cat(parts, dim=1)


def from_rows(rows: torch.Tensor, sh_degree: int) -> GaussianTensors:  # rows [N, 64] float
    """Return the named tensors of parameter rows with bases up to ``sh_degree``; differentiable, views where torch can."""
    rest = (sh_degree + 1) ** 2 - 1
    channels = [torch.cat([rows[:, 11 + c : 12 + c], rows[:, 16 * (c + 1) : 16 * (c + 1) + rest]], dim=1) for c in range(3)]
    return GaussianTensors(rows[:, MEANS], rows[:, LOG_SCALES], rows[:, QUATS], rows[:, 10], torch.stack(channels, dim=2))
