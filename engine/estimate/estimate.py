"""What a run will take, before it begins: seconds of each stage, memory, disk.

Training is tried on this machine: on the photos themselves where their poses are known, else on a stand-in of the same size. The other
stages follow from counts and sizes at rates measured on another machine, scaled by how fast this one filters a picture; finding poses
depends on the scene as well, so its range is wide.
"""

import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFilter

from engine.containers import USUAL_SIZE, container_of
from engine.errors import Cancelled, InputError
from engine.estimate.stand_in import write_stand_in
from engine.events import Event, Progress
from engine.options import IngestOptions, RunOptions
from engine.photos.sources import list_sources
from engine.workspace import Workspace, read_json

# Wall seconds with two threads of a machine that needs ``REFERENCE_FILTER_S`` for ``filter_seconds``; six captures of 16 to 100 photos.
REFERENCE_FILTER_S = 0.035
REFERENCE_THREADS = 2
INGEST_S_PER_MEGAPIXEL = 0.04
FEATURES_S_PER_MEGAPIXEL = 0.28  # as searched: photos below FULL_OCTAVE_BELOW are doubled first
FULL_OCTAVE_BELOW = 1400  # pixels, as engine/sfm/features.py
KEYPOINTS_PER_MEGAPIXEL = 10_800
MOST_KEYPOINTS = 12_000
MATCH_S_PER_PAIR = 0.0055
MATCH_S_PER_KEYPOINT_PAIR = 1.25e-9
APPEARANCE_PAIRS = 1.4  # matched per photo and neighbour asked for
MAPPING_S_PER_PHOTO = 0.2
UNDISTORT_S_PER_MEGAPIXEL = 0.06
COMPRESS_S = (2.0, 5e-5, 0.03)  # at all, a gaussian, a photo
JPEG_BYTES_PER_PIXEL = 0.5
TRAIN_BYTES_PER_GAUSSIAN = 3 * 776 + 248  # three checkpoints for a moment, and the result
ASSET_BYTES_PER_GAUSSIAN = 260
# How far the truth may lie off, as factors, when nothing else runs beside.
RANGES = {"ingest": (0.5, 2.5), "poses": (0.4, 3.5), "train": (0.8, 1.25), "compress": (0.5, 2.0)}
STAND_IN_RANGE = (0.6, 1.6)


@dataclass(frozen=True)
class Photos:
    """What is known of a capture from its files' headers: sizes (width, height) as given, upright or not."""

    paths: list[Path]
    sizes: list[tuple[int, int]]

    def limited(self, max_side: int) -> list[tuple[int, int]]:
        """Return the sizes after scaling to a longest side."""
        scales = [min(1.0, max_side / max(size)) for size in self.sizes]
        return [
            (max(1, round(width * scale)), max(1, round(height * scale))) for (width, height), scale in zip(self.sizes, scales, strict=True)
        ]


@dataclass(frozen=True)
class StageEstimate:
    """Seconds by the wall's clock, and between which they will probably lie when nothing else runs beside; memory at the peak."""

    seconds: float
    low: float
    high: float
    peak_memory_bytes: int


def estimate(folder: Path, options: RunOptions, sizes: list[tuple[int, int]] | None = None) -> dict[str, Any]:
    """Return what a run over a folder of photos, or what is left of one in a posed workspace, will take, as JSON values.

    With ``sizes`` (width, height) the run is over that many photos of these sizes, and the folder's, if any, only lend their colours.
    Takes seconds itself: training is tried. Raises ``InputError`` input.no_photos, and what the train stage raises before its first step.
    """
    is_posed = sizes is None and (folder / "undistorted" / "sparse").is_dir()
    if sizes is not None:
        photos = Photos([source.path for source in list_sources(folder)], sizes)
    else:
        photos = photos_of_workspace(folder) if is_posed else photos_in(folder, options.ingest.frames)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.at(Path(scratch))
        if is_posed:
            for name in ("undistorted", "poses.json"):
                if (folder / name).exists():
                    (workspace.root / name).symlink_to((folder / name).resolve())
        else:
            write_stand_in(workspace.undistorted, photos.paths, photos.limited(min(options.ingest.max_side, options.poses.max_train_side)))
        training, steps = try_training(workspace, options)
    stages = {} if is_posed else before_training(photos, options)
    low, high = RANGES["train"] if is_posed else STAND_IN_RANGE
    seconds, n = training["seconds"] + training["trial_seconds"], training["n_gaussians"]
    more = {
        "steps": steps,
        "gaussians": n,
        "basis": "poses" if is_posed else "photos",
        "train_cpu_seconds": training["cpu_seconds"],
        "load": round(os.getloadavg()[0], 1),
    }
    stages["train"] = StageEstimate(seconds, seconds * low, seconds * high, training["peak_memory_bytes"])
    stages["compress"] = compressing(n, len(photos.sizes), slowness())
    return summary(photos, options, stages, more)


def summary(photos: Photos, options: RunOptions, stages: dict[str, StageEstimate], more: dict[str, Any]) -> dict[str, Any]:
    """Return the whole as JSON values."""
    total = {name: round(sum(getattr(stage, name) for stage in stages.values()), 1) for name in ("seconds", "low", "high")}
    rounded = {
        name: {key: value if key == "peak_memory_bytes" else round(value, 1) for key, value in asdict(stage).items()}
        for name, stage in stages.items()
    }
    return {
        "preset": options.preset,
        "threads": n_threads(options),
        "photos": len(photos.sizes),
        "megapixels": round(megapixels(photos.sizes), 2),
        **more,
        "stages": rounded,
        **total,
        "peak_memory_bytes": max(stage.peak_memory_bytes for stage in stages.values()),
        "disk_bytes": disk_bytes(photos, options.ingest, more["gaussians"]),
    }


