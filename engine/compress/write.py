"""Writing the asked formats, each read back and checked before it counts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.compress.kept import Tries
from engine.compress.verify import Reference, check_decoded
from engine.errors import InputError, InternalError
from engine.formats import ply, sog, splat, spz
from engine.formats.quantize import ErrorBounds
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


def write_asset(kind: str, reference: Reference, choice: SogChoice, tries: Tries) -> tuple[Path, dict[str, Any]]:
    """Write one file of format ``kind``, read it back and check it; return it and its figures: bytes, self_psnr_db, palette.

    Formats that lose something to become small are tried from small to large until ``TARGET_DB`` is reached.
    Raises ``InternalError`` when the file does not hold what was written.
    """
    makers = _makers(kind, reference, choice)
    for name, write in makers.items():
        path, figures = tries.of(name, f"scene.{kind}", write)
        if figures.get("self_psnr_db", math.inf) >= TARGET_DB:
            break
    return path, figures


def _makers(kind: str, reference: Reference, choice: SogChoice) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """Return the tries at a format, by name, in their order."""
    if kind == "sog":
        palettes = palettes_to_try(reference.gaussians, choice.palette)
        bounds = sog.error_bounds(reference.gaussians)
        return {f"sog-{palette}": partial(_write_sog, (reference, bounds), choice, palette) for palette in palettes}
    if kind == "spz":
        tried = SPZ_BITS if reference.gaussians.sh_degree else SPZ_BITS[:1]
        return {f"spz-{bits.first}-{bits.rest}": partial(_write_spz, reference, bits) for bits in tried}
    return {kind: partial(_write_ply if kind == "ply" else _write_splat, reference)}


def read_back(read: Callable[[Path], Gaussians], path: Path) -> Gaussians:
    """Return what a file of ours holds; that it cannot be read is not the user's fault, so it is an ``InternalError``."""
    try:
        return read(path)
    except InputError as error:
        raise InternalError("internal.bad_asset", "A file is not what was written", error.detail, "Run the stage again.") from error


def _figures(path: Path, reference: Reference, decoded: Gaussians) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "self_psnr_db": round(reference.psnr_db(decoded), 2)}


def _write_ply(reference: Reference, path: Path) -> dict[str, Any]:
    ply.write_ply(path, reference.gaussians)
    check_decoded(path.name, reference.gaussians, read_back(ply.read_ply, path), None)
    return {"bytes": path.stat().st_size}


def _write_splat(reference: Reference, path: Path) -> dict[str, Any]:
    splat.write_splat(path, reference.gaussians)
    decoded = read_back(splat.read_splat, path)
    check_decoded(path.name, reference.gaussians, decoded, splat.error_bounds(reference.gaussians))
    return _figures(path, reference, decoded)


def _write_spz(reference: Reference, bits: spz.ShBits, path: Path) -> dict[str, Any]:
    spz.write_spz(path, reference.gaussians, bits)
    decoded = read_back(spz.read_spz, path)
    check_decoded(path.name, reference.gaussians, decoded, spz.error_bounds(reference.gaussians, bits))
    return {**_figures(path, reference, decoded), "sh_bits": [bits.first, bits.rest]}


def _write_sog(expected: tuple[Reference, ErrorBounds], choice: SogChoice, palette: int, path: Path) -> dict[str, Any]:
    reference, bounds = expected
    sog.write_sog(path, reference.gaussians, sog.SogOptions(palette, choice.weights, choice.seed))
    decoded = read_back(sog.read_sog, path)
    check_decoded(path.name, reference.gaussians, decoded, bounds)
    return {**_figures(path, reference, decoded), "palette": palette if reference.gaussians.sh_degree else 0}


def palettes_to_try(gaussians: Gaussians, asked: int) -> list[int]:
    """Return palette sizes from small to large, none above the number of gaussians; one where there is no choice."""
    n = len(gaussians)
    if asked or not gaussians.sh_degree:
        return [min(asked or 1, n)]
    return [size for size in PALETTES if size < n] or [n]
