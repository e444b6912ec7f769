"""A decoded picture, a photo or a frame of a video, judged and written to where the next stages look for it."""

import hashlib
from dataclasses import replace
from pathlib import Path

from engine.options import IngestOptions
from engine.photos.decode import Decoded, PhotoError
from engine.photos.exif import focal_prior_px
from engine.photos.masks import read_mask
from engine.photos.prepared import Folders, Prepared
from engine.photos.record import PhotoRecord, refused
from engine.photos.select import content_problem, measure


def finish(record: PhotoRecord, decoded: Decoded, folders: Folders, options: IngestOptions, mask: Path | None = None) -> Prepared:
    """Return what is known of a picture now, its files written when it can be used; ``record.name`` is still without extension."""
    measures = measure(decoded.pixels)
    record = replace(_describe(record, decoded), sharpness=round(measures.sharpness, 3))
    problem = content_problem(measures)
    if problem:
        return Prepared(refused(record, *problem))
    if mask is not None:
        record = replace(record, has_mask=True)
        try:
            read_mask(mask, decoded, options).save(folders.masks / f"{record.name}.png", "PNG", compress_level=1)
        except PhotoError as error:
            return Prepared(refused(record, error.code, error.detail))
    _save(decoded, folders, record.name, options)
    return Prepared(record, hashlib.sha256(repr(decoded.pixels.size).encode() + decoded.pixels.tobytes()).hexdigest(), measures)


def _describe(record: PhotoRecord, decoded: Decoded) -> PhotoRecord:
    width, height = decoded.pixels.size
    focal = focal_prior_px(decoded.exif, width, height)
    return replace(
        record,
        # Renders and cut-outs stay lossless: they are small, and JPEG would ring at their edges.
        name=record.name + (".jpg" if decoded.alpha is None else ".png"),
        accepted=True,
        width=width,
        height=height,
        source_width=decoded.source_width,
        source_height=decoded.source_height,
        focal_px=None if focal is None else round(focal, 3),
        make=decoded.exif.make,
        model=decoded.exif.model,
        taken_at=decoded.exif.taken_at,
        gps=decoded.exif.gps,
        has_alpha=decoded.alpha is not None,
    )


def _save(decoded: Decoded, folders: Folders, name: str, options: IngestOptions) -> None:
    """Write pixels only: a fresh copy carries no EXIF, no GPS, no serial numbers, no profile."""
    bare = decoded.pixels.copy()
    bare.info = {}
    if decoded.alpha is None:
        bare.save(folders.images / name, "JPEG", quality=options.jpeg_quality, subsampling="4:4:4")
        return
    bare.save(folders.images / name, "PNG", compress_level=4)
    decoded.alpha.save(folders.alpha / f"{name}.png", "PNG", compress_level=4)
