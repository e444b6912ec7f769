"""SOG version 2 (PlayCanvas "Spatially Ordered Gaussians"): a stored ZIP of lossless WebP pictures, a texel a gaussian.

    means_l, means_u   low and high bytes of 16-bit sign(x) log(1 + |x|) between mins and maxs
    quats              three smallest of w x y z, 8 bits each; alpha 252 + which one is missing
    scales             index into 256 log scales
    sh0                index into 256 values of the constant colour; alpha = opacity
    shN                palette of at most 65,536 colour vectors: shN_centroids (64 a row, codebook of 256 values), shN_labels (16 bit)

The caller orders the gaussians (Morton: neighbours compress better). The frame is the trainer's. Values are rounded to nearest.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.formats import quantize
from engine.formats.archive import write_stored_zip
from engine.formats.palette import build_palette
from engine.formats.quantize import Bound, ErrorBounds
from engine.formats.sog_read import MAX_PALETTE, PALETTE_ROW, QUAT_STEPS, SQRT2, read_sog
from engine.gaussians import Gaussians

Bytes = npt.NDArray[np.uint8]

__all__ = ["SogOptions", "error_bounds", "read_sog", "write_sog"]


@dataclass(frozen=True)
class SogOptions:
    """How to write a file.

    ``palette``: most entries of the colour palette, 0 for 4096. ``weights`` [N]: how much each gaussian shows (its contribution to the
    photos); colour errors count by it. ``seed``: the palette follows from it. ``effort``: WebP's, 0..100.
    """

    palette: int = 0
    weights: npt.NDArray[np.float32] | None = None
    seed: int = 0
    effort: int = 75


def write_sog(path: Path, gaussians: Gaussians, options: SogOptions | None = None) -> None:
    """Write a SOG file; the same input gives the same bytes on one machine. Errors are at most ``error_bounds``, but for the palette's.

    Raises ``ValueError`` for values that are not finite, or no gaussians.
    """
    chosen = options or SogOptions()
    arrays = (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.opacity_logits, gaussians.sh)
    if not len(gaussians) or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("SOG holds one or more gaussians, all finite")
    meta: dict[str, Any] = {"version": 2, "asset": {"generator": "splatworks"}, "count": len(gaussians)}
    pictures: dict[str, Bytes] = {}
    _add_means(meta, pictures, gaussians)
    _add_scales(meta, pictures, gaussians)
    _add_quats(meta, pictures, gaussians)
    _add_colour(meta, pictures, gaussians)
    if gaussians.sh_degree:
        _add_harmonics(meta, pictures, gaussians, chosen)
    members = {"meta.json": json.dumps(meta, separators=(",", ":"), allow_nan=False).encode()}
    members |= {name: _to_webp(texels, chosen.effort) for name, texels in pictures.items()}
    write_stored_zip(path, members)


def _texels(count: int, channels: Bytes, alpha: Bytes | int = 255) -> Bytes:
    """Lay [N, C] out as an RGBA picture, nearly square with sides of whole fours, unused texels 0."""
    width = int(np.ceil(np.sqrt(count) / 4)) * 4
    height = int(np.ceil(count / width / 4)) * 4
    flat = np.zeros((width * height, 4), np.uint8)
    flat[:, 3] = 255
    flat[:count, : channels.shape[1]] = channels
    flat[:count, 3] = alpha
    return flat.reshape(height, width, 4)


def _to_webp(texels: Bytes, effort: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(texels, "RGBA").save(out, "WEBP", lossless=True, exact=True, quality=effort, method=4)
    return out.getvalue()


def _add_means(meta: dict[str, Any], pictures: dict[str, Bytes], gaussians: Gaussians) -> None:
    mapped = quantize.log_map(gaussians.means)
    low, high = mapped.min(axis=0), mapped.max(axis=0)
    codes = quantize.encode_uniform(mapped, low, high, 65536)
    meta["means"] = {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]}
    pictures["means_l.webp"] = _texels(len(codes), (codes & 255).astype(np.uint8))
    pictures["means_u.webp"] = _texels(len(codes), (codes >> 8).astype(np.uint8))


def _add_scales(meta: dict[str, Any], pictures: dict[str, Bytes], gaussians: Gaussians) -> None:
    book = quantize.fit_codebook(gaussians.log_scales)
    meta["scales"] = {"codebook": book.tolist(), "files": ["scales.webp"]}
    pictures["scales.webp"] = _texels(len(gaussians), quantize.assign_codebook(gaussians.log_scales, book))


def _add_quats(meta: dict[str, Any], pictures: dict[str, Bytes], gaussians: Gaussians) -> None:
    largest, others = quantize.drop_largest(gaussians.quats)
    codes = quantize.round_half_up((others * SQRT2 * 0.5 + 0.5) * QUAT_STEPS)
    meta["quats"] = {"files": ["quats.webp"]}
    pictures["quats.webp"] = _texels(len(gaussians), np.clip(codes, 0, 255).astype(np.uint8), (252 + largest).astype(np.uint8))


def _add_colour(meta: dict[str, Any], pictures: dict[str, Bytes], gaussians: Gaussians) -> None:
    book = quantize.fit_codebook(gaussians.sh[:, 0])
    meta["sh0"] = {"codebook": book.tolist(), "files": ["sh0.webp"]}
    codes = quantize.assign_codebook(gaussians.sh[:, 0], book)
    pictures["sh0.webp"] = _texels(len(gaussians), codes, quantize.encode_opacity(gaussians.opacity_logits))


def _add_harmonics(meta: dict[str, Any], pictures: dict[str, Bytes], gaussians: Gaussians, options: SogOptions) -> None:
    n_rest = gaussians.sh.shape[1] - 1
    rows = np.ascontiguousarray(gaussians.sh[:, 1:].reshape(len(gaussians), -1))
    weights = np.ones(len(gaussians), np.float32) if options.weights is None else options.weights
    palette = build_palette(rows, weights, min(options.palette or 4096, MAX_PALETTE), options.seed)
    held = np.bincount(palette.labels, weights=weights, minlength=len(palette.entries))
    book = quantize.fit_codebook(palette.entries, np.repeat(held, rows.shape[1]))
    codes = quantize.assign_codebook(palette.entries, book).reshape(-1, n_rest, 3)
    n_lines = -(-len(codes) // PALETTE_ROW)
    centroids = np.zeros((n_lines * PALETTE_ROW, n_rest, 4), np.uint8)
    centroids[..., 3] = 255
    centroids[: len(codes), :, :3] = codes
    labels = np.stack([palette.labels & 255, palette.labels >> 8, np.zeros_like(palette.labels)], axis=1).astype(np.uint8)
    meta["shN"] = {
        "count": len(palette.entries),
        "bands": gaussians.sh_degree,
        "codebook": book.tolist(),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }
    pictures["shN_centroids.webp"] = centroids.reshape(n_lines, PALETTE_ROW * n_rest, 4)
    pictures["shN_labels.webp"] = _texels(len(gaussians), labels)


def error_bounds(gaussians: Gaussians) -> ErrorBounds:
    """Return the errors that SOG may make on these gaussians; the palette's is not bounded beforehand."""
    mapped = quantize.log_map(gaussians.means)
    step = (mapped.max() - mapped.min()) / 65535
    reach = float(np.max(np.abs(gaussians.means)))
    return ErrorBounds(
        means=Bound(float(0.51 * step * (1.0 + reach) + 1e-6 * reach)),
        log_scales=quantize.codebook_bound(quantize.fit_codebook(gaussians.log_scales)),
        angle=quantize.smallest_three_angle(SQRT2 / QUAT_STEPS),
        opacity=quantize.OPACITY_BOUND,
        sh_dc=quantize.codebook_bound(quantize.fit_codebook(gaussians.sh[:, 0])),
        sh_rest=None,
    )
