"""The folder a run works in: names of its artefacts, atomic writes, stamps.

photos/            the photos as given (or a folder elsewhere, see ``Workspace.photos``)
images/            upright photos, and images.json: one record a photo, accepted or not, with the reason; cut-outs over black
image_masks/       masks of those photos that came with one, NAME.png: 0 where the photo is to be ignored, 255 elsewhere
image_alpha/       coverage of cut-out photos, NAME.png: 0 transparent to 255
given/             the poses that came with the photos, as a COLMAP model of the photos in images/; only where poses came
sparse/            COLMAP model of the registered photos, in the frame all files share (cameras, images, points3D .bin)
undistorted/       images/ and sparse/ (PINHOLE) for the trainer; masks/ and alpha/ as above
train/             checkpoints, gaussians.ply (float32, not yet pruned), metrics.json, preview.webp, renders of held-out views
assets/            what users download
.unfinished-*/     what a killed stage leaves for the next attempt (engine.unfinished)
<stage>.json       stamp: written last, so a stage that has one is whole
report.json        figures of the whole run
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InternalError

ENGINE_VERSION = "1"
# What may come with photos: masks, and poses of two kinds.
MASKS = "masks"
POSES = ("transforms.json", "transforms_train.json")
MODEL = "sparse"
COMPANIONS = (MASKS, *POSES, MODEL)
# What the stages before training leave for later ones, beside their stamps: other runs over the same photos can take it over.
ARTEFACTS = {"ingest": ("images", "images.json", "image_masks", "image_alpha", "given"), "poses": ("sparse", "undistorted")}


@dataclass(frozen=True)
class Workspace:
    """Paths of one run. ``photos`` may lie outside ``root``."""

    root: Path
    photos: Path

    @classmethod
    def at(cls, root: Path, photos: Path | None = None) -> "Workspace":
        """Return the workspace at ``root``, made if missing."""
        root.mkdir(parents=True, exist_ok=True)
        return cls(root.resolve(), (photos or root / "photos").resolve())

    @property
    def images(self) -> Path:
        """Upright photos."""
        return self.root / "images"

    @property
    def images_index(self) -> Path:
        """Records of all photos, accepted or not."""
        return self.root / "images.json"

    @property
    def masks(self) -> Path:
        """Masks of upright photos."""
        return self.root / "image_masks"

    @property
    def alpha(self) -> Path:
        """Coverage of upright cut-outs."""
        return self.root / "image_alpha"

    @property
    def given(self) -> Path:
        """Poses that came with the photos."""
        return self.root / "given"

    def companion(self, name: str) -> Path | None:
        """Return what came with the photos under this name, in their folder or beside it; None where nothing did.

        Beside the workspace's own ``photos/`` lie our artefacts, so there only the folder itself is looked into.
        """
        folders = [self.photos] if self.photos.parent == self.root else [self.photos, self.photos.parent]
        return next((folder / name for folder in folders if (folder / name).exists()), None)

    def given_files(self) -> list[Path]:
        """Return every file of the capture: photos, and masks and poses in their folder or beside it; sorted."""
        roots = [self.photos, *(found for name in COMPANIONS if (found := self.companion(name)))]
        files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
        return sorted(set(files))

    @property
    def sparse(self) -> Path:
        """COLMAP model of the upright photos."""
        return self.root / "sparse"

    @property
    def undistorted(self) -> Path:
        """Pinhole photos and model."""
        return self.root / "undistorted"

    @property
    def train(self) -> Path:
        """What training writes."""
        return self.root / "train"

    @property
    def assets(self) -> Path:
        """What users download."""
        return self.root / "assets"

    @property
    def report(self) -> Path:
        """Figures of the whole run."""
        return self.root / "report.json"

    def stamp(self, stage: str) -> Path:
        """Path of a stage's stamp."""
        return self.root / f"{stage}.json"


@dataclass(frozen=True)
class Stamp:
    """What a finished stage was made from, and how it went."""

    key: str
    options: dict[str, Any]
    stats: dict[str, Any]
    seconds: float
    peak_memory_bytes: int = 0
    version: str = ENGINE_VERSION


def read_stamp(workspace: Workspace, stage: str) -> Stamp | None:
    """Return a stage's stamp, or None when the stage has not finished."""
    path = workspace.stamp(stage)
    if not path.exists():
        return None
    try:
        return Stamp(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, flush it to the disk, and rename it into place."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that an earlier stage wrote."""
    if not path.exists():
        raise InternalError("internal.missing_artefact", "Missing file", f"{path.name} is missing; run the stage that makes it")
    return json.loads(path.read_text())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it replaces ``path`` durably, on error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        flush(aside)
        aside.replace(path)
        flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to fill; on success it takes the place of ``path``, on error it is removed.

    Leftovers of killed runs are removed too: whoever writes a folder holds the workspace (see ``locked``).
    """
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(leftover, ignore_errors=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in (aside, *aside.rglob("*")):
            flush(file)
        if path.exists():
            shutil.rmtree(path)
        aside.replace(path)
        flush(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace: two processes never work in one folder at a time. Waits for the other to end; dies with the process."""
    with (workspace.root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """Return a key that is equal for equal JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
