"""Writing the asked formats, each read back and checked before it counts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.compress.verify import Reference, check_decoded
from engine.errors import InputError, InternalError
from engine.formats import ply, sog, splat, spz
from engine.gaussians import Gaussians

TARGET_DB = 40.0  # self-PSNR at which a file is good enough (research/formats.md 6)
PALETTES = (1024, 4096, 16384, 65536)
SPZ_BITS = (spz.ShBits(5, 4), spz.ShBits(6, 5), spz.ShBits(8, 8))


@dataclass(frozen=True)
class SogChoice:
    """What the SOG writer may choose from: ``palette`` 0 means the smallest of ``PALETTES`` that reaches ``TARGET_DB``."""

    palette: int
    weights: npt.NDArray[np.float32]  # [N] contribution to the photos
    seed: int


def write_asset(path: Path, kind: str, reference: Reference, choice: SogChoice) -> dict[str, Any]:
    """Write one file of format ``kind``, read it back, check it, and return its figures: bytes, self_psnr_db, palette.

    Raises ``InternalError`` when the file does not hold what was written.
    """
    if kind == "sog":
        return _write_sog(path, reference, choice)
    if kind == "ply":
        ply.write_ply(path, reference.gaussians)
        check_decoded(path.name, reference.gaussians, read_back(ply.read_ply, path), None)
        return {"bytes": path.stat().st_size}
    if kind == "spz":
        return _write_spz(path, reference)
    splat.write_splat(path, reference.gaussians)
    decoded = read_back(splat.read_splat, path)
    check_decoded(path.name, reference.gaussians, decoded, splat.error_bounds(reference.gaussians))
    return _figures(path, reference, decoded)


def read_back(read: Callable[[Path], Gaussians], path: Path) -> Gaussians:
    """Return what a file of ours holds; that it cannot be read is not the user's fault, so it is an ``InternalError``."""
    try:
        return read(path)
    except InputError as error:
        raise InternalError("internal.bad_asset", "A file is not what was written", error.detail, "Run the stage again.") from error


def _figures(path: Path, reference: Reference, decoded: Gaussians) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "self_psnr_db": round(reference.psnr_db(decoded), 2)}


def _write_spz(path: Path, reference: Reference) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for bits in SPZ_BITS:
        spz.write_spz(path, reference.gaussians, bits)
        decoded = read_back(spz.read_spz, path)
        check_decoded(path.name, reference.gaussians, decoded, spz.error_bounds(reference.gaussians, bits))
        figures = {**_figures(path, reference, decoded), "sh_bits": [bits.first, bits.rest]}
        if figures["self_psnr_db"] >= TARGET_DB or not reference.gaussians.sh_degree:
            break
    return figures


def _write_sog(path: Path, reference: Reference, choice: SogChoice) -> dict[str, Any]:
    bounds = sog.error_bounds(reference.gaussians)
    figures: dict[str, Any] = {}
    for palette in palettes_to_try(reference.gaussians, choice.palette):
        sog.write_sog(path, reference.gaussians, sog.SogOptions(palette, choice.weights, choice.seed))
        decoded = read_back(sog.read_sog, path)
        check_decoded(path.name, reference.gaussians, decoded, bounds)
        figures = {**_figures(path, reference, decoded), "palette": palette if reference.gaussians.sh_degree else 0}
        if figures["self_psnr_db"] >= TARGET_DB:
            break
    return figures


def palettes_to_try(gaussians: Gaussians, asked: int) -> list[int]:
    """Return palette sizes from small to large, none above the number of gaussians; one where there is no choice."""
    n = len(gaussians)
    if asked or not gaussians.sh_degree:
        return [min(asked or 1, n)]
    return [size for size in PALETTES if size < n] or [n]
