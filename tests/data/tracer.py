"""A small ray tracer in numpy: tiles of rays against solids, lit textures by their footprint, shine on top. It knows nothing of splats."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.scene import PinholeView
from tests.data.light import SKY_COLOUR, SUN, SUN_COLOUR, Lit, light
from tests.data.scene import Solid
from tests.data.shapes import Floats, Ints

TILE = 120


@dataclass(frozen=True)
class Atlas:
    """All lit faces and their halvings in one row of texels. Tables are indexed [face id, level]."""

    texels: Floats  # [n, 4]
    starts: Ints  # [F, L]
    widths: Ints  # [F, L]
    heights: Ints  # [F, L]
    levels: Ints  # [F]
    per_metre: Floats  # [F] texels at level 0
    gloss: Floats  # [F, 3] highlight, power, mirror


@dataclass(frozen=True)
class World:
    """A scene ready to be photographed. ``first_face[i]`` is the atlas id of solid i's face 0."""

    solids: list[Solid]
    atlas: Atlas
    first_face: Ints


def prepare(solids: list[Solid]) -> World:
    """Return the scene with its light painted in and its textures packed."""
    faces = light(solids)
    counts = np.asarray([len(each) for each in faces])
    return World(solids, _pack([lit for each in faces for lit in each]), np.concatenate([[0], np.cumsum(counts)[:-1]]))


def _pack(faces: list[Lit]) -> Atlas:
    depth = 8
    starts, widths, heights = (np.zeros((len(faces), depth), np.int64) for _ in range(3))
    levels, parts, used = np.zeros(len(faces), np.int64), [], 0
    for index, lit in enumerate(faces):
        picture = lit.rgba
        for level in range(depth):
            heights[index, level], widths[index, level] = picture.shape[:2]
            starts[index, level], levels[index] = used, level
            parts.append(picture.reshape(-1, 4))
            used += len(parts[-1])
            if min(picture.shape[:2]) < 8:
                break
            even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            picture = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    density = [np.sqrt(f.rgba.shape[0] * f.rgba.shape[1] / (f.size_m[0] * f.size_m[1])) for f in faces]
    gloss = np.asarray([(f.gloss.highlight, f.gloss.power, f.gloss.mirror) for f in faces], np.float32)
    return Atlas(np.concatenate(parts), starts, widths, heights, levels, np.asarray(density, np.float32), gloss)


def look_up(atlas: Atlas, face: Ints, u: Floats, v: Floats, footprint_m: Floats) -> Floats:
    """Return [n, 4] texels, bilinear, at the level whose texels are about as large as the footprint."""
    wanted = np.log2(np.maximum(footprint_m * atlas.per_metre[face], 1e-6))
    level = np.clip(np.rint(wanted).astype(np.int64), 0, atlas.levels[face])
    width, height, start = atlas.widths[face, level], atlas.heights[face, level], atlas.starts[face, level]
    x, y = np.clip(u * width - 0.5, 0, width - 1), np.clip(v * height - 0.5, 0, height - 1)
    left, low = x.astype(np.int64), y.astype(np.int64)
    right, high = np.minimum(left + 1, width - 1), np.minimum(low + 1, height - 1)
    fx, fy = (x - left).astype(np.float32)[:, None], (y - low).astype(np.float32)[:, None]
    bottom, top = start + low * width, start + high * width
    texels = atlas.texels
    below = texels[bottom + left] * (1 - fx) + texels[bottom + right] * fx
    above = texels[top + left] * (1 - fx) + texels[top + right] * fx
    texel: Floats = below * (1 - fy) + above * fy
    return texel


def render(world: World, view: PinholeView) -> Floats:
    """Return the photo as linear light [H, W, 3]: one ray a pixel, and 2×2 rays wherever neighbours differ."""
    photo = np.zeros((view.height, view.width, 3), np.float32)
    boxes = np.asarray([_screen_box(solid, view) for solid in world.solids])
    tiles = [(y, x) for y in range(0, view.height, TILE) for x in range(0, view.width, TILE)]
    everywhere = np.ones((view.height, view.width), bool)
    for tile in tiles:
        _paint(world, view, boxes, photo, everywhere, tile, 1)
    rough = _contrast(photo) > 0.08
    for tile in tiles:
        _paint(world, view, boxes, photo, rough, tile, 2)
    return photo


def _contrast(photo: Floats) -> Floats:
    """Return [H, W]: the largest difference to the four neighbours, in displayed brightness."""
    shown: Floats = np.sqrt(np.minimum(photo, 1)).max(axis=2)
    most: Floats = np.zeros_like(shown)
    for axis in (0, 1):
        step = np.abs(np.diff(shown, axis=axis))
        first, second = (slice(None, -1), slice(1, None))
        before, after = ((first, slice(None)), (second, slice(None))) if axis == 0 else ((slice(None), first), (slice(None), second))
        np.maximum(most[before], step, out=most[before])
        np.maximum(most[after], step, out=most[after])
    return most


