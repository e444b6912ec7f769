"""Gaussian PLY as 3D Gaussian Splatting writes it: the lossless master. Little-endian float32 rows after an ASCII header.

    x y z  nx ny nz  f_dc_0..2  f_rest_0..  opacity (logit)  scale_0..2 (log)  rot_0..3 (wxyz)

``f_rest`` goes channel by channel. The normals are zeros: nobody uses them, but some viewers count bytes instead of reading names. The
frame is the trainer's (COLMAP's axes), untouched.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.formats.limits import MAX_GAUSSIANS, bad_file, read_bytes
from engine.gaussians import Gaussians

MAX_HEADER = 1 << 16
SCALARS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
    "half": "f2", "float16": "f2",
}  # fmt: skip
REQUIRED = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


@dataclass(frozen=True)
class PlyHeader:
    """What the header promises: rows of the vertex element, and where they start."""

    count: int
    row: np.dtype[np.void]
    start: int


def write_ply(path: Path, gaussians: Gaussians) -> None:
    """Write all gaussians, bit-exact, with as many ``f_rest`` as their degree has (0, 9, 24 or 45)."""
    rest = gaussians.sh[:, 1:].transpose(0, 2, 1).reshape(len(gaussians), 3 * (gaussians.sh.shape[1] - 1))
    columns = [
        gaussians.means,
        np.zeros_like(gaussians.means),
        gaussians.sh[:, 0],
        rest,
        gaussians.opacity_logits[:, None],
        gaussians.log_scales,
        gaussians.quats,
    ]
    rows = np.concatenate(columns, axis=1).astype("<f4", copy=False)
    with path.open("wb") as handle:
        handle.write(_header(len(gaussians), rest.shape[1]))
        rows.tofile(handle)


def _header(count: int, n_rest: int) -> bytes:
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(n_rest))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {name}" for name in names),
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def read_ply(path: Path) -> Gaussians:
    """Read a gaussian PLY of degree 0..3, whatever the order of its properties; others than the gaussian's are ignored.

    Values are kept as they are, not finite ones too. Raises ``InputError`` ``input.bad_ply`` for everything else: truncated or
    overlong files, text files, lists, missing properties, plain point clouds.
    """
    data = read_bytes("ply", path)
    header = _parse_header(path, data)
    expected = header.start + header.count * header.row.itemsize
    if len(data) != expected:
        raise bad_file("ply", path, f"its header promises {expected} bytes, the file has {len(data)}")
    if header.count < 1:
        raise bad_file("ply", path, "it holds no gaussians")
    return _gaussians(path, np.frombuffer(data, header.row, header.count, header.start))


def _parse_header(path: Path, data: bytes) -> PlyHeader:
    end = re.search(rb"\nend_header\r?\n", data[:MAX_HEADER])
    if not data.startswith((b"ply\n", b"ply\r\n")) or end is None:
        raise bad_file("ply", path, "it does not begin with a PLY header")
    try:
        lines = data[: end.start()].decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise bad_file("ply", path, "its header is not ASCII") from error
    words = [line.split() for line in lines[1:] if line.strip() and line.split()[0] not in ("comment", "obj_info")]
    if not words or words[0] not in (["format", "binary_little_endian", "1.0"], ["format", "binary_big_endian", "1.0"]):
        raise bad_file("ply", path, "it is not a binary PLY of format 1.0", "Write it in the binary form.")
    byte_order = "<" if "little" in words[0][1] else ">"
    if len(words) < 2 or words[1][:2] != ["element", "vertex"] or len(words[1]) != 3 or not re.fullmatch(r"\d{1,12}", words[1][2]):
        raise bad_file("ply", path, "its first element is not 'vertex' with a count (a PlayCanvas compressed.ply is not read)")
    count = int(words[1][2])
    if count > MAX_GAUSSIANS:
        raise bad_file("ply", path, f"it claims {count} gaussians; at most {MAX_GAUSSIANS} are read")
    return PlyHeader(count, _row_type(path, words[2:], byte_order), end.end())


def _row_type(path: Path, words: list[list[str]], byte_order: str) -> np.dtype[np.void]:
    row: dict[str, str] = {}
    for line in words:
        if len(line) != 3 or line[0] != "property" or line[1] not in SCALARS:
            raise bad_file("ply", path, f"its header has {' '.join(line)[:80]!r}, which no gaussian PLY needs")
        if line[2] in row:
            raise bad_file("ply", path, f"property {line[2][:40]!r} comes twice")
        row[line[2]] = byte_order + SCALARS[line[1]]
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise bad_file("ply", path, f"property {missing[0]!r} is missing: it is not a gaussian PLY")
    return np.dtype(list(row.items()))


def _gaussians(path: Path, rows: npt.NDArray[np.void]) -> Gaussians:
    names = rows.dtype.names or ()
    n_rest = sum(name.startswith("f_rest_") for name in names)
    if n_rest not in (0, 9, 24, 45) or any(f"f_rest_{i}" not in names for i in range(n_rest)):
        raise _bad_rest(path, n_rest)
    sh = np.empty((len(rows), 1 + n_rest // 3, 3), np.float32)
    sh[:, 0] = _columns(rows, [f"f_dc_{i}" for i in range(3)])
    sh[:, 1:] = _columns(rows, [f"f_rest_{i}" for i in range(n_rest)]).reshape(len(rows), 3, n_rest // 3).transpose(0, 2, 1)
    return Gaussians(
        means=_columns(rows, ["x", "y", "z"]),
        log_scales=_columns(rows, [f"scale_{i}" for i in range(3)]),
        quats=_columns(rows, [f"rot_{i}" for i in range(4)]),
        opacity_logits=_columns(rows, ["opacity"])[:, 0],
        sh=sh,
    )


def _bad_rest(path: Path, n_rest: int) -> InputError:
    return bad_file("ply", path, f"it has {n_rest} f_rest properties; gaussians have f_rest_0.. up to 0, 9, 24 or 45 of them")


def _columns(rows: npt.NDArray[np.void], names: list[str]) -> npt.NDArray[np.float32]:
    out = np.empty((len(rows), len(names)), np.float32)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as documented
        for index, name in enumerate(names):
            out[:, index] = rows[name]
    return out
