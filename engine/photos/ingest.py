"""The first stage: whatever was uploaded becomes upright RGB photos of one size limit, and a record of each file, used or not."""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.events import OnEvent, Progress, Warned
from engine.options import IngestOptions, RunOptions
from engine.photos.decode import Decoded, PhotoError, decode, formats, open_photo, own_limits
from engine.photos.exif import focal_prior_px
from engine.photos.select import Measures, blurred, content_problem, find_copies, measure
from engine.photos.sources import Source, list_sources
from engine.workspace import Workspace, hash_file, replacing_folder, write_json

STAGE = "ingest"
# Megapixels decoded at a time over all threads, about 4 bytes each and two copies: bounds memory at 1 to 2 GB whatever is uploaded.
_MEGAPIXELS_IN_FLIGHT = 150.0
_NAMED_AT_MOST = 10


@dataclass(frozen=True)
class PhotoRecord:
    """One entry of images.json. Sizes are upright pixels; ``reason`` and ``detail`` say why a photo was left out."""

    name: str
    source_name: str
    accepted: bool = False
    reason: str | None = None
    detail: str | None = None
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    focal_px: float | None = None
    camera_group: int = 0
    make: str = ""
    model: str = ""
    taken_at: str = ""
    gps: tuple[float, float, float] | None = None
    has_alpha: bool = False
    sha256: str = ""
    sharpness: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """What a decoding thread hands back; ``measures`` is None for a photo that was refused."""

    record: PhotoRecord
    pixel_hash: str = ""
    measures: Measures | None = None


class _Gate:
    """Lets threads in while the megapixels they hold stay under a limit; one is always let in."""

    def __init__(self, limit: float) -> None:
        self.limit, self.held, self.changed = limit, 0.0, threading.Condition()

    @contextmanager
    def holding(self, megapixels: float) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.held == 0 or self.held + megapixels <= self.limit)
            self.held += megapixels
        try:
            yield
        finally:
            with self.changed:
                self.held -= megapixels
                self.changed.notify_all()


def run(workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, Any]:
    """Fill ``workspace.images`` and images.json from ``workspace.photos``; return the counts.

    Each photo that is left out is named in a ``Warned`` event. Raises ``InputError`` input.too_few_photos when too few remain.
    """
    sources = list_sources(workspace.photos)
    with replacing_folder(workspace.images) as folder, own_limits():
        prepared = _prepare_all(sources, folder, options, on_event)
        records = _drop_copies(prepared)
        _remove_unused(folder, records)
        records = _assign_groups(records)
        _warn(records, on_event)
        _require_enough(records, options.ingest)
    write_json(workspace.images_index, [asdict(record) for record in records])
    on_event(Progress(STAGE, 1.0, f"{sum(r.accepted for r in records)} of {len(records)} photos can be used"))
    return _stats(records)


def _prepare_all(sources: list[Source], folder: Path, options: RunOptions, on_event: OnEvent) -> list[Prepared]:
    gate, allowed = _Gate(_MEGAPIXELS_IN_FLIGHT), formats()

    def work(source: Source) -> Prepared:
        return _prepare(source, folder, options.ingest, (gate, allowed))

    prepared = []
    pool = ThreadPoolExecutor(options.threads or os.cpu_count() or 1)
    try:
        for each in pool.map(work, sources):
            prepared.append(each)
            on_event(Progress(STAGE, 0.95 * len(prepared) / len(sources), f"{len(prepared)} of {len(sources)} photos read"))
    finally:
        # A stop request is not kept waiting for the photos not begun.
        pool.shutdown(cancel_futures=True)
    return prepared


def _prepare(source: Source, folder: Path, options: IngestOptions, context: tuple[_Gate, list[str]]) -> Prepared:
    gate, allowed = context
    record = PhotoRecord(source.stem, source.shown)
    try:
        with open_photo(source.path, allowed, options) as photo:
            record = replace(record, source_width=photo.width, source_height=photo.height)
            with gate.holding(photo.width * photo.height / 1e6):
                decoded = decode(photo, options.max_side)
        measures = measure(decoded.pixels)
        record = replace(_describe(record, decoded), sha256=hash_file(source.path), sharpness=round(measures.sharpness, 3))
        problem = content_problem(measures)
        if problem:
            return Prepared(replace(record, accepted=False, reason=problem[0], detail=f"{record.source_name} {problem[1]}"))
        _save(decoded, folder / record.name, options)
    except PhotoError as error:
        return Prepared(replace(record, reason=error.code, detail=f"{record.source_name} {error.detail}"))
    return Prepared(record, hashlib.sha256(repr(decoded.pixels.size).encode() + decoded.pixels.tobytes()).hexdigest(), measures)


