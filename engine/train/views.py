"""The photos to train on: loading, resizing, the held-out split, the order of visits."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from engine.errors import InternalError
from engine.formats.colmap import read_reconstruction
from engine.scene import Camera, Image, PinholeView, Reconstruction

CPU = torch.device("cpu")
CACHE_BYTES = 2 << 30  # photos kept decoded; beyond it the least recently used are read again
SHARE_OF_CARD = 0.2  # of the free memory, for photos


@dataclass(frozen=True)
class TrainingPhoto:
    """A photo on disk and the pinhole view it was taken from, at the size trained on; its mask and its alpha where it has them."""

    name: str
    path: Path
    view: PinholeView
    mask: Path | None = None
    alpha: Path | None = None


@dataclass(frozen=True)
class Split:
    """Photos to train on and photos kept out to measure with, both in order of name."""

    train: list[TrainingPhoto]
    test: list[TrainingPhoto]


def load_split(undistorted: Path, max_side: int, holdout_every: int) -> tuple[Split, Reconstruction]:
    """Return the photos of an undistorted model, every ``holdout_every``-th (from the first) held out, and the model."""
    scene = read_reconstruction(undistorted / "sparse")
    photos = [_photo(undistorted, image, scene.cameras[image.camera_id], max_side) for image in scene.images]
    held_out = set(range(0, len(photos), holdout_every)) if holdout_every and len(photos) > 2 else set()
    train = [photo for index, photo in enumerate(photos) if index not in held_out]
    return Split(train, [photos[index] for index in sorted(held_out)]), scene


def _photo(undistorted: Path, image: Image, camera: Camera, max_side: int) -> TrainingPhoto:
    if camera.model != "PINHOLE":
        raise InternalError(
            "internal.not_pinhole", "Wrong camera model", f"{image.name} has camera model {camera.model}; training needs PINHOLE"
        )
    fx, fy, cx, cy = camera.params
    view = PinholeView(image.cam_from_world, fx, fy, cx, cy, camera.width, camera.height)
    scale = min(1.0, max_side / max(camera.width, camera.height))
    view = view.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    mask, alpha = (undistorted / layer / f"{image.name}.png" for layer in ("masks", "alpha"))
    return TrainingPhoto(
        image.name,
        undistorted / "images" / image.name,
        view,
        mask if mask.is_file() else None,
        alpha if alpha.is_file() else None,
    )


def at_level(view: PinholeView, level: int) -> PinholeView:
    """Return the view at 1/2^level of its size."""
    return view.resized(max(1, view.width >> level), max(1, view.height >> level))


def cache_bytes(where: torch.device) -> int:
    """Return how much a run may hold of its photos: on a card at most a share of what is free."""
    if where.type != "cuda":
        return CACHE_BYTES
    return min(CACHE_BYTES, int(SHARE_OF_CARD * torch.cuda.mem_get_info(where)[0]))


class PhotoCache:
    """Decoded photos by (index, level), on the run's device and within a budget of bytes.

    Pixels are [H, W, 3] uint8; of cut-outs, over black.
    """

    def __init__(self, photos: list[TrainingPhoto], budget_bytes: int = CACHE_BYTES, where: torch.device = CPU) -> None:
        self._photos = photos
        self._budget_bytes = budget_bytes
        self._where = where
        self._held: OrderedDict[tuple[str, int, int], torch.Tensor] = OrderedDict()
        self._held_bytes = 0

    def pixels(self, index: int, level: int) -> torch.Tensor:
        """Return a photo's pixels at 1/2^level of the training size."""
        return self._get("pixels", index, level, load_pixels)

    def mask(self, index: int, level: int) -> torch.Tensor | None:
        """Return a photo's mask at that size, [H, W] uint8, 0 where it is not to be compared; None where all of it is."""
        return self._get("mask", index, level, load_mask) if self._photos[index].mask else None

    def alpha(self, index: int, level: int) -> torch.Tensor | None:
        """Return the coverage of a cut-out at that size, [H, W] uint8; None for a photo that is none."""
        return self._get("alpha", index, level, load_alpha) if self._photos[index].alpha else None

    def _get(self, kind: str, index: int, level: int, load: Callable[[TrainingPhoto, int], torch.Tensor]) -> torch.Tensor:
        key = (kind, index, level)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        loaded = load(self._photos[index], level).to(self._where)
        self._held[key] = loaded
        self._held_bytes += loaded.nbytes
        while self._held_bytes > self._budget_bytes and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.nbytes
        return loaded


def load_pixels(photo: TrainingPhoto, level: int = 0) -> torch.Tensor:
    """Read a photo and resample it (Lanczos) to 1/2^level of its training size: [H, W, 3] uint8."""
    return _load(photo.path, "RGB", at_level(photo.view, level), PillowImage.Resampling.LANCZOS)


def load_mask(photo: TrainingPhoto, level: int = 0) -> torch.Tensor:
    """Read a photo's mask at 1/2^level of its training size: [H, W] uint8, 1 only where nothing of the pixel is hidden."""
    assert photo.mask is not None
    kept = _load(photo.mask, "L", at_level(photo.view, level), PillowImage.Resampling.BOX)
    return (kept == 255).to(torch.uint8)


def load_alpha(photo: TrainingPhoto, level: int = 0) -> torch.Tensor:
    """Read a cut-out's coverage, resampled as its colours are: [H, W] uint8."""
    assert photo.alpha is not None
    return _load(photo.alpha, "L", at_level(photo.view, level), PillowImage.Resampling.LANCZOS)


def _load(path: Path, mode: str, view: PinholeView, how: PillowImage.Resampling) -> torch.Tensor:
    with PillowImage.open(path) as opened:
        image = opened.convert(mode)
    if image.size != (view.width, view.height):
        image = image.resize((view.width, view.height), how)
    return torch.from_numpy(np.array(image))


class ViewSampler:
    """Visits every photo once in random order, then again in another; its state is a few numbers, so that a run can be resumed."""

    def __init__(self, n_photos: int, generator: torch.Generator) -> None:
        self._n_photos = n_photos
        self._generator = generator
        self.queue: list[int] = []

    def next(self) -> int:
        """Return the index of the next photo."""
        if not self.queue:
            self.queue = torch.randperm(self._n_photos, generator=self._generator, device="cpu").tolist()
        return self.queue.pop()
