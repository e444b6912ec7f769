"""The curved solids and the two surroundings of the demo scene: ring, arch, floor, sky. Same three questions as ``shapes``."""

from dataclasses import dataclass

import numpy as np

from tests.data.shapes import EPS, MISS, Chart, Floats, Sphere, nearest, roots, stack

FULL_TURN = np.float32(2 * np.pi)


@dataclass(frozen=True)
class Torus:
    """A ring about z: ``ring`` from the middle to the tube's middle, ``tube`` its thickness; u around the ring, v around the tube."""

    ring: float
    tube: float

    @property
    def reach(self) -> float:
        return self.ring + self.tube

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        return ((2 * np.pi * (self.ring + self.tube), 2 * np.pi * self.tube),)

    def _distance(self, p: Floats) -> Floats:
        distance: Floats = np.hypot(np.hypot(p[0], p[1]) - np.float32(self.ring), p[2]) - np.float32(self.tube)
        return distance

    def hit(self, o: Floats, d: Floats) -> Floats:
        """March along the distance field, only those rays that meet the ball around the ring."""
        enter, leave, real = roots(np.ones_like(d[0]), (o * d).sum(axis=0), (o * o).sum(axis=0) - np.float32(self.reach**2))
        best = np.full_like(enter, MISS)
        rays = np.flatnonzero(real & (leave > EPS))
        t, end = np.maximum(enter[rays], EPS), leave[rays]
        ro, rd = o[:, rays], d[:, rays]
        for _ in range(48):
            gap = self._distance(ro + t * rd)
            t = np.where(t < end, t + gap, t)
        best[rays] = np.where((t < end) & (np.abs(gap) < 2e-3) & (t > EPS), t, MISS)
        return best

    def chart(self, p: Floats) -> Chart:
        u = np.arctan2(p[1], p[0]) / FULL_TURN % 1
        v = np.arctan2(p[2], np.hypot(p[0], p[1]) - np.float32(self.ring)) / FULL_TURN % 1
        return np.zeros(len(u), np.int64), u, v

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:  # noqa: ARG002 (one face only)
        turn, roll = u * FULL_TURN, v * FULL_TURN
        normal = stack(np.cos(roll) * np.cos(turn), np.cos(roll) * np.sin(turn), np.sin(roll))
        middle = stack(np.cos(turn), np.sin(turn), np.zeros_like(u)) * np.float32(self.ring)
        return middle + normal * np.float32(self.tube), normal


@dataclass(frozen=True)
class Arch:
    """The upper half of a pipe along y, ``depth`` to either side; faces outside, inside, front (-y), back (+y)."""

    inner: float
    outer: float
    depth: float

    @property
    def reach(self) -> float:
        return float(np.hypot(self.outer, self.depth))

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        around = np.pi * self.outer
        return (around, 2 * self.depth), (around, 2 * self.depth), (around, self.outer - self.inner), (around, self.outer - self.inner)

    def hit(self, o: Floats, d: Floats) -> Floats:
        a, b, c = d[0] ** 2 + d[2] ** 2, o[0] * d[0] + o[2] * d[2], o[0] ** 2 + o[2] ** 2
        candidates = []
        for radius in (self.outer, self.inner):
            first, second, real = roots(a, b, c - np.float32(radius**2))
            candidates += [(t, real & (o[2] + t * d[2] >= 0) & (np.abs(o[1] + t * d[1]) <= self.depth)) for t in (first, second)]
        along = np.where(np.abs(d[1]) < 1e-9, np.float32(1e-9), d[1])
        for y in (-self.depth, self.depth):
            t = (np.float32(y) - o[1]) / along
            radius2 = (o[0] + t * d[0]) ** 2 + (o[2] + t * d[2]) ** 2
            candidates.append((t, (radius2 < self.outer**2) & (radius2 > self.inner**2) & (o[2] + t * d[2] >= 0)))
        return nearest(*candidates)

    def chart(self, p: Floats) -> Chart:
        radius = np.hypot(p[0], p[2])
        gaps = np.abs(np.stack([radius - self.outer, radius - self.inner, p[1] + self.depth, p[1] - self.depth]))
        face = gaps.argmin(axis=0)
        u = np.clip(np.arctan2(p[2], p[0]) / np.float32(np.pi), 0, 1)
        across, up = (p[1] / np.float32(self.depth) + 1) / 2, (radius - np.float32(self.inner)) / np.float32(self.outer - self.inner)
        return face, u, np.clip(np.where(face < 2, across, up), 0, 1)

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        turn = u * np.float32(np.pi)
        out = stack(np.cos(turn), np.zeros_like(u), np.sin(turn))
        if face < 2:
            point = out * np.float32(self.inner if face else self.outer)
            point[1] = (2 * v - 1) * np.float32(self.depth)
            return point, -out if face else out
        point = out * (np.float32(self.inner) + v * np.float32(self.outer - self.inner))
        point[1] = -self.depth if face == 2 else self.depth
        normal = np.zeros_like(point)
        normal[1] = -1 if face == 2 else 1
        return point, normal


@dataclass(frozen=True)
class Floor:
    """The plane z = 0: a round plaza (face 0) in a square meadow (face 1)."""

    plaza: float
    meadow: float

    @property
    def reach(self) -> float:
        return self.meadow * 1.5

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        return (2 * self.plaza, 2 * self.plaza), (2 * self.meadow, 2 * self.meadow)

    def hit(self, o: Floats, d: Floats) -> Floats:
        t = -o[2] / np.where(np.abs(d[2]) < 1e-9, np.float32(1e-9), d[2])
        return np.where(t > EPS, t, MISS)

    def chart(self, p: Floats) -> Chart:
        face = (p[0] ** 2 + p[1] ** 2 > self.plaza**2).astype(np.int64)
        half = np.where(face == 0, np.float32(self.plaza), np.float32(self.meadow))
        return face, np.clip((p[0] / half + 1) / 2, 0, 1), np.clip((p[1] / half + 1) / 2, 0, 1)

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        half = np.float32(self.meadow if face else self.plaza)
        zero = np.zeros_like(u)
        return stack((2 * u - 1) * half, (2 * v - 1) * half, zero), stack(zero, zero, zero + 1)


@dataclass(frozen=True)
class Sky(Sphere):
    """The inside of the upper half of a ball; v runs from the horizon to the zenith."""

    def chart(self, p: Floats) -> Chart:
        face, u, v = super().chart(p)
        return face, u, np.clip(2 * v - 1, 0, 1)

    def surface(self, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        point, normal = super().surface(face, u, (v + 1) / 2)
        return point, -normal
