"""What a run does when memory runs out: fewer gaussians, then photos of half the size, then it ends with the numbers.

A rung is only ever left downwards. It is kept in the checkpoint, so that a run that is resumed does not climb into the same wall.
"""

import re
from dataclasses import dataclass

from engine.errors import CapacityError
from engine.events import Warned

FEWEST = 1_000  # gaussians; below, fewer save nothing
CAPS = 2  # rungs that halve the cap: most memory goes by the gaussian
LAST = CAPS + 1
LEAST_SIDE = 64  # pixels, the least that train.max_side may be; such photos are not halved
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
ASKED = re.compile(r"(?:workspace of|allocate) ([\d.]+) (bytes|KiB|MiB|GiB)")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Rung:
    """How far down a run is. ``number`` 0 is the top, as the budget was fitted; zeros leave cap and size as they are."""

    number: int = 0
    max_gaussians: int = 0
    max_side: int = 0  # pixels


@dataclass(frozen=True)
class Shortage:
    """Memory ran out: on which rung, with what cap and photos, what was asked for in bytes (0: not told) and what was free."""

    rung: Rung
    max_gaussians: int
    max_side: int  # pixels, of the largest photo
    asked_bytes: int
    free_bytes: int
    words: str

    def data(self) -> dict[str, int]:
        """Return the numbers as JSON values."""
        return {
            "rung": self.rung.number,
            "max_gaussians": self.max_gaussians,
            "max_side": self.max_side,
            "asked_bytes": self.asked_bytes,
            "free_bytes": self.free_bytes,
        }


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: the kernels' and numpy's ``MemoryError``, or one of torch's own, a RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None)


def asked_bytes(words: str) -> int:
    """Return how much was asked for, from the words of the kernels or of torch; 0 where they do not tell."""
    found = ASKED.search(words)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


def lowered(shortage: Shortage) -> Rung:
    """Return the next rung; raises ``CapacityError`` ``capacity.memory``, with the numbers, where there is none."""
    number = shortage.rung.number + 1
    if number <= CAPS and shortage.max_gaussians > FEWEST:
        return Rung(number, max(FEWEST, shortage.max_gaussians // 2), shortage.rung.max_side)
    if number <= LAST and shortage.max_side > LEAST_SIDE:
        return Rung(LAST, shortage.max_gaussians, shortage.max_side // 2)
    detail = (
        f"training ran out of memory with at most {shortage.max_gaussians:,} gaussians and photos of {shortage.max_side} pixels: "
        f"{amount(shortage.asked_bytes)} were asked for, {amount(shortage.free_bytes)} are free ({shortage.words})"
    )
    raise CapacityError("capacity.memory", "Out of memory", detail, "Take a smaller preset or a larger machine.", shortage.data())


def warning(shortage: Shortage, rung: Rung) -> Warned:
    """Return the event that says what will be tried instead."""
    if rung.number == LAST:
        instead = f"photos of {rung.max_side} pixels instead of {shortage.max_side}"
    else:
        instead = f"at most {rung.max_gaussians:,} gaussians instead of {shortage.max_gaussians:,}"
    asked = f"{amount(shortage.asked_bytes)} were asked for, {amount(shortage.free_bytes)} are free"
    data = {**shortage.data(), "next_max_gaussians": rung.max_gaussians, "next_max_side": rung.max_side}
    return Warned("train", "capacity.lowered", f"memory ran out ({asked}); training goes on with {instead}", data)


def amount(size_bytes: int) -> str:
    """Return bytes as people read them."""
    if size_bytes <= 0:
        return "more bytes than there are"
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes:,} bytes"
