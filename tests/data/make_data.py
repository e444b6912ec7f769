"""The demo capture: photos of a made-up plaza with true poses, traced ray by ray. ``python -m tests.data.make_data FOLDER``.

The photos are JPEGs as a phone writes them: EXIF with camera, focal length, time and place, some turned by the orientation tag. The
truth lies beside the folder, in FOLDER.truth.json, so that the folder holds photos only.
"""

import argparse
import functools
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin

from engine.scene import PinholeView
from tests.data.cameras import FOCAL_35MM, TURN_LEFT, TURN_RIGHT, Shot, Walk, walk
from tests.data.scene import build
from tests.data.shapes import Floats
from tests.data.tracer import World, prepare, render

EXPOSURE = 0.95
CONTRAST = 0.8
NOISE = 1.0  # of 255, standard deviation
FOCAL_MM = 4.25
PLACE = ((50.0, 5.0, 16.2), (14.0, 25.0, 14.9))
WORKERS = 2

OnPhoto = Callable[[int, int], None]


@dataclass(frozen=True)
class Truth:
    """What is true of a capture: the view (pose and intrinsics of the upright pixels) of each photo by file name."""

    views: dict[str, PinholeView]


def make_capture(folder: Path, plan: Walk | None = None, on_photo: OnPhoto | None = None) -> Truth:
    """Write the photos of ``plan`` (40 of 960×720, unless told) into ``folder``, and the truth beside it; return the truth.

    ``on_photo`` is told (done, total) after each. The same plan gives the same pixels on the same machine.
    """
    plan = plan or Walk()
    folder.mkdir(parents=True, exist_ok=True)
    shots = walk(plan)
    world = _world_of(plan.seed)
    for done, _ in enumerate(_taken(world, [(shot, folder, plan.seed, index) for index, shot in enumerate(shots)]), start=1):
        if on_photo:
            on_photo(done, len(shots))
    truth = Truth({shot.name: shot.view for shot in shots})
    truth_path(folder).write_text(json.dumps({name: _view_to_json(view) for name, view in truth.views.items()}, indent=1) + "\n")
    return truth


@functools.lru_cache(maxsize=1)
def _world_of(seed: int) -> World:
    """Return the scene of a seed; the last one is kept, for tests that take several captures of it."""
    return prepare(build(seed))


def truth_path(folder: Path) -> Path:
    """Return where the truth of the photos in ``folder`` lies."""
    return folder.with_name(folder.name + ".truth.json")


def read_truth(folder: Path) -> Truth:
    """Return the truth of a capture that was made before."""
    return Truth({name: _view_from_json(values) for name, values in json.loads(truth_path(folder).read_text()).items()})


def _view_to_json(view: PinholeView) -> dict[str, Any]:
    return {**vars(view), "cam_from_world": view.cam_from_world.tolist()}


def _view_from_json(values: dict[str, Any]) -> PinholeView:
    return PinholeView(**{**values, "cam_from_world": np.asarray(values["cam_from_world"])})


_Task = tuple[Shot, Path, int, int]
_world: World | None = None  # the forked workers inherit it: 300 MB that need not be pickled


def _taken(world: World, tasks: list[_Task]) -> Any:
    """Take the photos in forked processes where the system has them, else one after another."""
    global _world  # noqa: PLW0603 (see above)
    _world = world
    workers = min(WORKERS, os.cpu_count() or 1, len(tasks))
    if workers < 2 or sys.platform != "linux":
        yield from map(_take, tasks)
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap(_take, tasks)


def _take(task: _Task) -> None:
    shot, folder, seed, index = task
    assert _world is not None
    rng = np.random.default_rng([seed, 13, index])
    photo = Image.fromarray(develop(render(_world, shot.view), rng))
    if shot.orientation == TURN_RIGHT:
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    elif shot.orientation == TURN_LEFT:
        photo = photo.transpose(Image.Transpose.ROTATE_270)
    photo.save(folder / shot.name, quality=92, subsampling=0, exif=exif(shot.orientation, index))


def develop(light: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return 8-bit sRGB of linear light [H, W, 3]: a shoulder that keeps highlights, some contrast, and the sensor's noise."""
    tone = (1 - np.exp(-EXPOSURE * light)) ** (1 / 2.2)
    tone += CONTRAST * tone * (1 - tone) * (2 * tone - 1)
    noise = NOISE * rng.standard_normal(tone.shape, dtype=np.float32)
    shown: npt.NDArray[np.uint8] = np.clip(255 * tone + noise + 0.5, 0, 255).astype(np.uint8)
    return shown


def exif(orientation: int = 1, index: int = 0) -> Image.Exif:
    """Return what a phone notes in a photo: make, model, orientation, time, focal length, place and serial number."""
    tags = Image.Exif()
    tags[ExifTags.Base.Make], tags[ExifTags.Base.Model] = "Splatworks", "Ray Phone 1"
    tags[ExifTags.Base.Orientation] = orientation
    rational = TiffImagePlugin.IFDRational
    details = tags.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = f"2026:06:01 10:{index // 20 % 60:02d}:{index % 20 * 3:02d}"
    details[ExifTags.Base.FocalLength] = rational(round(FOCAL_MM * 100), 100)
    details[ExifTags.Base.FocalLengthIn35mmFilm] = FOCAL_35MM
    details[ExifTags.Base.BodySerialNumber] = "RAY-0042"
    place = tags.get_ifd(ExifTags.IFD.GPSInfo)
    for name, letter, values in (("Latitude", "N", PLACE[0]), ("Longitude", "E", PLACE[1])):
        place[ExifTags.GPS[f"GPS{name}Ref"]] = letter
        place[ExifTags.GPS[f"GPS{name}"]] = tuple(rational(round(v * 100), 100) for v in values)
    return tags


def main() -> int:
    """Make a capture as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.data.make_data", description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("photos", 40), ("width", 960), ("height", 720), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    plan = Walk(given.photos, given.width, given.height, given.seed)
    make_capture(given.folder, plan, lambda done, total: print(f"\r{done}/{total} photos", end="", flush=True))
    print(f"\n{given.folder} and {truth_path(given.folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
