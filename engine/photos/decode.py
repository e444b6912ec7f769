"""One photo from bytes to upright sRGB pixels, with every limit checked before memory is spent (research/service.md 4.8)."""

import contextlib
import importlib
import io
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from engine.options import IngestOptions
from engine.photos.exif import DAMAGED, Exif, read_exif

# Only these decoders are ever opened. JPEG includes MPO, a phone's JPEG with a second picture behind it.
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]
# The longest side any of our readers is asked to take; wider files are panoramas or attacks.
MAX_SOURCE_SIDE = 30_000
# A photo thinner than this after resizing has no room for features, pixels.
MIN_SHORT_SIDE = 64

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The way back, for what Pillow has turned already.
STORED = UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
DECODE_ERRORS = (*DAMAGED, EOFError, zlib.error)


class PhotoError(Exception):
    """A photo that cannot be used: ``code`` for machines, ``detail`` continues the sentence that the file's name begins."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Decoded:
    """An upright RGB photo, not larger than asked for, and what its file said.

    A photo with transparent pixels comes over black, which is the same as colours multiplied by ``alpha`` (mode L). ``orientation`` is the
    EXIF turn that was made; the source's size is after it.
    """

    pixels: Image.Image
    source_width: int
    source_height: int
    alpha: Image.Image | None
    orientation: int
    exif: Exif


@contextlib.contextmanager
def own_limits() -> Iterator[None]:
    """Let our own size check stand in for Pillow's, which only warns, and keep its warnings about odd metadata off the terminal.

    Both are settings of the whole process: enter once, around all threads that decode.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def formats() -> list[str]:
    """Return the formats that can be read here; HEIC only where the optional package pillow-heif is installed."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return FORMATS
    heif.register_heif_opener()
    return [*FORMATS, "HEIF"]


def open_photo(path: Path, allowed: list[str], options: IngestOptions) -> Image.Image:
    """Open a file and check what its header says; no pixel is decoded. Raises ``PhotoError``."""
    try:
        if path.stat().st_size == 0:
            raise PhotoError("photo.unreadable", "is an empty file; upload it again")
        photo = Image.open(path, formats=allowed)
    except UnidentifiedImageError as error:
        raise PhotoError("photo.unreadable", f"is not a photo that can be read here ({', '.join(allowed)}); convert it to JPEG") from error
    except DECODE_ERRORS as error:
        raise PhotoError("photo.unreadable", f"has a damaged header ({error}); export it again") from error
    try:
        check_size(photo.width, photo.height, options)
    except PhotoError:
        photo.close()
        raise
    return photo


def decode(photo: Image.Image, max_side: int, posed_size: tuple[int, int] | None = None) -> Decoded:
    """Decode all of an opened photo: upright, RGB on black, sRGB, longer side at most ``max_side``. Raises ``PhotoError``.

    ``posed_size`` is what a pose that came with the photo says of its width and height: such poses are of the pixels as stored, so the
    photo is turned only if that gives the shape that the pose speaks of.
    """
    profile = photo.info.get("icc_profile")
    try:
        stored, exif, (width, height) = _load(photo, max_side)
        flat, alpha = _flatten(stored, profile)
    except DECODE_ERRORS as error:
        code = "photo.truncated" if "truncated" in str(error) else "photo.unreadable"
        raise PhotoError(code, f"is cut off or damaged ({error}); copy it from the camera again") from error
    orientation = exif.orientation if posed_size is None or _was_turned(exif, (width, height), posed_size) else 1
    pixels = _upright(fit(flat, width, height, max_side), orientation)
    if alpha is None:
        pixels = _to_srgb(pixels, profile)
    else:
        alpha = _upright(fit(alpha, width, height, max_side), orientation)
    if orientation >= 5:
        width, height = height, width
    return Decoded(pixels, width, height, alpha, orientation, exif)


def _load(photo: Image.Image, max_side: int) -> tuple[Image.Image, Exif, tuple[int, int]]:
    """Return the pixels as stored, the EXIF, and the stored size, which a draft decode falls short of."""
    if photo.format == "TIFF":
        # Pillow turns a TIFF while loading it and forgets by how much.
        exif = read_exif(photo)
        photo.load()
        stored = photo.transpose(STORED[exif.orientation]) if exif.orientation in STORED else photo
        return stored, exif, stored.size
    size = photo.size
    # JPEG can decode at half, quarter, eighth size; twice the wanted size keeps the resampling clean and saves most of the memory.
    photo.draft(None, (2 * max_side, 2 * max_side))
    photo.load()
    # Only now: to find a PNG's EXIF Pillow loads it, and once that has failed it hands out what it has without a word.
    return photo, read_exif(photo), size


def _upright(photo: Image.Image, orientation: int) -> Image.Image:
    return photo.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else photo


def _was_turned(exif: Exif, stored: tuple[int, int], posed: tuple[int, int]) -> bool:
    """Return whether a pose's size is that of the upright photo and not that of the stored one: one lies, the other stands."""
    return exif.orientation >= 5 and (stored[0] - stored[1]) * (posed[0] - posed[1]) < 0