def _screen_box(solid: Solid, view: PinholeView) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom pixels that surely hold the solid."""
    pose, reach = view.cam_from_world, solid.shape.reach
    x, y, z = pose[:, :3] @ solid.centre + pose[:, 3]
    if z < 1.05 * reach:
        return (0, 0, view.width, view.height) if z > -reach else (0, 0, 0, 0)
    margin = reach * np.sqrt(1 + (abs(x) + abs(y)) / z) / (z - reach)
    column, row = view.cx + view.fx * x / z, view.cy + view.fy * y / z
    slack = margin * max(view.fx, view.fy) * np.sqrt(1 + (x * x + y * y) / (z * z))
    return column - slack, row - slack, column + slack, row + slack


def _paint(
    world: World, view: PinholeView, boxes: Floats, photo: Floats, wanted: npt.NDArray[np.bool_], tile: tuple[int, int], sub: int
) -> None:
    """Fill the wanted pixels of one tile with the mean of ``sub`` × ``sub`` rays."""
    rows, columns = np.nonzero(wanted[tile[0] : tile[0] + TILE, tile[1] : tile[1] + TILE])
    if not len(rows):
        return
    rows, columns = rows + tile[0], columns + tile[1]
    left, top, right, bottom = boxes.T
    chosen = np.flatnonzero((left <= columns.max() + 1) & (right >= columns.min()) & (top <= rows.max() + 1) & (bottom >= rows.min()))
    offsets = (np.arange(sub) + 0.5) / sub
    x = (columns[:, None, None] + offsets[None, None, :] - view.cx) / view.fx + np.zeros((1, sub, 1))
    y = (rows[:, None, None] + offsets[None, :, None] - view.cy) / view.fy + np.zeros((1, 1, sub))
    rotation = view.cam_from_world[:, :3]
    toward = (rotation.T @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).astype(np.float32)
    stretch = np.sqrt((toward * toward).sum(axis=0))
    eye = (-rotation.T @ view.cam_from_world[:, 3]).astype(np.float32)
    colour = shade(world, chosen.tolist(), eye, toward / stretch, (stretch / np.float32(sub * view.fx)))
    photo[rows, columns] = colour.reshape(len(rows), sub * sub, 3).mean(axis=1)


def shade(world: World, chosen: list[int], eye: Floats, d: Floats, spread: Floats) -> Floats:
    """Return linear light [n, 3] along rays from ``eye`` [3] in directions ``d`` [3, n]; ``spread`` [n] is a ray's width per metre."""
    t, owner = _first_hits(world, chosen, eye, d)
    n = d.shape[1]
    face, u, v = np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros(n, np.float32)
    normal = np.zeros((3, n), np.float32)
    for index in chosen:
        rays = np.flatnonzero(owner == index)
        if not len(rays):
            continue
        solid = world.solids[index]
        local = solid.world_from_local.T @ (eye[:, None] + t[rays] * d[:, rays] - solid.centre[:, None])
        side, u[rays], v[rays] = solid.shape.chart(local)
        face[rays] = world.first_face[index] + side
        for each in range(len(solid.textures)):
            part = rays[side == each]
            if len(part):
                normal[:, part] = solid.world_from_local @ solid.shape.surface(each, u[part], v[part])[1]
    facing = np.clip(-(normal * d).sum(axis=0), 0.05, 1)
    texel = look_up(world.atlas, face, u, v, t * spread / np.sqrt(facing))
    return texel[:, :3] + _shine(world.atlas.gloss[face], d, normal, facing, texel[:, 3])


def _first_hits(world: World, chosen: list[int], eye: Floats, d: Floats) -> tuple[Floats, Ints]:
    best, owner = np.full(d.shape[1], 1e4, np.float32), np.ones(d.shape[1], np.int64)
    for index in chosen:
        solid = world.solids[index]
        inward = solid.world_from_local.T
        o = (inward @ (eye - solid.centre))[:, None]
        t = solid.shape.hit(np.ascontiguousarray(np.broadcast_to(o, d.shape)), inward @ d)
        closer = t < best
        best[closer], owner[closer] = t[closer], index
    return best, owner


def _shine(gloss: Floats, d: Floats, normal: Floats, facing: Floats, sun: Floats) -> Floats:
    """Return the sun's highlight (Phong) and the mirrored surroundings (Schlick's Fresnel), [n, 3]."""
    shiny = np.flatnonzero(gloss[:, 0] > 0)
    added = np.zeros((d.shape[1], 3), np.float32)
    strength, power, mirror = gloss[shiny].T
    bounced = d[:, shiny] + 2 * facing[shiny] * normal[:, shiny]
    toward_sun = np.clip(SUN @ bounced, 0, 1) ** power * strength * sun[shiny]
    fresnel = mirror + mirror * 6 * (1 - facing[shiny]) ** 5
    up = np.clip(0.5 + bounced[2], 0, 1)[:, None]
    around = SKY_COLOUR * (0.6 + 0.6 * up) * up + np.asarray((0.3, 0.27, 0.2), np.float32) * (1 - up)
    added[shiny] = toward_sun[:, None] * SUN_COLOUR + fresnel[:, None] * around
    return added
