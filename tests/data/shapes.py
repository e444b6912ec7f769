"""Solids of the demo scene, in their own coordinates: where a ray meets one, and how its faces are laid out.

Rays and points are [3, n] float32. Every shape answers three questions: ``hit`` (distance along the ray, inf for a miss), ``chart``
(face and u, v in 0..1 of a point on it) and ``surface`` (point and outward normal of a face at u, v; the inverse of ``chart``).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Chart = tuple[Ints, Floats, Floats]
EPS = np.float32(1e-4)
MISS = np.float32(np.inf)


class Shape(Protocol):
    """A solid: ``reach`` is the radius of a ball about its origin that holds it, ``sizes`` each face's width and height in metres."""

    @property
    def reach(self) -> float: ...
    @property
    def sizes(self) -> tuple[tuple[float, float], ...]: ...
    def hit(self, o: Floats, d: Floats) -> Floats: ...
    def chart(self, p: Floats) -> Chart: ...
    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]: ...


def stack(*rows: Floats) -> Floats:
    """Return [3, n] float32 of three rows."""
    return np.stack(np.broadcast_arrays(*rows)).astype(np.float32)


def nearest(*candidates: tuple[Floats, npt.NDArray[np.bool_]]) -> Floats:
    """Return the smallest positive distance among those that are valid."""
    best = np.full_like(candidates[0][0], MISS)
    for t, valid in candidates:
        best = np.where(valid & (t > EPS) & (t < best), t, best)
    return best


def roots(a: Floats, b: Floats, c: Floats) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return both solutions of a t² + 2 b t + c = 0 (smaller first when a > 0) and whether they are real."""
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    safe = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    return (-b - root) / safe, (-b + root) / safe, square > 0


@dataclass(frozen=True)
class Box:
    """A box of half sizes ``half``; faces +x -x +y -y +z -z, each upright as seen from outside."""

    half: tuple[float, float, float]

    @property
    def reach(self) -> float:
        return float(np.linalg.norm(self.half))

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        x, y, z = (2 * each for each in self.half)
        return (y, z), (y, z), (x, z), (x, z), (x, y), (x, y)

    def hit(self, o: Floats, d: Floats) -> Floats:
        half = np.asarray(self.half, np.float32)[:, None]
        inverse = 1 / np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
        middle, spread = -o * inverse, np.abs(inverse) * half
        near, far = (middle - spread).max(axis=0), (middle + spread).min(axis=0)
        return np.where((near <= far) & (near > EPS), near, MISS)

    def chart(self, p: Floats) -> Chart:
        q = p / np.asarray(self.half, np.float32)[:, None]
        axis = np.abs(q).argmax(axis=0)
        x, y, z = q
        face = 2 * axis + (np.take_along_axis(q, axis[None], 0)[0] < 0)
        u = np.choose(face, [y, -y, -x, x, x, x])
        v = np.choose(face, [z, z, z, z, y, -y])
        return face, (u + 1) / 2, (v + 1) / 2

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        a, b, one = 2 * u - 1, 2 * v - 1, np.ones_like(u)
        q = [(one, a, b), (-one, -a, b), (-a, one, b), (a, -one, b), (a, b, one), (a, -b, -one)][face]
        normal = np.zeros((3, len(u)), np.float32)
        normal[face // 2] = 1 - 2 * (face % 2)
        return stack(*q) * np.asarray(self.half, np.float32)[:, None], normal


@dataclass(frozen=True)
class Sphere:
    """A ball; u runs around, v from the south pole up."""

    radius: float

    @property
    def reach(self) -> float:
        return self.radius

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        return ((2 * np.pi * self.radius, np.pi * self.radius),)

    def hit(self, o: Floats, d: Floats) -> Floats:
        near, far, real = roots(np.ones_like(d[0]), (o * d).sum(axis=0), (o * o).sum(axis=0) - np.float32(self.radius**2))
        return nearest((near, real), (far, real))

    def chart(self, p: Floats) -> Chart:
        u = np.arctan2(p[1], p[0]) / np.float32(2 * np.pi) % 1
        v = np.arcsin(np.clip(p[2] / self.radius, -1, 1)) / np.float32(np.pi) + np.float32(0.5)
        return np.zeros(len(u), np.int64), u, v

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:  # noqa: ARG002 (one face only)
        turn, rise = u * np.float32(2 * np.pi), (v - np.float32(0.5)) * np.float32(np.pi)
        normal = stack(np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise))
        return normal * np.float32(self.radius), normal


@dataclass(frozen=True)
class Frustum:
    """A cylinder or cone standing on its origin: radius ``base`` at z = 0 and ``top`` at z = ``height``; faces side, top, bottom."""

    base: float
    top: float
    height: float

    @property
    def reach(self) -> float:
        return float(np.hypot(max(self.base, self.top), self.height))

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        widest = max(self.base, self.top)
        return (2 * np.pi * widest, self.height), (2 * widest, 2 * widest), (2 * widest, 2 * widest)

    def hit(self, o: Floats, d: Floats) -> Floats:
        slope = np.float32((self.top - self.base) / self.height)
        radius = np.float32(self.base) + slope * o[2]
        a = d[0] ** 2 + d[1] ** 2 - (slope * d[2]) ** 2
        b = o[0] * d[0] + o[1] * d[1] - radius * slope * d[2]
        first, second, real = roots(a, b, o[0] ** 2 + o[1] ** 2 - radius**2)
        sides = [(t, real & self._within(o[2] + t * d[2])) for t in (first, second)]
        fall = np.where(np.abs(d[2]) < 1e-9, np.float32(1e-9), d[2])
        caps = []
        for z, r in ((self.height, self.top), (0.0, self.base)):
            t = (np.float32(z) - o[2]) / fall
            caps.append((t, (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2 < r * r))
        return nearest(*sides, *caps)

    def _within(self, z: Floats) -> npt.NDArray[np.bool_]:
        return (z >= 0) & (z <= self.height)

    def chart(self, p: Floats) -> Chart:
        widest = np.float32(max(self.base, self.top))
        edge = np.float32(1e-3)
        top = (p[2] > self.height - edge) & (np.hypot(p[0], p[1]) < self.top - edge)
        bottom = (p[2] < edge) & (np.hypot(p[0], p[1]) < self.base - edge)
        face = np.where(top, 1, np.where(bottom, 2, 0))
        u = np.where(face == 0, np.arctan2(p[1], p[0]) / np.float32(2 * np.pi) % 1, (p[0] / widest + 1) / 2)
        v = np.where(face == 0, p[2] / np.float32(self.height), (p[1] / widest + 1) / 2)
        return face, u, np.clip(v, 0, 1)

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        if face:
            widest = np.float32(max(self.base, self.top))
            z = np.full_like(u, self.height if face == 1 else 0)
            normal = stack(np.zeros_like(u), np.zeros_like(u), np.full_like(u, 1 if face == 1 else -1))
            return stack((2 * u - 1) * widest, (2 * v - 1) * widest, z), normal
        turn = u * np.float32(2 * np.pi)
        radius = np.float32(self.base) + np.float32(self.top - self.base) * v
        lean = np.hypot(self.height, self.top - self.base)
        out, up = np.float32(self.height / lean), np.float32((self.base - self.top) / lean)
        point = stack(radius * np.cos(turn), radius * np.sin(turn), v * np.float32(self.height))
        return point, stack(out * np.cos(turn), out * np.sin(turn), np.full_like(u, up))
