"""Reading files back and comparing them with what they were made from."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import InternalError
from engine.formats.quantize import Bound, ErrorBounds, normalized, sigmoid
from engine.gaussians import Gaussians
from engine.render import render
from engine.scene import PinholeView
from kernels.step import Device

Picture = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """The gaussians as trained and pruned, and their pictures in the views to measure in."""

    gaussians: Gaussians
    views: list[PinholeView]
    pictures: list[Picture]
    device: Device

    @classmethod
    def of(cls, gaussians: Gaussians, views: list[PinholeView], device: Device) -> "Reference":
        """Return the reference, its pictures rendered."""
        return cls(gaussians, views, [render(gaussians, view, device=device) for view in views], device)

    def psnr_db(self, decoded: Gaussians) -> float:
        """Return the PSNR of a file's pictures against the reference's, pooled over the views; at most 100 dB."""
        pictures = [render(decoded, view, device=self.device) for view in self.views]
        return psnr_db(self.pictures, pictures)


def psnr_db(expected: list[Picture], seen: list[Picture]) -> float:
    """Return the peak signal-to-noise ratio over all pixels of pictures in 0..1, at most 100 dB."""
    squares = sum(float(np.sum((a.astype(np.float64) - b) ** 2)) for a, b in zip(expected, seen, strict=True))
    return -10.0 * math.log10(max(squares / sum(a.size for a in expected), 1e-10))


def check_decoded(name: str, original: Gaussians, decoded: Gaussians, bounds: ErrorBounds | None) -> None:
    """Raise ``InternalError`` unless a file holds the same gaussians in the same order, all finite, each within its format's errors.

    ``bounds`` None: bit for bit the same.
    """
    if len(decoded) != len(original):
        raise _bad_asset(name, f"it holds {len(decoded)} gaussians instead of {len(original)}")
    errors = _excesses(original, decoded, bounds) if bounds else _differences(original, decoded)
    worst = max(errors, key=lambda each: errors[each])
    if not errors[worst] <= 0:
        raise _bad_asset(name, f"its {worst} are off by {errors[worst]:.3g} more than the format allows")


def _bad_asset(name: str, why: str) -> InternalError:
    return InternalError("internal.bad_asset", "A file is not what was written", f"{name} was read back, but {why}", "Run the stage again.")


def _differences(original: Gaussians, decoded: Gaussians) -> dict[str, float]:
    names = ("means", "log_scales", "quats", "opacity_logits", "sh")
    return {name: 0.0 if np.array_equal(getattr(original, name), getattr(decoded, name)) else math.inf for name in names}


def _excesses(original: Gaussians, decoded: Gaussians, bounds: ErrorBounds) -> dict[str, float]:
    """Return by how much each attribute's greatest error passes its bound; infinite where a value is not finite."""
    excess = {
        "means": _excess(original.means, decoded.means, bounds.means),
        "log_scales": _excess(original.log_scales, decoded.log_scales, bounds.log_scales),
        "rotations": _angle(original.quats, decoded.quats) - bounds.angle,
        "opacities": _excess(sigmoid(original.opacity_logits), sigmoid(decoded.opacity_logits), bounds.opacity),
        "colours": _excess(original.sh[:, 0], decoded.sh[:, 0], bounds.sh_dc),
    }
    if bounds.sh_rest is not None and original.sh_degree:
        excess["harmonics"] = _excess(original.sh[:, 1:], decoded.sh[:, 1:], bounds.sh_rest)
    is_finite = all(np.isfinite(array).all() for array in (decoded.quats, decoded.opacity_logits, decoded.sh))
    return {name: value if is_finite and not math.isnan(value) else math.inf for name, value in excess.items()}


def _excess(original: npt.ArrayLike, decoded: npt.ArrayLike, bound: Bound) -> float:
    expected = np.clip(np.asarray(original, np.float64), bound.low, bound.high)
    # A millionth of the value: the file's own float32 arithmetic.
    slack = 1e-6 + 1e-6 * np.abs(expected)
    return float(np.max(np.abs(expected - np.asarray(decoded, np.float64)) - slack)) - bound.error


def _angle(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the largest angle between two lists of rotations, radians."""
    a, b = normalized(first), normalized(second)
    chord = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return float(np.max(4.0 * np.arcsin(np.minimum(1.0, chord / 2.0))))
