"""The gaussians of a scene, in memory (numpy). Files have other orders and scales: see ``engine.formats``."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gaussians:
    """N gaussians with K = (degree + 1)² colour bases.

    ``quats`` are wxyz and need not have length 1; scales are exp(``log_scales``); opacity is sigmoid(``opacity_logits``); colour is
    max(0, 0.5 + Σ sh · basis(direction)), direction from the camera's centre to the mean, in world axes.
    """

    means: FloatArray  # [N, 3]
    log_scales: FloatArray  # [N, 3]
    quats: FloatArray  # [N, 4] wxyz
    opacity_logits: FloatArray  # [N]
    sh: FloatArray  # [N, K, 3]

    def __post_init__(self) -> None:
        n = len(self.means)
        k = self.sh.shape[1] if self.sh.ndim == 3 else 0
        expected = {"means": (n, 3), "log_scales": (n, 3), "quats": (n, 4), "opacity_logits": (n,), "sh": (n, k, 3)}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} is {array.dtype}{array.shape}, expected float32{shape}")
        if k not in (1, 4, 9, 16):
            raise ValueError(f"sh has {k} bases; expected 1, 4, 9 or 16")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Highest degree of the colour's spherical harmonics."""
        return int(np.sqrt(self.sh.shape[1])) - 1

    def select(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Gaussians":
        """Return the rows that ``index`` names (a permutation, a subset or a mask)."""
        return Gaussians(**{spec.name: getattr(self, spec.name)[index] for spec in fields(self)})


ROW = 64


def to_rows(gaussians: Gaussians) -> FloatArray:
    """Return the kernels' parameter rows, [N, 64] (layout: kernels/include/splat/splat.h)."""
    rows = np.zeros((len(gaussians), ROW), np.float32)
    rows[:, 0:3] = gaussians.means
    rows[:, 3:6] = gaussians.log_scales
    rows[:, 6:10] = gaussians.quats
    rows[:, 10] = gaussians.opacity_logits
    rows[:, 11:14] = gaussians.sh[:, 0]
    rest = gaussians.sh.shape[1] - 1
    for channel in range(3):
        start = 16 * (channel + 1)
        rows[:, start : start + rest] = gaussians.sh[:, 1:, channel]
    return rows


def from_rows(rows: FloatArray, sh_degree: int) -> Gaussians:
    """Return the gaussians of parameter rows, [N, 64], with bases up to ``sh_degree``."""
    rest = (sh_degree + 1) ** 2 - 1
    sh = np.empty((len(rows), rest + 1, 3), np.float32)
    sh[:, 0] = rows[:, 11:14]
    for channel in range(3):
        start = 16 * (channel + 1)
        sh[:, 1:, channel] = rows[:, start : start + rest]
    return Gaussians(rows[:, 0:3].copy(), rows[:, 3:6].copy(), rows[:, 6:10].copy(), rows[:, 10].copy(), sh)
