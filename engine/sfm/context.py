"""What every step of structure from motion is given: photos, scratch space, seed, threads, deadline."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import CapacityError

# Share done of one step, 0..1, and words.
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Photo:
    """One accepted photo of images.json; ``gps`` is (latitude °, longitude °, altitude m)."""

    name: str
    source_name: str
    width: int
    height: int
    focal_px: float | None
    camera_group: int
    gps: tuple[float, float, float] | None


@dataclass(frozen=True)
class Deadline:
    """The moment a stage must be over, on the monotonic clock."""

    ends_at: float
    limit_s: float

    @classmethod
    def after(cls, limit_s: float) -> "Deadline":
        """Return the deadline ``limit_s`` seconds from now."""
        return cls(time.monotonic() + limit_s, limit_s)

    def remaining_s(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.ends_at - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise ``CapacityError`` capacity.time_limit when the time is over."""
        if self.remaining_s() <= 0:
            raise CapacityError(
                "capacity.time_limit",
                "Out of time",
                f"finding the camera poses took longer than {self.limit_s:g} s and was stopped while {doing}",
                "Give fewer photos, or raise poses.time_limit_s.",
            )


@dataclass(frozen=True)
class Context:
    """The work of one run; ``folder`` is scratch space, ``masks`` says where features may be looked for (None: everywhere)."""

    images: Path
    folder: Path
    photos: list[Photo]
    seed: int
    n_threads: int
    deadline: Deadline
    masks: Path | None = None


def read_photos(records: list[dict[str, Any]]) -> list[Photo]:
    """Return the accepted photos of images.json in their order."""
    return [
        Photo(
            name=record["name"],
            source_name=record["source_name"],
            width=record["width"],
            height=record["height"],
            focal_px=record["focal_px"],
            camera_group=record["camera_group"],
            gps=None if record["gps"] is None else (record["gps"][0], record["gps"][1], record["gps"][2]),
        )
        for record in records
        if record["accepted"]
    ]


def extraction_threads(n_threads: int) -> int:
    """Return how many photos may be searched for features at a time: SIFT at 1600 px takes up to 0.7 GB each (research/sfm.md B4)."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(n_threads, int(memory / 2 / 0.7e9)))
