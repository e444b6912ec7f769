"""How many blocks of each CUDA kernel fit a multiprocessor at once: ``python -m bench.cuda_occupancy [--write]``.

From kernels/cuda/resources.txt (registers, shared memory) and the launch bounds in the sources; no card is asked. Limits: CUDA C++
Programming Guide, technical specifications by compute capability. Registers are given out in steps of 8 a thread, whole warps; a block of
shared memory takes 1 KiB more for the system from compute capability 8.0 on.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.cuda_resources import GOLDEN

SOURCES = GOLDEN.parent
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "cuda_occupancy.md"
REGISTERS, WARP = 65_536, 32
SHOWN = ("sm_75", "sm_80", "sm_86", "sm_90")
BOUNDS = re.compile(r"__global__ void (?:__launch_bounds__\(([^()]+)\) )?(\w+)\(")
CONSTANT = re.compile(r"constexpr int (\w+) = ([^;,]+)[;,]")


@dataclass(frozen=True)
class Multiprocessor:
    """What one holds."""

    warps: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int  # of shared memory, a block


LIMITS = {
    "sm_75": Multiprocessor(32, 16, 64 << 10, 0),
    "sm_80": Multiprocessor(64, 32, 164 << 10, 1 << 10),
    "sm_86": Multiprocessor(48, 16, 100 << 10, 1 << 10),
    "sm_89": Multiprocessor(48, 24, 100 << 10, 1 << 10),
    "sm_90": Multiprocessor(64, 32, 228 << 10, 1 << 10),
}


@dataclass(frozen=True)
class Occupancy:
    """Blocks that fit, and what keeps more out."""

    blocks: int
    share: float  # of the warps that there is room for
    limit: str


def block_sizes() -> dict[str, int]:
    """Return the threads of a block, by kernel, from the launch bounds in the sources; a kernel without them has one thread."""
    shared = constants_of((SOURCES / "types.h").read_text(), {})
    sizes = {}
    for path in SOURCES.glob("*.cu"):
        text = path.read_text()
        known = constants_of(text, shared)
        for bounds, name in BOUNDS.findall(text):
            sizes[name] = value_of(bounds.split(",")[0], known) if bounds else 1
    return sizes


def constants_of(text: str, known: dict[str, int]) -> dict[str, int]:
    """Return the integer constants that a source defines, beside those known before."""
    found = dict(known)
    for name, expression in CONSTANT.findall(text):
        words = re.findall(r"[A-Za-z_]\w*", expression)
        if all(word in found for word in words):
            found[name] = value_of(expression, found)
    return found


def value_of(expression: str, known: dict[str, int]) -> int:
    """Return a sum of products and whole quotients of numbers and constants; raises ``KeyError`` for a name that is not known."""
    total = 0
    for summand in expression.split("+"):
        product = 1
        for sign, word in re.findall(r"([*/]?)\s*(\w+)", summand):
            factor = int(word) if word.isdecimal() else known[word]
            product = product // factor if sign == "/" else product * factor
        total += product
    return total


def occupancy(threads: int, registers: int, shared_bytes: int, limits: Multiprocessor) -> Occupancy:
    """Return what fits a multiprocessor of a kernel's blocks."""
    warps = -(-threads // WARP)
    registers_a_block = warps * WARP * (-(-registers // 8) * 8)
    room = {
        "registers": REGISTERS // registers_a_block,
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
        "shared memory": limits.shared_bytes // (shared_bytes + limits.reserved_bytes) if shared_bytes else limits.blocks,
    }
    limit = min(room, key=lambda name: room[name])
    return Occupancy(room[limit], room[limit] * warps / limits.warps, limit)


def page() -> str:
    """Return the table as Markdown."""
    lines = ["# How many blocks of each CUDA kernel fit a multiprocessor", ""]
    lines += [
        "Made by `python -m bench.cuda_occupancy --write` from kernels/cuda/resources.txt and the launch bounds; no card was asked.",
        "",
    ]
    lines += ["Blocks, share of the warps that there is room for, and what keeps more out.", ""]
    lines += ["| kernel | threads | registers, shared bytes (sm_90) | " + " | ".join(SHOWN) + " |", "| --- " * (3 + len(SHOWN)) + "|"]
    sizes, kernels = block_sizes(), dict[str, dict[str, tuple[int, int]]]()
    for line in GOLDEN.read_text().splitlines()[2:]:
        name, architecture, registers, shared, _ = line.split()
        kernels.setdefault(name, {})[architecture] = (int(registers), int(shared))
    for name, by_architecture in kernels.items():
        threads = sizes[name.split("<")[0]]
        cells = [name, str(threads), "{}, {:,}".format(*by_architecture["sm_90"])]
        for architecture in SHOWN:
            fits = occupancy(threads, *by_architecture[architecture], LIMITS[architecture])
            cells.append(f"{fits.blocks} · {fits.share:.0%} · {fits.limit}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_occupancy", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make it docs/benchmarks/cuda_occupancy.md")
    if parser.parse_args().write:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
