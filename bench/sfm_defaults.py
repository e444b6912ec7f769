"""pycolmap with its defaults on a folder of photos: ``python -m bench.sfm_defaults PHOTOS SCRATCH THREADS`` prints one JSON line.

A program of its own because pycolmap's zlib harms the process it is loaded into (research/sfm.md B2).
"""

import json
import sys
import time
import zlib  # noqa: F401  (before pycolmap)
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pycolmap

from engine.sfm.models import best_model


class Steps:
    """Wall and CPU seconds of each step of this process, all threads."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        wall, cpu = time.monotonic(), time.process_time()
        yield
        self.wall_s[name] = round(time.monotonic() - wall, 3)
        self.cpu_s[name] = round(time.process_time() - cpu, 3)


def camera_mode(photos: Path) -> pycolmap.CameraMode:
    """Return one shared camera for photos of one size, as research/sfm.md B3 had it: kinder to the defaults than a camera a photo."""
    sizes = set()
    for path in sorted(photos.iterdir()):
        with PIL.Image.open(path) as photo:
            sizes.add(photo.size)
    return pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.AUTO


def reconstruct(photos: Path, scratch: Path, n_threads: int) -> dict[str, Any]:
    """Extract, match exhaustively, map incrementally, every option but the number of threads at its default."""
    steps, database = Steps(), scratch / "database.db"
    mode = camera_mode(photos)
    extraction, matching, mapping = (
        pycolmap.FeatureExtractionOptions(),
        pycolmap.FeatureMatchingOptions(),
        pycolmap.IncrementalPipelineOptions(),
    )
    extraction.num_threads = matching.num_threads = mapping.num_threads = n_threads
    with steps.step("extract"):
        pycolmap.extract_features(database, photos, camera_mode=mode, extraction_options=extraction)
    with steps.step("match"):
        pycolmap.match_exhaustive(database, matching)
    with steps.step("map"):
        models = pycolmap.incremental_mapping(database, photos, scratch, mapping)
    n_registered = max((model.num_reg_images() for model in models.values()), default=0)
    best = best_model(list(models.values()))
    return {
        "registered": n_registered,
        "sound": len(best),
        "points": best.n_points,
        "error_px": round(best.error_px, 4),
        "mapper": "incremental",
        "wall_s": steps.wall_s,
        "cpu_s": steps.cpu_s,
    }


def main() -> int:
    """Do what the command line says."""
    pycolmap.logging.minloglevel = 2
    photos, scratch, n_threads = sys.argv[1:]
    print(json.dumps(reconstruct(Path(photos), Path(scratch), int(n_threads))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