def check_size(width: int, height: int, options: IngestOptions) -> None:
    """Raise ``PhotoError`` for a photo of too few pixels to be of use, or of more than are read."""
    size = f"is {width}×{height} px"
    if max(width, height) < options.min_side:
        raise PhotoError("photo.too_small", f"{size}; the longer side must be at least {options.min_side}")
    if width * height > options.max_megapixels * 1e6:
        megapixels = width * height / 1e6
        raise PhotoError(
            "photo.too_large", f"{size} ({megapixels:.0f} megapixels); at most {options.max_megapixels:g} are allowed: make it smaller"
        )
    if max(width, height) > MAX_SOURCE_SIDE:
        raise PhotoError("photo.too_large", f"{size}; no side may be longer than {MAX_SOURCE_SIDE}: make it smaller")
    if min(width, height) * min(1.0, options.max_side / max(width, height)) < MIN_SHORT_SIDE:
        raise PhotoError("photo.too_small", f"{size}, too thin a strip to find features in; give the uncropped photo")


def _flatten(photo: Image.Image, profile: object) -> tuple[Image.Image, Image.Image | None]:
    """Return the photo as RGB, CMYK kept for its profile, and its alpha where it has transparent pixels.

    Colours are multiplied by alpha here, before any resampling: what transparent pixels hide then never bleeds into the rim. Only straight
    colours can be converted by a profile, so that is done here too.
    """
    if photo.mode in ("RGB", "CMYK"):
        return photo, None
    if photo.mode.startswith("I"):
        # Pillow clips 16-bit grey instead of scaling it.
        grey = np.clip(np.asarray(photo, np.int64) // 256, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB"), None
    if photo.mode == "F":
        raise PhotoError("photo.unreadable", "has floating-point pixels; export it as JPEG or 8-bit TIFF")
    if "A" in photo.mode.upper().replace("LAB", "") or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema()[0] == 255:
            return rgba.convert("RGB"), None
        black = Image.new("RGB", rgba.size)
        black.paste(_to_srgb(rgba.convert("RGB"), profile), mask=alpha)
        return black, alpha
    return photo.convert("RGB"), None


def fit(photo: Image.Image, width: int, height: int, max_side: int) -> Image.Image:
    """Return a photo with no side above ``max_side``; ``width`` and ``height`` are the source's, which a draft decode may have shrunk."""
    scale = min(1.0, max_side / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return photo if size == photo.size else photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(photo: Image.Image, profile: object) -> Image.Image:
    """Convert wide-gamut and CMYK photos by their profile; one that cannot be used is ignored, as viewers do."""
    if isinstance(profile, bytes) and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                converted = ImageCms.profileToProfile(photo, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                photo = converted or photo
        except (ImageCms.PyCMSError, *DAMAGED):
            pass
    return photo if photo.mode == "RGB" else photo.convert("RGB")
