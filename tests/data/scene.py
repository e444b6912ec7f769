"""What stands in the demo scene: a round plaza with toy blocks, a brick arch, a column, trees, a ring and balls, in metres, z up."""

from dataclasses import dataclass

import numpy as np

from tests.data import texture
from tests.data.curves import Arch, Floor, Sky, Torus
from tests.data.ground import backdrop, meadow, plaza
from tests.data.shapes import Box, Floats, Frustum, Shape, Sphere
from tests.data.texture import CREAM, INK, PALETTE, Texture

WORDS = ("SPLAT", "QUOKW", "BRAVE", "FJORD", "MUSIC", "NYMPH", "GHOST", "ZEBRA")


@dataclass(frozen=True)
class Gloss:
    """How a surface shines: strength and sharpness of the sun's highlight, and the mirror share seen head on."""

    highlight: float = 0.0
    power: float = 40.0
    mirror: float = 0.0


DULL = Gloss()
SATIN = Gloss(0.25, 30.0, 0.02)
POLISHED = Gloss(0.9, 120.0, 0.05)


@dataclass(frozen=True)
class Solid:
    """A shape in its place, with one texture a face. ``is_lit`` is false for the sky, which is its own light."""

    shape: Shape
    centre: Floats  # [3]
    world_from_local: Floats  # [3, 3]
    textures: tuple[Texture, ...]
    gloss: Gloss = DULL
    is_lit: bool = True


def turned(yaw_deg: float, tilt_deg: float = 0.0) -> Floats:
    """Return the rotation [3, 3] that tilts about x, then turns about z."""
    yaw, tilt = np.radians(yaw_deg), np.radians(tilt_deg)
    turn = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    lean = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    return (np.asarray(turn) @ np.asarray(lean)).astype(np.float32)


