"""Painted surfaces of the demo scene: every function returns linear RGB, [H, W, 3] float32 in 0..1.

Detail comes in several octaves, so that SIFT finds corners both near and far, and stays above the pixel, so that a splat can learn it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Texture = npt.NDArray[np.floating[Any]]
Colour = tuple[int, int, int]

INK: Colour = (38, 42, 58)
CREAM: Colour = (240, 229, 206)
PALETTE: tuple[Colour, ...] = ((214, 84, 62), (236, 170, 62), (66, 132, 160), (92, 148, 92), (132, 94, 148), (206, 120, 142))


def to_linear(srgb: npt.NDArray[np.generic]) -> Texture:
    """Return linear light for 8-bit sRGB values of any shape."""
    return ((srgb.astype(np.float32) / 255) ** 2.2).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 5, gain: float = 0.55) -> Texture:
    """Return smooth value noise [H, W] about 0 in about -1..1 that repeats to the left and right.

    ``cells`` is the number of cells down the height in the first octave; each further octave has twice as many, ``gain`` as strong.
    """
    total = np.zeros((height, width), np.float32)
    strength, norm = 1.0, 0.0
    for octave in range(octaves):
        rows = cells << octave
        if octave and rows * 2 > height:
            break
        columns = max(2, round(rows * width / height))
        grid = rng.uniform(-1, 1, (rows + 1, columns)).astype(np.float32)
        grid = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)
        box = (2.0, 0.5, columns + 2.0, rows + 0.5)
        total += strength * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box))
        norm += strength
        strength *= gain
    return total / norm


def blend(first: Texture | Colour, second: Texture | Colour, weight: Texture) -> Texture:
    """Return the mix of two sRGB colours or pictures (0..255) by ``weight`` [H, W], as sRGB 0..255."""
    share = np.clip(weight, 0, 1)[..., None]
    return (np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share).astype(np.float32)


def speckled(rng: np.random.Generator, srgb: Texture, strength: float, cells: int = 24) -> Texture:
    """Return a picture with grain: brightness noise of two scales, so that plain areas can be matched too."""
    height, width = srgb.shape[:2]
    coarse = noise(rng, height, width, max(4, cells // 4), octaves=3)
    fine = noise(rng, height, width, cells, octaves=3, gain=0.8)
    return np.clip(srgb * (1 + strength * (0.6 * coarse + fine))[..., None], 0, 255)


def draw(size: tuple[int, int], background: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a new picture (width, height) and its pen."""
    picture = Image.new("RGB", size, background)
    return picture, ImageDraw.Draw(picture)


def pixels(picture: Image.Image) -> Texture:
    """Return a picture's sRGB values as float32."""
    return np.asarray(picture, np.float32)


def letter_face(rng: np.random.Generator, letter: str, colour: Colour, size: int = 256) -> Texture:
    """Return one side of a toy block: a wooden frame, a letter, and four painted corner marks of differing size."""
    scale = 2 * size
    picture, pen = draw((scale, scale), CREAM)
    rim = scale // 14
    pen.rectangle((0, 0, scale, scale), outline=colour, width=rim)
    font = ImageFont.load_default(int(scale * 0.74))
    pen.text((scale / 2, scale / 2), letter, fill=colour, font=font, anchor="mm")
    for across in (0.17, 0.83):
        for down in (0.17, 0.83):
            radius = scale * rng.uniform(0.025, 0.055)
            fill = PALETTE[rng.integers(len(PALETTE))]
            pen.ellipse([across * scale - radius, down * scale - radius, across * scale + radius, down * scale + radius], fill=fill)
    small = pixels(picture.resize((size, size), Image.Resampling.LANCZOS))
    grain = noise(rng, 64, size, 24, octaves=2)
    wood = np.asarray(Image.fromarray(grain).resize((size, size), Image.Resampling.BICUBIC))
    return to_linear(speckled(rng, small * (0.97 + 0.06 * wood)[..., None], 0.07))


def bricks(rng: np.random.Generator, height: int, width: int, rows: int, columns: int, colour: Colour = (176, 98, 72)) -> Texture:
    """Return a brick wall in running bond; each brick has its own tint and roughness."""
    y = (np.arange(height) + 0.5) / height * rows
    x = (np.arange(width) + 0.5) / width * columns
    row = y.astype(int)
    along = x[None] + 0.5 * (row[:, None] % 2)
    tint = rng.uniform(-1, 1, (rows, columns, 3))[row[:, None], along.astype(int) % columns]
    face = np.asarray(colour) * (1 + 0.2 * tint[..., :1] + 0.06 * tint)
    edge = 0.5 - np.maximum(np.abs(along % 1 - 0.5), (np.abs(y % 1 - 0.5))[:, None])
    wobble = 0.012 * noise(rng, height, width, rows * 2, octaves=3)
    mortar = np.clip(1 - (edge + wobble - 0.035) / 0.035, 0, 1)
    wall = blend(face.astype(np.float32), (206, 196, 180), mortar.astype(np.float32))
    return to_linear(speckled(rng, wall, 0.2, cells=rows * 3))


