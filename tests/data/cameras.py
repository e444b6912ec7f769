"""Where the demo's photographer stood: an orbit and a half by hand, not level, not even, now and then with the phone turned upright."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.scene import PinholeView

FOCAL_35MM = 26
UPRIGHT, TURN_RIGHT, TURN_LEFT = 1, 6, 8  # EXIF Orientation: shown as stored, turned right by 90°, turned left by 90°


@dataclass(frozen=True)
class Shot:
    """One photo to take: the view of the upright picture, and the EXIF orientation that the stored pixels get."""

    name: str
    view: PinholeView
    orientation: int


@dataclass(frozen=True)
class Walk:
    """The photographer's plan. ``turn_every`` photos one is taken upright-format (0: none); ``step_deg`` is the angle between photos."""

    n_photos: int = 40
    width: int = 960
    height: int = 720
    seed: int = 0
    turn_every: int = 13
    step_deg: float = 13.5


def walk(plan: Walk) -> list[Shot]:
    """Return the shots: true poses ``cam_from_world`` in metres, z up, and true intrinsics in pixels."""
    rng = np.random.default_rng([plan.seed, 11])
    phase = rng.uniform(0, 2 * np.pi, 3)
    return [_shot(plan, index, phase, rng) for index in range(plan.n_photos)]


def _shot(plan: Walk, index: int, phase: npt.NDArray[np.float64], rng: np.random.Generator) -> Shot:
    step = np.radians(plan.step_deg)
    angle = np.radians(-108) + index * step + rng.normal(0, 0.12) * step
    radius = 4.2 + 0.32 * np.sin(1.7 * angle + phase[0]) + rng.normal(0, 0.06)
    rise = 2.3 + 0.5 * np.sin(0.9 * angle + phase[1]) + 0.12 * np.sin(2.9 * angle + phase[2]) + rng.normal(0, 0.03)
    eye = np.asarray((radius * np.cos(angle), radius * np.sin(angle), rise))
    target = np.asarray((0.0, 0.0, 0.28)) + rng.normal(0, (0.1, 0.1, 0.03))
    pose = look_at(eye, target, roll_deg=float(rng.normal(0, 1.8)))
    is_turned = bool(plan.turn_every) and index % plan.turn_every == 5
    width, height = (plan.height, plan.width) if is_turned else (plan.width, plan.height)
    focal = FOCAL_35MM / 36 * max(width, height)
    orientation = UPRIGHT if not is_turned else (TURN_RIGHT, TURN_LEFT)[index // plan.turn_every % 2]
    return Shot(f"IMG_{index + 1:04d}.jpg", PinholeView(pose, focal, focal, width / 2, height / 2, width, height), orientation)


def look_at(eye: npt.NDArray[np.float64], target: npt.NDArray[np.float64], roll_deg: float = 0.0) -> npt.NDArray[np.float64]:
    """Return ``cam_from_world`` [3, 4] (OpenCV axes) of a camera at ``eye`` that looks at ``target``, z up, rolled about its axis."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    level = np.cross(forward, (0.0, 0.0, 1.0))
    right = level / np.linalg.norm(level)
    down = np.cross(forward, right)
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return np.concatenate([rotation, -(rotation @ eye)[:, None]], axis=1)
