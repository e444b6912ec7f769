"""The picture that stands for a scene: a render from the photo that shows most of it."""

from pathlib import Path

import numpy as np
from PIL import Image

from engine.device import open_device
from engine.gaussians import Gaussians
from engine.render import render, to_bytes
from engine.scene import PinholeView
from kernels.step import Device

PREVIEW_SIDE = 800  # pixels, longer side
CANDIDATES = 12
CANDIDATE_SIDE = 160  # pixels
WHITE = (1.0, 1.0, 1.0)


def write_preview(path: Path, gaussians: Gaussians, views: list[PinholeView], device: Device | None = None) -> int:
    """Write a WebP of 800 pixels' longer side from the best of ``views`` and return that view's index."""
    shared = device or open_device()
    best = choose_view(gaussians, views, shared)
    picture = render(gaussians, _sized(views[best], PREVIEW_SIDE), device=shared)
    Image.fromarray(to_bytes(picture), "RGB").save(path, "WEBP", quality=90, method=4)
    return best


def choose_view(gaussians: Gaussians, views: list[PinholeView], device: Device) -> int:
    """Return the index of the view that shows most, among up to 12 spread over all.

    Most: covered pixels (black and white backgrounds give the same picture) times the steps of brightness between neighbouring pixels.
    """
    candidates = np.unique(np.linspace(0, len(views) - 1, min(CANDIDATES, len(views))).round().astype(int))
    scores = [_score(gaussians, _sized(views[index], CANDIDATE_SIDE), device) for index in candidates]
    return int(candidates[int(np.argmax(scores))])


def _score(gaussians: Gaussians, view: PinholeView, device: Device) -> float:
    on_black = render(gaussians, view, device=device)
    on_white = render(gaussians, view, WHITE, device=device)
    covered = float(1.0 - np.mean(np.abs(on_white - on_black)))
    brightness = on_black.mean(axis=2)
    detail = float(np.mean(np.abs(np.diff(brightness, axis=0))) + np.mean(np.abs(np.diff(brightness, axis=1))))
    return covered * detail


def _sized(view: PinholeView, side: int) -> PinholeView:
    scale = side / max(view.width, view.height)
    return view.resized(max(1, round(view.width * scale)), max(1, round(view.height * scale)))