def _describe(record: PhotoRecord, decoded: Decoded) -> PhotoRecord:
    width, height = decoded.pixels.size
    focal = focal_prior_px(decoded.exif, width, height)
    return replace(
        record,
        # Renders and cut-outs stay lossless: they are small, and JPEG would ring at their edges.
        name=record.name + (".png" if decoded.has_alpha else ".jpg"),
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
        has_alpha=decoded.has_alpha,
    )


def _save(decoded: Decoded, path: Path, options: IngestOptions) -> None:
    """Write pixels only: a fresh copy carries no EXIF, no GPS, no serial numbers, no profile."""
    bare = decoded.pixels.copy()
    bare.info = {}
    if path.suffix == ".png":
        bare.save(path, "PNG", compress_level=4)
    else:
        bare.save(path, "JPEG", quality=options.jpeg_quality, subsampling="4:4:4")


def _drop_copies(prepared: list[Prepared]) -> list[PhotoRecord]:
    records = [each.record for each in prepared]
    rows = [index for index, each in enumerate(prepared) if each.measures is not None]
    thumbs = (
        np.stack([m.thumb for m in (prepared[row].measures for row in rows) if m is not None]) if rows else np.zeros((0, 1, 1), np.float32)
    )
    sizes = np.array([records[row].source_width * records[row].source_height for row in rows], np.int64)
    for copy, original in find_copies(thumbs, sizes).items():
        row, kept = rows[copy], rows[original]
        same = prepared[row].pixel_hash == prepared[kept].pixel_hash
        words = "has the same pixels as" if same else "is a re-saved copy of"
        record = records[row]
        detail = f"{record.source_name} {words} {records[kept].source_name}; one is enough"
        records[row] = replace(record, accepted=False, reason="photo.duplicate", detail=detail)
    return records


def _remove_unused(folder: Path, records: list[PhotoRecord]) -> None:
    for record in records:
        if not record.accepted:
            (folder / record.name).unlink(missing_ok=True)


def _assign_groups(records: list[PhotoRecord]) -> list[PhotoRecord]:
    """Give each camera a number: equal size, maker, model and focal length (to 1 %) means the same (research/sfm.md B6, mixed sizes)."""
    groups: dict[tuple[Any, ...], int] = {}
    numbered = []
    for record in records:
        if record.accepted:
            focal = None if record.focal_px is None else round(record.focal_px / max(record.width, record.height), 2)
            key = (record.width, record.height, record.make, record.model, focal)
            record = replace(record, camera_group=groups.setdefault(key, len(groups) + 1))  # noqa: PLW2901
        numbered.append(record)
    return numbered


def _warn(records: list[PhotoRecord], on_event: OnEvent) -> None:
    for record in records:
        if not record.accepted:
            on_event(Warned(STAGE, record.reason or "", record.detail or "", {"photo": record.source_name}))
    usable = [record for record in records if record.accepted]
    for index in blurred([record.sharpness for record in usable]):
        name = usable[index].source_name
        on_event(
            Warned(
                STAGE,
                "photo.blurred",
                f"{name} is far less sharp than the others; retake or remove it if the result suffers",
                {"photo": name},
            )
        )


def _require_enough(records: list[PhotoRecord], options: IngestOptions) -> None:
    usable = sum(record.accepted for record in records)
    if usable >= options.min_photos:
        return
    refused = [record for record in records if not record.accepted]
    reasons = "; ".join(record.detail or "" for record in refused[:_NAMED_AT_MOST])
    more = f"; and {len(refused) - _NAMED_AT_MOST} more" if len(refused) > _NAMED_AT_MOST else ""
    detail = f"{usable} of {len(records)} files can be used, at least {options.min_photos} photos are needed"
    raise InputError(
        "input.too_few_photos",
        "Too few usable photos",
        f"{detail}: {reasons}{more}" if refused else detail,
        "Take 20 to 60 sharp photos of one scene from different places, each sharing most of its view with the next.",
        {"given": len(records), "usable": usable, "refused": {record.source_name: record.reason for record in refused[:100]}},
    )


def _stats(records: list[PhotoRecord]) -> dict[str, Any]:
    usable = [record for record in records if record.accepted]
    return {
        "n_files": len(records),
        "n_photos": len(usable),
        "n_cameras": len({record.camera_group for record in usable}),
        "n_focal_priors": sum(record.focal_px is not None for record in usable),
        "n_with_gps": sum(record.gps is not None for record in usable),
        "rejected": dict(sorted(Counter(record.reason or "" for record in records if not record.accepted).items())),
        "median_sharpness": round(float(np.median([record.sharpness for record in usable])), 3),
        "megapixels": round(sum(record.width * record.height for record in usable) / 1e6, 3),
    }