def stone(rng: np.random.Generator, height: int, width: int, colour: Colour = (206, 196, 178)) -> Texture:
    """Return weathered stone with darker veins."""
    base = np.broadcast_to(np.asarray(colour, np.float32), (height, width, 3)).copy()
    veins = np.exp(-((noise(rng, height, width, 4) / 0.035) ** 2))
    return to_linear(speckled(rng, blend(base, (128, 110, 96), 0.6 * veins), 0.1))


def marble(rng: np.random.Generator, height: int, width: int, colour: Colour, vein: Colour) -> Texture:
    """Return polished marble: two families of veins on clouded colour."""
    cloud = noise(rng, height, width, 3, octaves=4)
    base = np.clip(np.asarray(colour, np.float32) * (1 + 0.2 * cloud)[..., None], 0, 255)
    thick = np.exp(-((noise(rng, height, width, 3, octaves=6) / 0.05) ** 2))
    thin = np.exp(-((noise(rng, height, width, 6, octaves=5) / 0.035) ** 2))
    return to_linear(blend(base, vein, np.maximum(0.85 * thick, 0.5 * thin)))


def stripes(rng: np.random.Generator, height: int, width: int, colours: tuple[Colour, ...], slant: float, repeats: int) -> Texture:
    """Return slanted stripes around a body of revolution: ``repeats`` sets of all colours, widths irregular so that no two look alike."""
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height) + 0.5) / height
    n = repeats * len(colours)
    edges = (np.arange(n) + rng.uniform(-0.28, 0.28, n)) / n
    phase = (x[None] + slant * y[:, None]) % 1
    index = (np.searchsorted(edges, phase, side="right") - 1) % n
    painted = np.asarray(colours, np.float32)[index % len(colours)]
    return to_linear(speckled(rng, painted, 0.1, cells=max(8, height // 12)))


def bands(rng: np.random.Generator, height: int, width: int, colours: tuple[Colour, ...], rows: int) -> Texture:
    """Return level bands with a hand-painted edge and small marks on them."""
    wobble = 0.18 * noise(rng, height, width, 4, octaves=2)
    y = (np.arange(height) + 0.5)[:, None] / height * rows
    picture = Image.fromarray(np.asarray(colours, np.uint8)[((y + wobble).astype(int)) % len(colours)])
    pen = ImageDraw.Draw(picture)
    for _ in range(rows * 10):
        at, radius = rng.uniform((0, 0), (width, height)), rng.uniform(0.01, 0.03) * height
        pen.regular_polygon(
            (*at, radius), int(rng.integers(3, 7)), rotation=int(rng.integers(360)), fill=PALETTE[rng.integers(len(PALETTE))]
        )
    return to_linear(speckled(rng, pixels(picture), 0.1))


def label(rng: np.random.Generator, height: int, width: int, lines: tuple[str, ...], colour: Colour) -> Texture:
    """Return the paper around a tin: two colours, lines of print, and a border."""
    picture, pen = draw((2 * width, 2 * height), CREAM)
    pen.rectangle((0, 0, 2 * width, int(height * 0.34)), fill=colour)
    pen.rectangle((0, int(height * 1.7), 2 * width, 2 * height), fill=colour)
    for side in range(3):
        middle = (side + 0.5) * 2 * width / 3
        for row, line in enumerate(lines):
            font = ImageFont.load_default(int(height * (0.42 if row == 0 else 0.2)))
            pen.text((middle + 8 * side, height * (0.72 + 0.42 * row)), line, fill=INK if row else colour, font=font, anchor="mm")
        pen.regular_polygon((middle, height * 0.2, height * 0.12), 5 + side, fill=CREAM)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    return to_linear(speckled(rng, pixels(small), 0.07))


def leaves(rng: np.random.Generator, height: int, width: int, colour: Colour = (74, 122, 66)) -> Texture:
    """Return clipped foliage: blots of light and dark leaves."""
    coarse, fine = noise(rng, height, width, 8, octaves=3), noise(rng, height, width, 40, octaves=2, gain=0.8)
    tone = blend(
        np.broadcast_to(np.asarray(colour, np.float32) * 0.62, (height, width, 3)), (158, 182, 92), 0.42 + 0.5 * coarse + 0.75 * fine
    )
    return to_linear(tone)
