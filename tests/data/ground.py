"""The two large painted surfaces of the demo scene: the floor and the backdrop."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tests.data.texture import CREAM, INK, PALETTE, Colour, Texture, blend, noise, pixels, speckled, to_linear


def plaza(rng: np.random.Generator, size: int = 1536) -> Texture:
    """Return a round mosaic: rings of tiles, each with its own tint, about a compass star; asymmetric on purpose."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = axis[None].repeat(size, 0), axis[:, None].repeat(size, 1)
    radius, angle = np.hypot(x, y), np.arctan2(y, x) / (2 * np.pi) % 1
    rings = 15
    ring = np.minimum((radius * rings).astype(int), rings - 1)
    counts = np.maximum(6, (np.arange(rings) + 0.5) * 6.6).astype(int)
    along = angle * counts[ring] + ring * 0.37
    tile = along.astype(int) % counts[ring]
    pale = np.asarray([(226, 212, 186), (210, 192, 164), (196, 176, 152)])
    scheme = rng.choice(np.arange(6), rings, p=[0.3, 0.25, 0.15, 0.1, 0.1, 0.1])
    bold = np.asarray([*pale, (178, 96, 76), (86, 124, 132), (206, 160, 92)], np.float32)[scheme]
    tint = rng.normal(0, 1, (rings, counts.max(), 4)).astype(np.float32)[ring, tile]
    colour = bold[ring] * (1 + 0.1 * tint[..., :1] + 0.025 * tint[..., 1:])
    odd = rng.uniform(size=(rings, counts.max())) < 0.13
    colour = np.where(odd[ring, tile][..., None], np.asarray(PALETTE, np.float32)[(ring * 5 + tile) % 4] * 0.86, colour)
    width = 0.5 - np.abs(along % 1 - 0.5)
    joint = np.minimum(width * (radius + 0.02) * 2 * np.pi / counts[ring], (0.5 - np.abs(radius * rings % 1 - 0.5)) / rings)
    joint += 0.0012 * noise(rng, size, size, 90, octaves=2)
    grouted = blend(colour.astype(np.float32), (120, 108, 98), np.clip(1.6 - joint / 0.0028, 0, 1).astype(np.float32))
    return to_linear(speckled(rng, _star(rng, grouted), 0.13, cells=96))


