"""The first stage: photos, and frames of videos, become upright RGB photos of one size limit, and a record of each, used or not."""

import shutil
from dataclasses import asdict, dataclass, replace
from os import cpu_count
from typing import Any

import numpy as np

from engine.containers import container_of
from engine.events import OnEvent, Progress, Warned
from engine.options import IngestOptions, RunOptions
from engine.photos.decode import PhotoError, decode, formats, open_photo, own_limits
from engine.photos.finish import finish
from engine.photos.frames import Studio, given_up, take_frames
from engine.photos.masks import Masks, find_masks, require_some_match
from engine.photos.masks import warn_of_partners as warn_of_masks
from engine.photos.posed import GivenPoses, find_poses, refuse_unposed, write_given
from engine.photos.posed import warn_of_partners as warn_of_poses
from engine.photos.prepared import Folders, Prepared, from_json, to_json
from engine.photos.record import PhotoRecord, assign_groups, refused, require_enough, summary
from engine.photos.sandbox import Ask, Broken, Limits, run_all
from engine.photos.select import blurred, find_copies
from engine.photos.sources import Source, list_sources
from engine.photos.video import PORTION_CPU_S
from engine.unfinished import Headway, Pieces, place, unfinished
from engine.workspace import Workspace, hash_file, replacing_folder, write_json

STAGE = "ingest"
# Megapixels decoded at a time over all children, about 4 bytes each and two copies: bounds memory at 1 to 2 GB whatever is uploaded.
_MEGAPIXELS_IN_FLIGHT = 150.0
# What one child may take beyond its start: 16-bit grey is the dearest, three copies of 8 bytes; and room for masks and profiles.
_BYTES_PER_PIXEL = 32
_BYTES_BESIDE = 1 << 30


@dataclass(frozen=True)
class Capture:
    """What was given: photos, their masks and their poses, if they came with any."""

    sources: list[Source]
    masks: Masks
    poses: GivenPoses | None

    def posed_size(self, source: Source, stored: tuple[int, int]) -> tuple[int, int] | None:
        """Return the size that a photo's pose is for, the stored one where it does not say; None without a pose."""
        pose = self.poses.by_photo.get(source.shown) if self.poses else None
        return (pose.size or stored) if pose else None

    def made_from(self, source: Source, sha256: str) -> dict[str, Any]:
        """Return all that a prepared photo depends on beside the stage's options, as JSON values; ``sha256`` is of the photo as given."""
        mask = self.masks.by_photo.get(source.shown)
        return {
            "photo": sha256,
            "shown": source.shown,
            "mask": hash_file(mask) if mask else None,
            "posed_size": self.posed_size(source, (0, 0)),
        }


@dataclass(frozen=True)
class Share:
    """How much of a capture is read, told as it grows: a video counts as the frames that may be taken of it."""

    n_photos: int
    n_videos: int
    frames: int
    on_event: OnEvent

    def tell_frames(self, place: int, done: int, total: int) -> None:
        """Say how many frames of a video are taken."""
        self._tell(self.frames * (place + done / total), f"{done} of {total} frames taken, video {place + 1} of {self.n_videos}")

    def tell_photos(self, done: int) -> None:
        """Say how many photos are read."""
        self._tell(self.frames * self.n_videos + done, f"{done} of {self.n_photos} photos read")

    def _tell(self, done: float, words: str) -> None:
        whole = self.frames * self.n_videos + self.n_photos
        self.on_event(Progress(STAGE, 0.95 * done / whole, words))


def run(workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, Any]:
    """Fill ``workspace.images`` and images.json from ``workspace.photos``, masks and given poses beside them; return the counts.

    Each photo that is left out is named in a ``Warned`` event. Raises ``InputError`` input.too_few_photos when too few remain, and for
    masks and poses that cannot be used.
    """
    sources = list_sources(workspace.photos)
    capture = Capture(sources, find_masks(workspace, sources), find_poses(workspace, sources, options.poses.source))
    require_some_match(capture.masks)
    allowed = formats()
    with own_limits(), unfinished(workspace.root, STAGE, {"options": asdict(options.ingest), "formats": allowed}) as scratch:
        folders, pieces = Folders.under(scratch), Pieces(scratch, Headway(STAGE, on_event))
        prepared = _prepare_all(capture, folders, pieces, options, allowed)
        records = _drop_copies(prepared)
        if capture.poses:
            records = refuse_unposed(capture.poses, records)
        records = assign_groups(records)
        _warn(records, capture, on_event)
        require_enough(records, options.ingest)
        _place(workspace, folders, records)
        _write_given(workspace, capture, records)
        write_json(workspace.images_index, [asdict(record) for record in records])
    on_event(Progress(STAGE, 1.0, f"{sum(r.accepted for r in records)} of {len(records)} photos can be used"))
    return summary(records) | {"poses": capture.poses.source if capture.poses else None}