class Builder:
    """Places solids; every random choice comes from ``rng``."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 7])
        self.seed = seed
        self.solids: list[Solid] = []
        self.colours = [PALETTE[i] for i in (np.arange(len(PALETTE)) + seed) % len(PALETTE)]

    def put(
        self, shape: Shape, at: tuple[float, float, float], textures: tuple[Texture, ...], gloss: Gloss = DULL, yaw: float = 0.0
    ) -> None:
        """Add a solid that stands upright."""
        self.solids.append(Solid(shape, np.asarray(at, np.float32), turned(yaw), textures, gloss))

    def brick_box(self, half: tuple[float, float, float], at: tuple[float, float, float], yaw: float) -> None:
        """Add masonry: brick on the four sides, stone above and below."""
        faces = [self._masonry(*size) for size in Box(half).sizes[:4]]
        self.put(Box(half), at, (*faces, self.stone(half[0], half[1]), self.stone(half[0], half[1])), yaw=yaw)

    def _masonry(self, width: float, height: float) -> Texture:
        rows, columns = max(2, round(height / 0.11)), max(1, round(width / 0.24))
        return texture.bricks(self.rng, _px(height), _px(width), rows, columns)

    def stone(self, half_width: float, half_height: float) -> Texture:
        """Return stone for a face of these half sizes."""
        return texture.stone(self.rng, _px(2 * half_height), _px(2 * half_width))

    def stone_box(self, half: tuple[float, float, float], at: tuple[float, float, float], yaw: float) -> None:
        """Add a block of stone."""
        self.put(Box(half), at, tuple(self.stone(w / 2, h / 2) for w, h in Box(half).sizes), yaw=yaw)


def _px(metres: float) -> int:
    return int(np.clip(round(metres * 300 / 16) * 16, 32, 768))


def build(seed: int = 0) -> list[Solid]:
    """Return the scene of this seed, floor and sky first. Other seeds give other words, colours, textures and places."""
    builder = Builder(seed)
    rng = builder.rng
    floor = Solid(Floor(3.0, 8.0), np.zeros(3, np.float32), turned(0), (plaza(rng), meadow(rng)))
    sky = Solid(Sky(8.0), np.zeros(3, np.float32), turned(0), (backdrop(rng),), Gloss(), is_lit=False)
    for place in (_arch, _blocks, _column, _trees, _playthings, _books, _bench):
        place(builder)
    return [floor, sky, *(_moved(solid, 57.0 * seed) for solid in builder.solids)]


def _moved(solid: Solid, yaw_deg: float) -> Solid:
    around = turned(yaw_deg)
    return Solid(solid.shape, around @ solid.centre, around @ solid.world_from_local, solid.textures, solid.gloss)


def _arch(b: Builder) -> None:
    at, yaw, depth = np.asarray((-0.35, 1.55, 0.0)), 12.0, 0.24
    for side in (-1, 1):
        foot = turned(yaw) @ np.asarray((side * 0.76, 0, 0))
        b.brick_box((0.2, depth, 0.46), tuple(at + foot + (0, 0, 0.46)), yaw)
        b.stone_box((0.245, depth + 0.045, 0.05), tuple(at + foot + (0, 0, 0.97)), yaw)
    outside = texture.bricks(b.rng, 144, 768, 4, 13)
    ring = [texture.bricks(b.rng, 112, 768, 1, 15, colour=(190, 120, 84)) for _ in range(2)]
    b.put(Arch(0.56, 0.94, depth), (at[0], at[1], 1.02), (outside, outside[:, ::-1], ring[0], ring[1][:, ::-1]), yaw=yaw)


def _blocks(b: Builder) -> None:
    word, half = WORDS[b.seed % len(WORDS)], 0.25
    places = (
        (-1.42, -0.72, half, 8),
        (-0.83, -0.86, half, -11),
        (-0.22, -0.8, half, 5),
        (-1.14, -0.79, 3 * half, -6),
        (-0.55, -0.86, 3 * half, 14),
    )
    letters = "ABCDEFGHKMNRSUVXYZ"
    for index, (x, y, z, yaw) in enumerate(places):
        faces = [letters[b.rng.integers(len(letters))] for _ in range(6)]
        faces[3] = word[index]
        colours = [b.colours[(index + k // 2) % len(b.colours)] for k in range(6)]
        painted = tuple(texture.letter_face(b.rng, letter, colour) for letter, colour in zip(faces, colours, strict=True))
        b.put(Box((half, half, half)), (x, y, z), painted, SATIN, yaw)


def _column(b: Builder) -> None:
    x, y = 1.55, 0.95
    b.stone_box((0.62, 0.62, 0.07), (x, y, 0.07), 22)
    b.stone_box((0.46, 0.46, 0.07), (x, y, 0.21), 22)
    shaft = texture.marble(b.rng, 320, 512, (226, 214, 200), (134, 96, 84))
    b.put(Frustum(0.24, 0.2, 0.95), (x, y, 0.28), (shaft, shaft[:64, :64], shaft[:64, :64]), SATIN, 40)
    b.stone_box((0.3, 0.3, 0.05), (x, y, 1.28), 22)
    ball = texture.marble(b.rng, 320, 640, (48, 84, 142), (232, 206, 150))
    b.put(Sphere(0.33), (x, y, 1.66), (ball,), POLISHED, 70)


def _trees(b: Builder) -> None:
    for x, y, yaw, tall in ((-2.15, 0.55, 18, 1.0), (2.05, -0.62, -14, 0.82)):
        half = 0.27
        sides = tuple(texture.bands(b.rng, _px(h), _px(w), (b.colours[2], CREAM, b.colours[1]), 4) for w, h in Box((half, half, 0.2)).sizes)
        b.put(Box((half, half, 0.2)), (x, y, 0.2), sides, SATIN, yaw)
        for base, radius, height in ((0.4, 0.42, 0.75), (0.4 + 0.42 * tall, 0.34, 0.66), (0.4 + 0.85 * tall, 0.25, 0.58)):
            leaf = texture.leaves(b.rng, 208, 512)
            b.put(Frustum(radius, 0.02, height * tall), (x, y, base), (leaf, leaf[:64, :64], leaf[:64, :64]), DULL, 3 * yaw + 100 * base)


def _playthings(b: Builder) -> None:
    red, amber, blue = b.colours[0], b.colours[1], b.colours[2]
    swim = texture.stripes(b.rng, 224, 768, (red, CREAM), 0.06, 6)
    b.solids.append(Solid(Torus(0.4, 0.15), np.asarray((0.75, -1.28, 0.2), np.float32), turned(30, 12), (swim,), POLISHED))
    ball = texture.stripes(b.rng, 256, 512, (blue, CREAM, amber), 0.22, 3)
    b.put(Sphere(0.27), (0.7, -1.26, 0.36), (ball,), POLISHED, 35)
    words = (WORDS[b.seed % len(WORDS)], "tomato soup", "400 grams")
    tin = texture.label(b.rng, 224, 704, words, red)
    lid = texture.bands(b.rng, 128, 128, ((188, 190, 194), (160, 164, 170)), 5)
    b.put(Frustum(0.27, 0.27, 0.62), (-0.42, 0.32, 0.0), (tin, lid, lid), SATIN, 200)
    cone = texture.bands(b.rng, 320, 512, (red, CREAM), 6)
    b.put(Box((0.3, 0.3, 0.03)), (1.42, -0.05, 0.03), tuple(texture.stone(b.rng, 64, 160, INK) for _ in range(6)), DULL, 33)
    b.put(Frustum(0.24, 0.03, 0.78), (1.42, -0.05, 0.06), (cone, cone[:32, :32], cone[:32, :32]), SATIN, 80)
    marbled = texture.marble(b.rng, 256, 512, (196, 70, 62), (244, 220, 180))
    b.put(Sphere(0.24), (-1.75, -0.05, 0.24), (marbled,), POLISHED, 120)


def _books(b: Builder) -> None:
    base = 0.0
    for index, (half, yaw) in enumerate((((0.42, 0.3, 0.07), 24), ((0.38, 0.27, 0.06), 41), ((0.33, 0.24, 0.05), 8))):
        colour, other = b.colours[(index + 3) % len(b.colours)], b.colours[(index + 1) % len(b.colours)]
        sides = tuple(texture.bands(b.rng, _px(h), _px(w), (colour, other, CREAM), 3) for w, h in Box(half).sizes[:4])
        cover = texture.label(b.rng, _px(2 * half[1]), _px(2 * half[0]), ("Vol. " + "III"[: index + 1], "of Splats"), colour)
        b.put(Box(half), (0.62, 0.28, base + half[2]), (*sides, cover, cover), SATIN, yaw)
        base += 2 * half[2]
    b.put(Sphere(0.13), (0.6, 0.3, base + 0.13), (texture.marble(b.rng, 128, 256, (86, 148, 110), (236, 232, 200)),), POLISHED, 10)


def _bench(b: Builder) -> None:
    for along in (-0.5, 0.5):
        foot = turned(-38) @ np.asarray((along, 0, 0))
        b.brick_box((0.12, 0.2, 0.17), tuple(np.asarray((-1.65, -1.75, 0.17)) + foot), -38)
    b.stone_box((0.75, 0.25, 0.05), (-1.65, -1.75, 0.39), -38)