def _star(rng: np.random.Generator, floor: Texture) -> Texture:
    size = floor.shape[0]
    picture = Image.fromarray(np.clip(floor, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    middle, reach = size / 2, size * 0.13
    pen.ellipse([middle - reach, middle - reach, middle + reach, middle + reach], fill=CREAM, outline=INK, width=6)
    for point in range(16):
        turn = point * np.pi / 8 + 0.1
        length = reach * (0.96 if point % 4 == 0 else 0.72 if point % 2 == 0 else 0.5)
        fill = PALETTE[int(rng.integers(len(PALETTE)))]
        tip = (middle + length * np.cos(turn), middle + length * np.sin(turn))
        for side, shade in ((0.2, fill), (-0.2, INK)):
            elbow = (middle + reach * 0.22 * np.cos(turn + side * 2), middle + reach * 0.22 * np.sin(turn + side * 2))
            pen.polygon([(middle, middle), elbow, tip], fill=shade)
    return pixels(picture)


def meadow(rng: np.random.Generator, size: int = 1536) -> Texture:
    """Return mown grass with worn earth, flowers in drifts, and stones: enough corners to be found from every side."""
    patches, grain = noise(rng, size, size, 10, octaves=4), noise(rng, size, size, 110, octaves=3, gain=0.9)
    grass = blend((92, 124, 62), (182, 184, 108), 0.5 + 0.7 * patches + 0.75 * grain)
    earth = noise(rng, size, size, 7, octaves=5)
    grass = blend(grass, (176, 146, 108), np.clip((earth - 0.16) * 5, 0, 0.85) * (0.8 + 0.5 * grain))
    picture = Image.fromarray(np.clip(grass, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(620):
        drift, fill = rng.uniform(0, size, 2), PALETTE[rng.integers(len(PALETTE))] if rng.uniform() < 0.7 else CREAM
        for _ in range(int(rng.integers(2, 8))):
            at, radius = drift + rng.normal(0, size * 0.011, 2), rng.uniform(2.6, 6.0)
            _disc(pen, at, radius, fill)
            _disc(pen, at, radius * 0.4, INK)
    for _ in range(420):
        at, radius = rng.uniform(0, size, 2), rng.uniform(3.5, 10.0)
        shade = tuple(int(v) for v in np.asarray((188, 182, 172)) * rng.uniform(0.75, 1.15))
        _disc(pen, at - 0.3 * radius, radius * 1.05, (84, 92, 62))
        pen.regular_polygon((*at, radius), int(rng.integers(5, 8)), rotation=int(rng.integers(90)), fill=shade)
    return to_linear(pixels(picture))


def _disc(pen: ImageDraw.ImageDraw, at: npt.NDArray[np.float64], radius: float, fill: Colour) -> None:
    pen.ellipse([at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius], fill=fill)


def backdrop(rng: np.random.Generator, height: int = 768, width: int = 3072) -> Texture:
    """Return the painted round horizon, zenith above: hills, trees, houses, a pale sky with soft clouds."""
    up = (np.arange(height) + 0.5)[:, None] / height
    sky = blend(
        np.broadcast_to(np.asarray((236, 226, 206), np.float32), (height, width, 3)),
        (120, 172, 214),
        np.broadcast_to(up * 2.6, (height, width)),
    )
    sky = _clouds(rng, sky)
    for layer, (rise, colour) in enumerate(((0.2, (150, 172, 186)), (0.15, (126, 158, 140)), (0.1, (108, 142, 94)))):
        crest = rise + 0.075 * noise(rng, 512, width, 3 + layer, octaves=4)[256] - 0.02 * layer
        ground = np.clip((crest[None] - up) * height / 2, 0, 1)
        mottled = noise(rng, height, width, 24 + 16 * layer, octaves=3, gain=0.7)
        hill = np.asarray(colour, np.float32) * (1 + (0.1 + 0.08 * layer) * mottled)[..., None]
        sky = blend(sky, hill.astype(np.float32), ground.astype(np.float32))
    return to_linear(_village(rng, sky))[::-1]


def _clouds(rng: np.random.Generator, sky: Texture) -> Texture:
    """Paint storybook clouds, heaps of discs with a shaded foot, and balloons: a bare sky gives nothing to hold on to."""
    height, width = sky.shape[:2]
    picture = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(95):
        middle = np.asarray((rng.uniform(0, width), height * rng.uniform(0.2, 0.95)))
        spread = rng.uniform(18, 70)
        heaps = [(middle + rng.normal(0, 1, 2) * (spread, 0.28 * spread), rng.uniform(0.2, 0.5) * spread) for _ in range(11)]
        for lift, shade in ((-0.16, (188, 204, 220)), (0.0, (226, 232, 238)), (0.14, (250, 249, 245))):
            for at, radius in heaps:
                _disc(pen, at + np.asarray((0.1, lift)) * radius, radius * (1 - 0.9 * max(0.0, lift)), shade)
    for index in range(26):
        x, y, radius = rng.uniform(0, width), height * rng.uniform(0.24, 0.6), rng.uniform(13, 30)
        first, second = PALETTE[index % len(PALETTE)], PALETTE[(index + 2) % len(PALETTE)]
        pen.rectangle((x - radius * 0.22, y - radius * 1.75, x + radius * 0.22, y - radius * 1.4), fill=INK)
        pen.polygon([(x - radius * 0.75, y - radius * 0.6), (x + radius * 0.75, y - radius * 0.6), (x, y - radius * 1.5)], fill=second)
        for share, fill in ((1.0, first), (0.66, CREAM), (0.3, second)):
            pen.ellipse([x - radius * share, y - radius, x + radius * share, y + radius], fill=fill)
    return speckled(rng, pixels(picture), 0.035, cells=40)


def _village(rng: np.random.Generator, horizon: Texture) -> Texture:
    height, width = horizon.shape[:2]
    picture = Image.fromarray(np.clip(horizon, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(230):
        x, base = rng.uniform(0, width), height * rng.uniform(0.015, 0.105)
        tall, wide = rng.uniform(14, 40), rng.uniform(12, 34)
        if rng.uniform() < 0.62:
            green = tuple(int(v) for v in np.asarray((74, 108, 70)) * rng.uniform(0.8, 1.35))
            pen.ellipse([x - wide / 2, base + tall * 0.15, x + wide / 2, base + tall * 1.25], fill=green)
            continue
        wall, roof = [(236, 222, 196), (222, 196, 168), (206, 212, 214)][rng.integers(3)], PALETTE[rng.integers(2)]
        pen.rectangle((x - wide / 2, base, x + wide / 2, base + tall * 0.6), fill=wall)
        pen.polygon([(x - wide * 0.6, base + tall * 0.6), (x + wide * 0.6, base + tall * 0.6), (x, base + tall)], fill=roof)
        pen.rectangle((x - wide * 0.28, base + tall * 0.2, x - wide * 0.1, base + tall * 0.42), fill=INK)
        pen.rectangle((x + wide * 0.1, base + tall * 0.2, x + wide * 0.28, base + tall * 0.42), fill=INK)
    return pixels(picture)
