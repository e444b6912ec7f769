"""Light of the demo scene: sun with soft shadows and light from all around with occlusion, painted into the textures once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.data.scene import Gloss, Solid
from tests.data.shapes import Floats
from tests.data.texture import Texture


@dataclass(frozen=True)
class Blockers:
    """The solids that cast shadows, with the balls that hold them."""

    solids: list[Solid]
    centres: Floats  # [n, 3]
    reaches: Floats  # [n]

    @classmethod
    def among(cls, solids: list[Solid]) -> "Blockers":
        """Return all but floor and sky."""
        rest = solids[2:]
        return cls(rest, np.stack([each.centre for each in rest]), np.asarray([each.shape.reach for each in rest], np.float32))


Measure = Callable[[Blockers, Floats, Floats], Floats]

SUN = (np.asarray((0.55, -0.6, 0.72)) / np.linalg.norm((0.55, -0.6, 0.72))).astype(np.float32)
SUN_COLOUR = np.asarray((1.62, 1.46, 1.2), np.float32)
SUN_RADIUS = 0.035
SKY_COLOUR = np.asarray((0.5, 0.57, 0.68), np.float32)
BOUNCE = np.asarray((0.36, 0.31, 0.25), np.float32)
NEARBY = np.asarray((0.17, 0.15, 0.14), np.float32)


@dataclass(frozen=True)
class Lit:
    """A face ready to be looked up: radiance of the dull part, and in the fourth channel how much sun reaches it."""

    rgba: Texture  # [H, W, 4]
    gloss: Gloss
    size_m: tuple[float, float]


def is_hidden(blockers: Blockers, o: Floats, d: Floats) -> npt.NDArray[np.bool_]:
    """Return for each ray from ``o`` [3, n] along the one direction ``d`` [3] whether any solid but floor and sky stops it."""
    hidden = np.zeros(o.shape[1], bool)
    if not o.shape[1]:
        return hidden
    for solid in _in_the_way(blockers, o, d):
        apart = solid.centre[:, None] - o
        along = d @ apart
        near = np.einsum("ij,ij->j", apart, apart) - along * along < np.float32(solid.shape.reach**2)
        rays = np.flatnonzero(near & (along > -solid.shape.reach) & ~hidden)
        if len(rays):
            inward = solid.world_from_local.T
            toward = np.broadcast_to((inward @ d)[:, None], (3, len(rays)))
            hidden[rays] = np.isfinite(solid.shape.hit(inward @ -apart[:, rays], toward))
    return hidden


def _in_the_way(blockers: Blockers, o: Floats, d: Floats) -> list[Solid]:
    """Return the solids whose ball meets the beam of all the rays."""
    low, high = o.min(axis=1), o.max(axis=1)
    apart = blockers.centres - (low + high) / 2
    room = blockers.reaches + np.linalg.norm(high - low) / 2
    along = apart @ d
    meets = ((apart * apart).sum(axis=1) - along * along < room * room) & (along > -room)
    return [blockers.solids[i] for i in np.flatnonzero(meets)]


def light(solids: list[Solid], threads: int = 2) -> list[list[Lit]]:
    """Return every face of every solid with the light painted in."""
    blockers = Blockers.among(solids)
    faces = [(solid, face) for solid in solids for face in range(len(solid.textures))]
    with ThreadPoolExecutor(threads) as pool:
        lit = iter(list(pool.map(lambda each: _lit_face(blockers, *each), faces)))
    return [[next(lit) for _ in solid.textures] for solid in solids]


def _lit_face(blockers: Blockers, solid: Solid, face: int) -> Lit:
    albedo, size = solid.textures[face][::-1], solid.shape.sizes[face]  # pictures start at the top, v at the bottom
    if not solid.is_lit:
        return Lit(np.concatenate([albedo, np.zeros_like(albedo[..., :1])], axis=2), solid.gloss, size)
    spacing = 0.05 if size[0] > 10 else 0.018
    sun = _lattice(blockers, solid, face, spacing, _sunlight)
    around = _lattice(blockers, solid, face, 4 * spacing, _ambient)
    height, width = albedo.shape[:2]
    shade, glow = _enlarged(sun, height, width), _enlarged(around, height, width)
    return Lit(np.concatenate([albedo * (shade[..., :1] * SUN_COLOUR + glow), shade[..., 1:]], axis=2), solid.gloss, size)


def _lattice(blockers: Blockers, solid: Solid, face: int, spacing: float, measure: Measure) -> Texture:
    width, height = (int(np.clip(np.ceil(side / spacing), 3, 400)) for side in solid.shape.sizes[face])
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    point, normal = solid.shape.surface(face, u.ravel().astype(np.float32), v.ravel().astype(np.float32))
    point, normal = solid.world_from_local @ point + solid.centre[:, None], solid.world_from_local @ normal
    point = (point + normal * np.float32(4e-3)).astype(np.float32)
    bands = np.array_split(np.arange(point.shape[1]), max(1, point.shape[1] // 6000))
    return np.concatenate([measure(blockers, point[:, band], normal[:, band]) for band in bands]).reshape(height, width, -1)


def _sunlight(blockers: Blockers, point: Floats, normal: Floats) -> Floats:
    """Return [n, 2]: sun times cosine, and the share of the sun's disc that is seen."""
    side = np.cross(SUN, (0, 0, 1.0))
    side, up = side / np.linalg.norm(side), np.cross(side / np.linalg.norm(side), SUN)
    cosine = np.maximum(SUN @ normal, 0)
    facing = np.flatnonzero(cosine > 0)
    seen = np.zeros(point.shape[1], np.float32)
    n = 9
    for index in range(n):
        turn, radius = index * 2.399963, SUN_RADIUS * np.sqrt((index + 0.5) / n)
        toward = SUN + radius * (np.cos(turn) * side + np.sin(turn) * up)
        seen[facing] += ~is_hidden(blockers, point[:, facing], (toward / np.linalg.norm(toward)).astype(np.float32))
    return np.stack([seen / n * cosine, seen / n], axis=1).astype(np.float32)


def _ambient(blockers: Blockers, point: Floats, normal: Floats) -> Floats:
    """Return [n, 3]: light from sky, ground and neighbours, over a fixed fan of directions weighted by the cosine."""
    total, weight = np.zeros((point.shape[1], 3), np.float32), np.zeros(point.shape[1], np.float32)
    n = 32
    for index in range(n):
        z = 1 - 2 * (index + 0.5) / n
        flat = np.sqrt(1 - z * z)
        direction = np.asarray((flat * np.cos(index * 2.399963), flat * np.sin(index * 2.399963), z), np.float32)
        cosine = np.maximum(direction @ normal, 0)
        facing = np.flatnonzero(cosine > 0)
        hidden = is_hidden(blockers, point[:, facing], direction)
        open_light = BOUNCE if z < 0 else SKY_COLOUR * np.float32(0.75 + 0.5 * z)
        total[facing] += cosine[facing, None] * np.where(hidden[:, None], NEARBY, open_light)
        weight += cosine
    return total / weight[:, None]


def _enlarged(small: Texture, height: int, width: int) -> Texture:
    size = (width, height)
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(small[..., k])).resize(size, Image.Resampling.BILINEAR))
        for k in range(small.shape[2])
    ]
    return np.stack(planes, axis=2)
