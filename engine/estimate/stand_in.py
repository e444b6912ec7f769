"""A posed workspace for photos whose poses are not known yet, so that training can be tried on their sizes and colours.

The cameras stand on a ring about a few spheres on a floor; each sees one of a few of the photos. Nothing of it is a reconstruction: it has
as many photos, pixels and points as one would have, and that is what time and memory follow.
"""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from engine.formats.colmap import write_reconstruction
from engine.scene import Array, Camera, Image, Points3D, Reconstruction

POINTS_PER_PHOTO = 190  # the median of six captures (54 to 414)
N_SHOWN = 3  # of the photos, scaled once and shown by all cameras
FOCAL = 1.0  # of the longer side
RING_RADIUS = 4.0
SPHERES = np.array([[0.0, 0.0, 0.0, 1.0], [1.4, 0.4, 0.6, 0.6], [-1.2, 0.5, -0.8, 0.5]])  # x y z radius; y points down
FLOOR_Y, FLOOR_RADIUS = 1.0, 3.0


def write_stand_in(undistorted: Path, photos: list[Path], sizes: list[tuple[int, int]]) -> None:
    """Fill ``undistorted`` with images/ and sparse/ of as many photos as ``sizes`` (width, height) names.

    ``photos`` give the colours; without any they are random, in patches as large as a photo's.
    """
    images = undistorted / "images"
    images.mkdir(parents=True)
    photos = photos or [write_patches(undistorted / "patches.png")]
    shown = [photos[index * len(photos) // min(N_SHOWN, len(photos))] for index in range(min(N_SHOWN, len(photos)))]
    kept: dict[tuple[int, tuple[int, int]], Path] = {}
    for index, size in enumerate(sizes):
        source = index % len(shown)
        target = images / name_of(index)
        if (source, size) in kept:
            target.symlink_to(kept[source, size].name)
            continue
        with PillowImage.open(shown[source]) as opened:
            opened.draft("RGB", size)
            ImageOps.fit(opened.convert("RGB"), size).save(target, quality=90)
        kept[source, size] = target
    write_reconstruction(undistorted / "sparse", ring(sizes))


def write_patches(path: Path) -> Path:
    """Write a picture of random patches and return its path."""
    patches = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    PillowImage.fromarray(patches).resize((640, 480), PillowImage.Resampling.BICUBIC).save(path)
    return path


def name_of(index: int) -> str:
    """Return the name of a photo."""
    return f"{index:05d}.jpg"


def ring(sizes: list[tuple[int, int]]) -> Reconstruction:
    """Return cameras on a ring, looking at its middle, and points on surfaces there."""
    cameras, images = {}, []
    for index, (width, height) in enumerate(sizes):
        focal = FOCAL * max(width, height)
        cameras[index + 1] = Camera(index + 1, "PINHOLE", width, height, (focal, focal, width / 2, height / 2))
        images.append(Image(index + 1, index + 1, name_of(index), looking_in(2.0 * np.pi * index / len(sizes))))
    rng = np.random.default_rng(0)
    xyz = surface_points(POINTS_PER_PHOTO * len(sizes), rng)
    rgb = rng.integers(40, 220, (len(xyz), 3), dtype=np.uint8)
    return Reconstruction(cameras, images, Points3D(xyz, rgb, np.ones(len(xyz)), np.full(len(xyz), 3)))


def looking_in(angle: float) -> Array:
    """Return cam_from_world [3, 4] of a camera on the ring, looking at the origin."""
    forward = np.array([-np.sin(angle), 0.0, -np.cos(angle)])
    right = np.cross([0.0, 1.0, 0.0], forward)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose: Array = np.column_stack([rotation, rotation @ (RING_RADIUS * forward)])
    return pose


def surface_points(count: int, rng: np.random.Generator) -> Array:
    """Return points on the spheres and the floor, [count, 3]."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sphere = SPHERES[rng.integers(0, len(SPHERES), count)]
    on_sphere = sphere[:, :3] + directions * sphere[:, 3:]
    turn, reach = rng.uniform(0.0, 2.0 * np.pi, count), FLOOR_RADIUS * np.sqrt(rng.random(count))
    on_floor = np.stack([reach * np.cos(turn), np.full(count, FLOOR_Y), reach * np.sin(turn)], axis=1)
    points: Array = np.where(rng.random(count)[:, None] < 0.5, on_sphere, on_floor)
    return points
