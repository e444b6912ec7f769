"""The scenes that the card's speed is measured on, made once on the CPU: ``python -m bench.gpu_scenes FOLDER``."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.kernel_scene import Scene, surface_scene
from kernels.step import CameraParams, Device

BLENDED_PER_PIXEL = 45.0


@dataclass(frozen=True)
class Size:
    """Gaussians and picture of one scene."""

    n: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """The scene's name in tables and files."""
        return f"{self.n / 1e6:g} M, {self.width}x{self.height}"

    def file(self, folder: Path) -> Path:
        """Return where the scene lies."""
        return folder / f"{self.n}_{self.width}x{self.height}.pt"


# In order of what a run that is cut short should have.
SIZES = (Size(1_000_000, 1920, 1080), Size(100_000, 1920, 1080), Size(3_000_000, 1920, 1080), Size(100_000, 480, 270))


@dataclass(frozen=True)
class MadeScene:
    """A scene and how many gaussians a pixel blends, as the CPU library counts them."""

    scene: Scene
    blended_per_pixel: float


def make(size: Size, folder: Path) -> None:
    """Make a scene and write it, unless it is there."""
    if size.file(folder).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scene = surface_scene(size.n, size.width, size.height, BLENDED_PER_PIXEL)
    device = Device("cpu")
    device.forward(scene.rows, scene.camera, 0, (0.0, 0.0, 0.0), torch.empty(3, size.height, size.width))
    device.contribution(size.n, torch.zeros(size.n))
    blended = device.profile(enable=False).n_blended / (size.width * size.height)
    aside = size.file(folder).with_suffix(".part")
    torch.save({"rows": scene.rows, "camera": vars(scene.camera), "blended": blended}, aside)
    aside.replace(size.file(folder))


def read(size: Size, folder: Path) -> MadeScene:
    """Return a scene; it is made first where it is not there yet."""
    make(size, folder)
    found = torch.load(size.file(folder), weights_only=True)
    return MadeScene(Scene(found["rows"], CameraParams(**found["camera"])), found["blended"])


def main() -> int:
    """Make all scenes."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_scenes", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    os.nice(5)  # the tests of the card go on beside it
    for size in SIZES:
        make(size, folder)
        print(size.name, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
