"""How bright each photo is: gain and offset per photo and colour channel, so that the gaussians need not explain a camera's automatic.

A render is corrected before it is compared: picture = gain · render + offset. The gaussians are left with the mean of all photos: log gains
and offsets are shifted to zero mean over the photos after every step, so that no common cast can grow in them that the file would lack.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from engine.formats.colmap import read_observations
from engine.scene import Array, Observations, Reconstruction
from engine.train.views import PhotoCache, TrainingPhoto

# Correcting pays where gains differ and explain much of how differently photos show the same points; shading and glare differ without them.
NEEDED_ABOVE = 0.05  # spread of log gains
LEFT_AT_MOST = 0.72  # of the points' deviations; real sets of one light had 0.77 to 0.99, one flown under clouds 0.65
LEVEL = 2  # colours are compared at a quarter of the size: small errors of the points' places do not matter there
DARKEST, BRIGHTEST = 12, 243  # of 255: beyond, a photo is near clipping and tells little about its gain
LEAST_POINTS = 10  # a photo with fewer is left as it is
ROUNDS = 20  # of alternating between points' colours and photos' gains
BETA1, BETA2, EPS = 0.9, 0.99, 1e-15  # a photo is seen some 30 to 200 times in a run: too few for a longer memory


@dataclass
class Exposure:
    """Corrections of all training photos, and Adam's state for them. ``values[m]`` is log gain and offset by channel."""

    values: torch.Tensor  # [M, 2, 3] float32
    moment1: torch.Tensor  # [M, 2, 3] float32
    moment2: torch.Tensor  # [M, 2, 3] float32
    visits: torch.Tensor  # [M] int64, on the CPU: the host alone counts

    @classmethod
    def starting_at(cls, log_gains: torch.Tensor) -> "Exposure":  # [M, 3]
        """Return corrections with these gains and no offset."""
        values = torch.stack([log_gains, torch.zeros_like(log_gains)], dim=1).float()
        return cls(values, torch.zeros_like(values), torch.zeros_like(values), torch.zeros(len(values), dtype=torch.int64, device="cpu"))

    def to(self, where: torch.device) -> "Exposure":
        """Return the corrections on a device."""
        return Exposure(self.values.to(where), self.moment1.to(where), self.moment2.to(where), self.visits)

    def correct(self, index: int, image: torch.Tensor) -> None:  # [3, H, W]
        """Turn a render into what photo ``index`` would show, in place."""
        log_gain, offset = self.values[index]
        gains = log_gain.double().exp().float()
        for plane, gain, shift in zip(image, gains, offset, strict=True):
            plane.mul_(gain).add_(shift)  # plane by plane: the second pass reads what the first left in the cache

    def learn(self, index: int, image: torch.Tensor, grad_image: torch.Tensor, rate: float) -> None:  # [3, H, W] each
        """Take a step on one photo's correction, and turn dloss/d(corrected image) into dloss/d(render), in place.

        ``image`` is the corrected one. With picture = g r + o: dloss/d(log g) = Σ grad · (picture − o), dloss/do = Σ grad.
        """
        log_gain, offset = self.values[index]
        by_offset, by_image = [], []
        for plane, grad, gain in zip(image, grad_image, log_gain.exp(), strict=True):
            by_image.append(torch.dot(grad.view(-1), plane.view(-1)))
            by_offset.append(grad.sum())
            grad.mul_(gain)
        shift = torch.stack(by_offset)
        self._step(index, torch.stack([torch.stack(by_image) - offset * shift, shift]), rate)

    def _step(self, index: int, gradient: torch.Tensor, rate: float) -> None:  # [2, 3]
        self.visits[index] += 1
        count = int(self.visits[index])
        first = self.moment1[index].lerp_(gradient, 1.0 - BETA1) / (1.0 - BETA1**count)
        second = self.moment2[index].lerp_(gradient.square(), 1.0 - BETA2) / (1.0 - BETA2**count)
        self.values[index] -= rate * first / (second.sqrt() + EPS)
        self.values -= self.values.mean(dim=0)