def photos_in(folder: Path, frames: int = 0) -> Photos:
    """Return the photos that ingest would read, by their headers, and so many for each video; what is neither is passed over."""
    paths, sizes = [], []
    for source in list_sources(folder):
        if container_of(source.path):
            sizes += frames * [USUAL_SIZE]
            continue
        try:
            with PillowImage.open(source.path) as opened:
                sizes.append(opened.size)
                paths.append(source.path)
        except (OSError, ValueError, PillowImage.DecompressionBombError):
            continue
    if not sizes:
        raise InputError("input.no_photos", "No photos", f"{folder.name} holds no photo that can be read", "Name a folder of photos.")
    return Photos(paths, sizes)


def photos_of_workspace(folder: Path) -> Photos:
    """Return the photos that a workspace has taken in."""
    records = [record for record in read_json(folder / "images.json") if record["accepted"]]
    return Photos([folder / "images" / record["name"] for record in records], [(record["width"], record["height"]) for record in records])


def try_training(workspace: Workspace, options: RunOptions) -> tuple[dict[str, Any], int]:
    """Return the train stage's own estimate and its number of steps; the stage is stopped when it has told them."""
    from engine.train.train import run  # noqa: PLC0415 (torch takes a second to load)

    told: list[tuple[dict[str, Any], int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and "estimate" in event.data:
            told.append((event.data["estimate"], event.data["steps"]))
            raise Cancelled.by_request()

    try:
        run(workspace, options, listen)
    except Cancelled:
        return told[0]
    raise AssertionError("the train stage ended without an estimate")


def before_training(photos: Photos, options: RunOptions) -> dict[str, StageEstimate]:
    """Return what ingest and poses take."""
    slow = slowness() * REFERENCE_THREADS / min(n_threads(options), len(photos.sizes))
    sizes = photos.limited(options.ingest.max_side)
    searched = searched_megapixels(sizes)
    most = min(n_threads(options), len(sizes)) * max(width * height for width, height in photos.sizes)
    return {
        "ingest": ranged("ingest", slow * INGEST_S_PER_MEGAPIXEL * megapixels(photos.sizes), int(60e6 + 10 * most)),
        "poses": ranged("poses", slow * poses_seconds(sizes, options), int(300e6 + 45.0 * 1e6 * most_of(searched, n_threads(options)))),
    }


def poses_seconds(sizes: list[tuple[int, int]], options: RunOptions) -> float:
    """Return the seconds on the reference machine for features, matching, mapping and undistortion."""
    n = len(sizes)
    n_pairs = n * (n - 1) / 2
    if n > options.poses.exhaustive_below:
        n_pairs = min(n_pairs, APPEARANCE_PAIRS * options.poses.neighbours * n)
    keypoints = min(MOST_KEYPOINTS, KEYPOINTS_PER_MEGAPIXEL * megapixels(sizes) / n)
    features = FEATURES_S_PER_MEGAPIXEL * sum(searched_megapixels(sizes))
    matching = n_pairs * (MATCH_S_PER_PAIR + MATCH_S_PER_KEYPOINT_PAIR * keypoints**2)
    return features + matching + MAPPING_S_PER_PHOTO * n * (1.0 + n / 200.0) + UNDISTORT_S_PER_MEGAPIXEL * megapixels(sizes)


def searched_megapixels(sizes: list[tuple[int, int]]) -> list[float]:
    """Return the megapixels in which features are searched, by photo."""
    return [(4.0 if max(size) < FULL_OCTAVE_BELOW else 1.0) * size[0] * size[1] / 1e6 for size in sizes]


def most_of(values: list[float], count: int) -> float:
    """Return the sum of the largest ``count`` values: what is in memory at a time."""
    return sum(sorted(values, reverse=True)[:count])


def compressing(n_gaussians: int, n_photos: int, slow: float) -> StageEstimate:
    """Return what writing the files takes."""
    always, each, photo = COMPRESS_S
    return ranged("compress", slow * (always + each * n_gaussians + photo * n_photos), int(300e6 + 1500 * n_gaussians))


def ranged(stage: str, seconds: float, memory: int) -> StageEstimate:
    """Return an estimate with the range of its stage."""
    low, high = RANGES[stage]
    return StageEstimate(seconds, seconds * low, seconds * high, memory)


def disk_bytes(photos: Photos, options: IngestOptions, n_gaussians: int) -> int:
    """Return the most a workspace holds beside the photos as given: two copies of them, checkpoints, files."""
    pixels = sum(width * height for width, height in photos.limited(options.max_side))
    return int(2 * JPEG_BYTES_PER_PIXEL * pixels + (TRAIN_BYTES_PER_GAUSSIAN + ASSET_BYTES_PER_GAUSSIAN) * n_gaussians)


def megapixels(sizes: list[tuple[int, int]]) -> float:
    """Return the megapixels of all photos together."""
    return sum(width * height for width, height in sizes) / 1e6


def n_threads(options: RunOptions) -> int:
    """Return the threads that a run takes."""
    return options.threads or len(os.sched_getaffinity(0))


def slowness() -> float:
    """Return how much longer this machine takes than the reference, one thread against one."""
    return filter_seconds() / REFERENCE_FILTER_S


def filter_seconds() -> float:
    """Return the least CPU seconds, of three, for a Gaussian filter of a fixed picture: work much like a search for features."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    picture, least = PillowImage.fromarray(noise), float("inf")
    for _ in range(3):
        began = time.process_time()
        picture.filter(ImageFilter.GaussianBlur(5.0))
        least = min(least, time.process_time() - began)
    return least