def _place(workspace: Workspace, folders: Folders, records: list[PhotoRecord]) -> None:
    """Put the files of accepted photos, and no others, where the next stages look for them."""
    for files, folder in zip(folders.layers(records), (workspace.images, workspace.masks, workspace.alpha), strict=True):
        with replacing_folder(folder) as aside:
            place(files, aside)


def _write_given(workspace: Workspace, capture: Capture, records: list[PhotoRecord]) -> None:
    if capture.poses is None:
        shutil.rmtree(workspace.given, ignore_errors=True)
        return
    with replacing_folder(workspace.given) as folder:
        write_given(folder, capture.poses, records)


def _prepare_all(capture: Capture, folders: Folders, pieces: Pieces, options: RunOptions, allowed: list[str]) -> list[Prepared]:
    """Prepare every file in children: what a file does to its decoder is that file's loss alone. What is kept is not done again."""
    memory_bytes, n_children = (
        int(_BYTES_BESIDE + _BYTES_PER_PIXEL * options.ingest.max_megapixels * 1e6),
        options.threads or cpu_count() or 1,
    )
    for_videos = Limits(_MEGAPIXELS_IN_FLIGHT, memory_bytes, PORTION_CPU_S, 0.0)
    studio = Studio(folders, pieces, options.ingest, for_videos, n_children)
    videos = [source for source in capture.sources if container_of(source.path)]
    photos = [source for source in capture.sources if source not in videos]
    share = Share(len(photos), len(videos), options.ingest.frames, pieces.headway.on_event)
    of_videos = take_frames(videos, photos, studio, share.tell_frames)

    def work(source: Source, ask: Ask) -> Prepared:
        return _prepare(source, capture, folders, options.ingest, (ask, allowed))

    def on_done(index: int, result: Prepared | Broken) -> None:
        source = photos[index]
        found[index] = photo = given_up(source, result) if isinstance(result, Broken) else result
        made_from = capture.made_from(source, photo.record.sha256 or hash_file(source.path))
        pieces.put(source.stem, to_json(photo), folders.of(photo.record), made_from)
        share.tell_photos(len(found))

    found = _kept(capture, photos, pieces)
    if found:
        share.tell_photos(len(found))
    run_all(photos, work, Limits(_MEGAPIXELS_IN_FLIGHT, memory_bytes), n_children, on_done, dict(found))
    prepared = of_videos | {source.stem: [found[index]] for index, source in enumerate(photos)}
    return [each for source in capture.sources for each in prepared[source.stem]]


def _kept(capture: Capture, photos: list[Source], pieces: Pieces) -> dict[int, Prepared]:
    """Return what attempts that were killed have prepared, by the photo's index."""
    found = {}
    for index, source in enumerate(photos):
        if pieces.has(source.stem):
            said = pieces.get(source.stem, capture.made_from(source, hash_file(source.path)))
            if said is not None:
                found[index] = from_json(said)
    return found


def _prepare(source: Source, capture: Capture, folders: Folders, options: IngestOptions, context: tuple[Ask, list[str]]) -> Prepared:
    ask, allowed = context
    record = PhotoRecord(source.stem, source.shown)
    try:
        with open_photo(source.path, allowed, options) as photo:
            record = replace(record, source_width=photo.width, source_height=photo.height)
            ask(photo.width * photo.height / 1e6)
            decoded = decode(photo, options.max_side, capture.posed_size(source, photo.size))
    except PhotoError as error:
        return Prepared(refused(record, error.code, error.detail))
    record = replace(record, sha256=hash_file(source.path))
    return finish(record, decoded, folders, options, capture.masks.by_photo.get(source.shown))


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


def _warn(records: list[PhotoRecord], capture: Capture, on_event: OnEvent) -> None:
    warn_of_masks(capture.masks, capture.sources, on_event)
    if capture.poses:
        warn_of_poses(capture.poses, on_event)
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
