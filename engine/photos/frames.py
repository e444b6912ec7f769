"""Videos among the files given: of each the sharpest frames, made into photos by children, portion by portion."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from engine.events import Warned
from engine.options import IngestOptions
from engine.photos.decode import Decoded, PhotoError, check_size, fit
from engine.photos.exif import Exif
from engine.photos.finish import finish
from engine.photos.prepared import Folders, Prepared, from_json, to_json
from engine.photos.record import PhotoRecord, refused
from engine.photos.sandbox import Ask, Broken, Limits, run_all
from engine.photos.sources import Source, safe_stems
from engine.photos.video import UNREADABLE, Footage, Frame, Stretches, look, sharpest
from engine.unfinished import Pieces
from engine.workspace import hash_file

STAGE = "ingest"
# Room for the number of a frame in a name that may not become longer.
_LONGEST_STEM = 70
# What a decoder holds at a time, its references and our copies, as photos of the same size.
_FRAMES_HELD = 8
# A video may lack so much of the length that its header tells, seconds.
_CUT_OFF_S = 1.0

Numbered = list[tuple[int, Prepared]]
# The video's place among the videos, frames taken and frames to take.
OnFrames = Callable[[int, int, int], None]


class _Unusable(Exception):  # noqa: N818 (a video's end, not an error of ours)
    """A portion of a video broke its decoder: nothing of it is used, so that what is used never depends on which portion came first."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.how)
        self.broken = broken


@dataclass(frozen=True)
class Film:
    """A video that can be decoded: what it is, and what the photos are called that its parts become."""

    source: Source
    sha256: str
    footage: Footage
    stretches: Stretches
    names: list[str]

    def made_from(self, portion: range) -> dict[str, Any]:
        """Return all that a portion's photos depend on beside the stage's options, as JSON values."""
        names = [self.names[index] for index in portion]
        return {"video": self.sha256, "shown": self.source.shown, "stretches": asdict(self.stretches), "names": names}


@dataclass(frozen=True)
class Studio:
    """What making photos of videos needs: where they go, what is kept of killed attempts, options, processes."""

    folders: Folders
    pieces: Pieces
    options: IngestOptions
    limits: Limits
    n_children: int


def take_frames(videos: list[Source], photos: list[Source], studio: Studio, on_frames: OnFrames) -> dict[str, list[Prepared]]:
    """Return the photos made of each video, by its stem; of one that cannot be used its refusal alone. No frame is called like a photo.

    One video is done after another, its portions side by side.
    """
    taken = [f"{source.stem}.jpg" for source in (*videos, *photos)]
    found: dict[str, list[Prepared]] = {}
    for place, source in enumerate(videos):
        film = _film(source, taken, studio)
        if isinstance(film, Prepared):
            found[source.stem] = [film]
            continue
        taken += [f"{name}.jpg" for name in film.names]
        found[source.stem] = _shoot(film, studio, functools.partial(on_frames, place))
    return found


def _film(source: Source, taken: list[str], studio: Studio) -> Film | Prepared:
    """Look at a video in a child."""

    def work(source: Source, _ask: Ask) -> tuple[Footage, str] | Prepared:
        try:
            footage = look(source.path)
            check_size(footage.width, footage.height, studio.options)
        except PhotoError as error:
            return Prepared(refused(PhotoRecord(source.stem, source.shown), error.code, error.detail))
        return footage, hash_file(source.path)

    (looked,) = run_all([source], work, studio.limits, 1, lambda _index, _result: None)
    if isinstance(looked, Broken):
        return given_up(source, looked)
    if isinstance(looked, Prepared):
        return looked
    footage, sha256 = looked
    stretches = Stretches.of(footage, studio.options.frames)
    wanted = [f"{source.stem[:_LONGEST_STEM]}_{number:05d}.jpg" for number in range(1, stretches.count + 1)]
    return Film(source, sha256, footage, stretches, safe_stems([*taken, *wanted])[len(taken) :])


def _shoot(film: Film, studio: Studio, on_frames: Callable[[int, int], None]) -> list[Prepared]:
    portions = film.stretches.portions(film.footage)
    found = _kept(film, portions, studio.pieces)

    def work(portion: range, ask: Ask) -> Numbered:
        ask(_FRAMES_HELD * film.footage.width * film.footage.height / 1e6)
        frames = sharpest(film.source.path, film.stretches, portion)
        return [(index, _photo(film, index, frame, studio)) for index, frame in frames]

    def on_done(place: int, result: Numbered | Broken) -> None:
        if isinstance(result, Broken):
            raise _Unusable(result)
        found[place] = result
        files = [path for _, each in result for path in studio.folders.of(each.record)]
        said = {"frames": [[index, to_json(each)] for index, each in result]}
        studio.pieces.put(_piece(film, portions[place]), said, files, film.made_from(portions[place]))
        tell()

    def tell() -> None:
        on_frames(sum(len(portions[place]) for place in found), film.stretches.count)

    if found:
        tell()
    try:
        run_all(portions, work, studio.limits, studio.n_children, on_done, dict(found))
    except _Unusable as unusable:
        return [given_up(film.source, unusable.broken)]
    return _whole(film, [each for place in range(len(portions)) for each in found[place]], studio)


def _piece(film: Film, portion: range) -> str:
    # No stem of a photo has this sign.
    return f"{film.source.stem}@{portion.start}"


def _kept(film: Film, portions: list[range], pieces: Pieces) -> dict[int, Numbered]:
    """Return the portions that attempts which were killed have made."""
    found = {}
    for place, portion in enumerate(portions):
        if pieces.has(_piece(film, portion)) and (said := pieces.get(_piece(film, portion), film.made_from(portion))) is not None:
            found[place] = [(int(index), from_json(each)) for index, each in said["frames"]]
    return found


def _photo(film: Film, index: int, frame: Frame, studio: Studio) -> Prepared:
    """Make a photo of a frame. What the video says of place and camera is not even read."""
    height, width = frame.shape[:2]
    pixels = fit(Image.fromarray(frame[:, :, ::-1].copy()), width, height, studio.options.max_side)
    name = film.names[index]
    record = PhotoRecord(name, f"{name}.jpg", sha256=film.sha256, video=film.source.shown)
    return finish(record, Decoded(pixels, width, height, None, 1, Exif()), studio.folders, studio.options)


def given_up(source: Source, broken: Broken) -> Prepared:
    """Return the refusal of a file that broke its decoder."""
    code = "photo.too_costly" if broken.too_costly else "photo.crashes"
    return Prepared(refused(PhotoRecord(source.stem, source.shown), code, f"cannot be used: {broken.how}; export it again"))


def _whole(film: Film, numbered: Numbered, studio: Studio) -> list[Prepared]:
    """Return the photos of a video, and say so when it ends before its time."""
    shown, stretches = film.source.shown, film.stretches
    if not numbered:
        return [Prepared(refused(PhotoRecord(film.source.stem, shown), "photo.unreadable", UNREADABLE))]
    n_seen = numbered[-1][0] + 1
    if (stretches.count - n_seen) * stretches.seconds > _CUT_OFF_S:
        seen_s = n_seen * stretches.seconds
        detail = f"{shown} ends after {seen_s:.0f} of {film.footage.duration_s:.0f} s; the frames before that are used"
        studio.pieces.headway.on_event(Warned(STAGE, "photo.truncated", detail, {"photo": shown}))
    return [each for _, each in numbered]
