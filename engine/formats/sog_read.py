"""The reader of SOG version 2 bundles: every size, name and number in them is checked before it is used."""

import io
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from engine.formats import quantize
from engine.formats.archive import read_zip
from engine.formats.limits import FREE_GAUSSIANS, bad_file, check_count
from engine.gaussians import Gaussians

Bytes = npt.NDArray[np.uint8]

QUAT_STEPS = 255
SQRT2 = math.sqrt(2.0)
PALETTE_ROW = 64
MAX_PALETTE = 1 << 16

MAX_META_BYTES = 1 << 20
MAX_MAPPED = 80.0  # exp() of it is a float32


@dataclass(frozen=True)
class Bundle:
    """The members of a file whose meta.json was read; ``section`` and ``texels`` raise ``InputError`` for what is not there."""

    path: Path
    members: dict[str, bytes]
    meta: dict[str, Any]
    count: int

    def numbers(self, section: str, key: str, length: int) -> npt.NDArray[np.float64]:
        """Return a list of ``length`` finite numbers of the meta data."""
        found = self.section(section).get(key)
        if not isinstance(found, list) or len(found) != length or not all(_is_number(value) for value in found):
            raise bad_file("sog", self.path, f"{section}.{key} is not a list of {length} finite numbers")
        return np.array(found, np.float64)

    def section(self, name: str) -> dict[str, Any]:
        """Return an object of the meta data."""
        found = self.meta.get(name)
        if not isinstance(found, dict):
            raise bad_file("sog", self.path, f"meta.json has no {name}")
        return found

    def picture(self, section: str, index: int, max_texels: int) -> Bytes:
        """Return a picture [H, W, 4] that a section names, of at most ``max_texels``."""
        files = self.section(section).get("files")
        name = files[index] if isinstance(files, list) and index < len(files) else None
        if not isinstance(name, str) or name not in self.members:
            raise bad_file("sog", self.path, f"picture {index} of {section} is missing")
        return _decode_picture(self.path, name, self.members[name], max_texels)

    def texels(self, section: str, index: int = 0) -> npt.NDArray[np.int64]:
        """Return the texels of a picture that has one a gaussian, [N, 4]."""
        texels = self.picture(section, index, 2 * self.count + 4096).reshape(-1, 4)
        if len(texels) < self.count:
            raise bad_file("sog", self.path, f"picture {index} of {section} has {len(texels)} texels for {self.count} gaussians")
        return texels[: self.count].astype(np.int64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)


def read_sog(path: Path) -> Gaussians:
    """Read a SOG version 2 bundle (ZIP, stored or deflated). Raises ``InputError`` ``input.bad_sog`` for anything else."""
    size_bytes = path.stat().st_size if path.is_file() else 0
    members = read_zip("sog", path, 2 * size_bytes + MAX_META_BYTES)
    bundle = _open_bundle(path, members, size_bytes)
    n_bases, rest = _decode_harmonics(bundle)
    sh = np.empty((bundle.count, n_bases, 3), np.float32)
    colour = bundle.texels("sh0")
    sh[:, 0] = bundle.numbers("sh0", "codebook", 256)[colour[:, :3]]
    sh[:, 1:] = rest
    return Gaussians(
        means=_decode_means(bundle),
        log_scales=bundle.numbers("scales", "codebook", 256)[bundle.texels("scales")[:, :3]].astype(np.float32),
        quats=_decode_quats(bundle),
        opacity_logits=quantize.decode_opacity(colour[:, 3].astype(np.uint8)),
        sh=sh,
    )


def _open_bundle(path: Path, members: dict[str, bytes], size_bytes: int) -> Bundle:
    text = members.get("meta.json", b"")
    if not 0 < len(text) <= MAX_META_BYTES:
        raise bad_file("sog", path, "meta.json is missing or too large")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_file("sog", path, "meta.json is not JSON") from error
    if not isinstance(meta, dict) or meta.get("version") != 2 or isinstance(meta.get("version"), bool):
        raise bad_file("sog", path, "it is not SOG version 2", "Write it again with a present-day tool: version 1 is not read.")
    count = meta.get("count")
    if not isinstance(count, int) or isinstance(count, bool):
        raise bad_file("sog", path, "its count is not a whole number")
    check_count("sog", path, count, size_bytes)
    return Bundle(path, members, meta, count)


def _decode_picture(path: Path, name: str, data: bytes, max_texels: int) -> Bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning of large pictures: the limit here is stricter
            with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
                if picture.width * picture.height > max_texels:
                    raise bad_file(
                        "sog", path, f"{name[:60]} has {picture.width}×{picture.height} texels; at most {max_texels} are expected"
                    )
                return np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise bad_file("sog", path, f"{name[:60]} is not a picture that can be read ({error})") from error


def _decode_means(bundle: Bundle) -> npt.NDArray[np.float32]:
    low, high = bundle.numbers("means", "mins", 3), bundle.numbers("means", "maxs", 3)
    if np.max(np.abs([low, high])) > MAX_MAPPED or (low > high).any():
        raise bad_file("sog", bundle.path, "the range of the means is no range")
    codes = bundle.texels("means", 0)[:, :3] | bundle.texels("means", 1)[:, :3] << 8
    return quantize.exp_map(quantize.decode_uniform(codes, low, high, 65536)).astype(np.float32)


def _decode_quats(bundle: Bundle) -> npt.NDArray[np.float32]:
    texels = bundle.texels("quats")
    if (texels[:, 3] < 252).any():
        raise bad_file("sog", bundle.path, "a rotation does not say which component is missing")
    others = (texels[:, :3] / QUAT_STEPS - 0.5) * SQRT2
    return quantize.restore_largest(texels[:, 3] - 252, others)


def _decode_harmonics(bundle: Bundle) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the number of colour bases and all but the first, [N, K - 1, 3]."""
    if bundle.meta.get("shN") is None:
        return 1, np.empty((bundle.count, 0, 3), np.float32)
    section = bundle.section("shN")
    bands, size = section.get("bands"), section.get("count")
    if type(bands) is not int or type(size) is not int or bands not in (1, 2, 3) or not 1 <= size <= MAX_PALETTE:
        raise bad_file("sog", bundle.path, "shN has no bands of 1 to 3 and no count of 1 to 65,536")
    n_rest = (bands + 1) ** 2 - 1
    n_lines = -(-size // PALETTE_ROW)
    picture = bundle.picture("shN", 0, max(2 * n_lines, FREE_GAUSSIANS // 1024) * PALETTE_ROW * n_rest)
    if picture.shape[1] != PALETTE_ROW * n_rest or picture.shape[0] < n_lines:
        raise bad_file("sog", bundle.path, f"the palette's picture is {picture.shape[1]}×{picture.shape[0]}, too small for {size} entries")
    codes = picture[:n_lines, :, :3].reshape(-1, n_rest, 3)[:size]
    labels = bundle.texels("shN", 1)
    chosen = labels[:, 0] | labels[:, 1] << 8
    if chosen.max() >= size:
        raise bad_file("sog", bundle.path, f"a label points beyond the {size} entries of the palette")
    book = bundle.numbers("shN", "codebook", 256).astype(np.float32)
    return n_rest + 1, book[codes][chosen]
