"""The .splat format of antimatter15's viewer: 32 bytes a gaussian, no header, colour without its view-dependent part.

    3 float32 mean | 3 float32 scale | 4 uint8 RGBA | 4 uint8 quaternion wxyz (q 128 + 128)

Kept for old viewers only. Having no header it cannot say that whole gaussians were cut off its end. The frame is the trainer's.
"""

from pathlib import Path

import numpy as np

from engine.formats.limits import bad_file, read_bytes
from engine.formats.quantize import (
    OPACITY_BOUND,
    SH_C0,
    Bound,
    ErrorBounds,
    decode_opacity,
    encode_opacity,
    normalized,
    round_half_up,
)
from engine.gaussians import Gaussians

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgb", "u1", 3), ("alpha", "u1"), ("quat", "u1", 4)])
MIN_LOG_SCALE, MAX_LOG_SCALE = -80.0, 80.0  # exp() of them is a normal float32


def write_splat(path: Path, gaussians: Gaussians) -> None:
    """Write means and scales as float32, colour, opacity and rotation as bytes; errors at most ``error_bounds``."""
    rows = np.zeros(len(gaussians), ROW)
    rows["mean"] = gaussians.means
    rows["scale"] = np.exp(np.clip(gaussians.log_scales.astype(np.float64), MIN_LOG_SCALE, MAX_LOG_SCALE))
    rows["rgb"] = np.clip(round_half_up((0.5 + SH_C0 * gaussians.sh[:, 0].astype(np.float64)) * 255.0), 0, 255)
    rows["alpha"] = encode_opacity(gaussians.opacity_logits)
    rows["quat"] = np.clip(round_half_up(normalized(gaussians.quats) * 128.0 + 128.0), 0, 255)
    path.write_bytes(rows.tobytes())


def read_splat(path: Path) -> Gaussians:
    """Read a .splat file; raises ``InputError`` ``input.bad_splat`` for cut rows, no rows, or values that are no gaussian's."""
    data = read_bytes("splat", path)
    if not data or len(data) % ROW.itemsize:
        raise bad_file("splat", path, f"{len(data)} bytes are not a positive multiple of {ROW.itemsize}")
    rows = np.frombuffer(data, ROW)
    scale = rows["scale"].astype(np.float64)
    if not (np.isfinite(rows["mean"]).all() and np.isfinite(scale).all() and (scale >= 0).all()):
        raise bad_file("splat", path, "a mean or scale is not a finite number, or a scale is negative")
    colour = rows["rgb"].astype(np.float64) / 255.0
    return Gaussians(
        means=rows["mean"].copy(),
        log_scales=np.log(np.maximum(scale, np.exp(MIN_LOG_SCALE))).astype(np.float32),
        quats=normalized((rows["quat"].astype(np.float64) - 128.0) / 128.0).astype(np.float32),
        opacity_logits=decode_opacity(rows["alpha"]),
        sh=((colour - 0.5) / SH_C0).astype(np.float32)[:, None],
    )


def error_bounds(_gaussians: Gaussians) -> ErrorBounds:
    """Return the errors that the format may make; bands above the first are dropped."""
    return ErrorBounds(
        means=Bound(0.0),
        log_scales=Bound(1e-4, MIN_LOG_SCALE, MAX_LOG_SCALE),
        # Half a step in three components and a whole one where +1 is clipped to 127/128: sqrt(7)/256 of length, twice that in angle.
        angle=0.021,
        opacity=OPACITY_BOUND,
        sh_dc=Bound(1 / 510 / SH_C0 + 1e-6, -0.5 / SH_C0, 0.5 / SH_C0),
        sh_rest=None,
    )