def first_exposure(
    undistorted: Path, scene: Reconstruction, train: list[TrainingPhoto], photos: PhotoCache, choice: str
) -> Exposure | None:
    """Return the corrections to start from, None where the photos need none."""
    if choice == "off":
        return None
    samples = colours_of_points(scene, read_observations(undistorted / "sparse"), train, photos)
    gains = solve_gains(len(train), samples)
    return Exposure.starting_at(torch.from_numpy(gains)) if is_needed(choice, gains, samples) else None


def is_needed(choice: str, gains: Array, samples: "Samples") -> bool:  # [M, 3]
    """Return whether to correct: as the option says, with "auto" where the photos' gains differ by enough and explain enough."""
    if choice == "auto":
        return spread(gains) > NEEDED_ABOVE and left_over(gains, samples) < LEFT_AT_MOST
    return choice == "on"


def spread(gains: Array) -> float:  # [M, 3]
    """Return the root mean square of the photos' log gains over their mean, colours taken together."""
    return float(gains.mean(axis=1).std())


def left_over(gains: Array, samples: "Samples") -> float:  # [M, 3]
    """Return how far photos differ on the same points with these gains taken off, relative to without: medians, colours together."""
    before, after = (np.median(np.abs(deviations(samples, each).mean(axis=1))) for each in (np.zeros_like(gains), gains))
    return float(after / max(before, 1e-9))


def colours_of_points(scene: Reconstruction, seen: dict[str, Observations], train: list[TrainingPhoto], photos: PhotoCache) -> "Samples":
    """Return the colours in which the training photos show the model's points; none where the model has no tracks.

    ``seen`` is by photo name.
    """
    sizes = {image.name: (scene.cameras[image.camera_id].width, scene.cameras[image.camera_id].height) for image in scene.images}
    photo, point, colour = [], [], []
    for index, each in enumerate(train):
        if each.name not in seen:
            continue
        pixels = photos.pixels(index, LEVEL).cpu().numpy()
        colours = pixels_at(pixels, seen[each.name].xy / sizes[each.name])
        usable = ((colours >= DARKEST) & (colours <= BRIGHTEST)).all(axis=1)
        photo.append(np.full(int(usable.sum()), index))
        point.append(seen[each.name].point[usable])
        colour.append(np.log(colours[usable] / 255.0))
    if not photo:
        return Samples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3)))
    return Samples(np.concatenate(photo), np.concatenate(point), np.concatenate(colour))


@dataclass(frozen=True)
class Samples:
    """Colours of points in photos."""

    photo: npt.NDArray[np.int64]  # [S]
    point: npt.NDArray[np.int64]  # [S] any numbers
    colour: Array  # [S, 3] logarithms


def pixels_at(pixels: npt.NDArray[np.uint8], places: Array) -> npt.NDArray[np.uint8]:  # [H, W, 3], [K, 2] in 0..1 -> [K, 3]
    """Return the colours of the pixels in which the places lie."""
    height, width = pixels.shape[:2]
    column = np.clip((places[:, 0] * width).astype(np.int64), 0, width - 1)
    row = np.clip((places[:, 1] * height).astype(np.int64), 0, height - 1)
    colours: npt.NDArray[np.uint8] = pixels[row, column]
    return colours


def solve_gains(n_photos: int, samples: Samples) -> Array:
    """Return log gains [M, 3] of zero mean: alternates between points' mean colours and photos' median deviations from them.

    The median, because the pixel of a point at an edge, or of a glossy one, is another colour from photo to photo.
    """
    members = [np.flatnonzero(samples.photo == index) for index in range(n_photos)]
    gains = np.zeros((n_photos, 3))
    for _ in range(ROUNDS if len(samples.photo) else 0):
        off = deviations(samples, gains) + gains[samples.photo]
        for index, mine in enumerate(members):
            gains[index] = np.median(off[mine], axis=0) if len(mine) >= LEAST_POINTS else 0.0
        gains -= gains.mean(axis=0)
    return gains


def deviations(samples: Samples, gains: Array) -> Array:  # [M, 3] -> [S, 3]
    """Return how far each sample, its photo's gain taken off, lies from its point's mean."""
    free = samples.colour - gains[samples.photo]
    _, point, count = np.unique(samples.point, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(point, weights=free[:, channel]) / count for channel in range(3)], axis=1)
    off: Array = free - mean[point]
    return off
