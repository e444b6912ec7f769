"""Masks that came with the photos: which belongs to which, and their pixels in the place of the photo's."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from engine.errors import InputError
from engine.events import OnEvent, Warned
from engine.options import IngestOptions
from engine.photos.decode import DECODE_ERRORS, UPRIGHT, Decoded, PhotoError
from engine.photos.sources import Source, named
from engine.workspace import MASKS, Workspace

STAGE = "ingest"
# A mask may be smaller than its photo, as segmenters make them, but of the same shape to this share.
_SHAPE_TOLERANCE = 0.01
_FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]


@dataclass(frozen=True)
class Masks:
    """The mask file of each photo by the photo's shown name; photos without one are whole. ``spare`` fit no photo."""

    by_photo: dict[str, Path]
    spare: list[str]


def find_masks(workspace: Workspace, sources: list[Source]) -> Masks:
    """Return the masks in the folder masks/ among or beside the photos: PHOTO.jpg.png as COLMAP names them, or PHOTO.png."""
    folder = workspace.companion(MASKS)
    if folder is None or not folder.is_dir():
        return Masks({}, [])
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    by_name = {str(path.relative_to(folder)).casefold(): path for path in files}
    by_stem = {str(PurePosixPath(name).with_suffix("")): path for name, path in by_name.items()}
    found: dict[str, Path] = {}
    for source in sources:
        shown = PurePosixPath(source.shown.casefold())
        for name in (str(shown), shown.name):
            # "a.jpg" fits a.jpg.png and a mask that is itself called a.jpg; "a" fits a.png.
            path = by_stem.get(name) or by_name.get(name) or by_stem.get(str(PurePosixPath(name).with_suffix("")))
            if path is not None:
                found[source.shown] = path
                break
    used = set(found.values())
    return Masks(found, [str(path.relative_to(folder)) for path in files if path not in used])


def warn_of_partners(masks: Masks, sources: list[Source], on_event: OnEvent) -> None:
    """Say which masks have no photo and, where there are masks, which photos have none."""
    if masks.spare:
        detail = f"{len(masks.spare)} masks fit no photo: {named(masks.spare)}; a mask is called like its photo with .png behind it"
        on_event(Warned(STAGE, "capture.mask_without_photo", detail, {"masks": masks.spare[:100]}))
    bare = [source.shown for source in sources if source.shown not in masks.by_photo]
    if masks.by_photo and bare:
        detail = f"{len(bare)} photos have no mask and are used whole: {named(bare)}"
        on_event(Warned(STAGE, "photo.no_mask", detail, {"photos": bare[:100]}))


def require_some_match(masks: Masks) -> None:
    """Raise ``InputError`` input.masks_unmatched when there are masks and none of them fits a photo: what they hide would be seen."""
    if masks.spare and not masks.by_photo:
        raise InputError(
            "input.masks_unmatched",
            "Masks without photos",
            f"none of the {len(masks.spare)} files in masks/ is named like a photo: {named(masks.spare)}",
            "Call each mask like its photo with .png behind it (IMG_1.jpg.png), or remove the folder.",
        )


def read_mask(path: Path, photo: Decoded, options: IngestOptions) -> Image.Image:
    """Return a mask, mode L, 0 (ignore) or 255, that fits the decoded photo: turned like it, its size, nearest neighbours.

    Raises ``PhotoError`` photo.mask_unreadable, photo.mask_size, photo.mask_empty.
    """
    mask = _kept(path, options)
    stored = (photo.source_height, photo.source_width) if photo.orientation >= 5 else (photo.source_width, photo.source_height)
    if _same_shape(mask.size, stored):
        mask = mask.transpose(UPRIGHT[photo.orientation]) if photo.orientation in UPRIGHT else mask
    elif not _same_shape(mask.size, (photo.source_width, photo.source_height)):
        raise PhotoError(
            "photo.mask_size",
            f"is {photo.source_width}×{photo.source_height} px and its mask {mask.width}×{mask.height}; they must have the same shape",
        )
    mask = mask.resize(photo.pixels.size, Image.Resampling.NEAREST)
    if mask.getextrema()[1] == 0:
        raise PhotoError("photo.mask_empty", "has a mask that is black all over: nothing of the photo is left")
    return mask


def _kept(path: Path, options: IngestOptions) -> Image.Image:
    """Return what the mask keeps as 255: at least half of its brightest level, so that 0/1 and 0/255 both work."""
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > options.max_megapixels * 1e6:
                raise PhotoError("photo.mask_unreadable", f"has a mask of {opened.width}×{opened.height} px, more than is read")
            if "A" in opened.mode.upper() or "transparency" in opened.info:
                over_black = Image.new("RGBA", opened.size, (0, 0, 0, 255))
                levels = np.asarray(Image.alpha_composite(over_black, opened.convert("RGBA")).convert("L"), np.int64)
            elif opened.mode.startswith("I") or opened.mode == "F":
                levels = np.nan_to_num(np.asarray(opened, np.float64)).astype(np.int64)
            else:
                levels = np.asarray(opened.convert("L"), np.int64)
    except UnidentifiedImageError as error:
        raise PhotoError("photo.mask_unreadable", "has a mask that is not a picture; make it a PNG") from error
    except DECODE_ERRORS as error:
        raise PhotoError("photo.mask_unreadable", f"has a mask that is damaged ({error})") from error
    brightest = int(levels.max())
    return Image.fromarray(np.where((levels > 0) & (2 * levels >= brightest), 255, 0).astype(np.uint8))


def _same_shape(first: tuple[int, int], second: tuple[int, int]) -> bool:
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1.0) <= _SHAPE_TOLERANCE
