"""How the CUDA kernels' warps reach memory, by source line, counted without a card: ``python -m bench.cuda_accesses [--write]``.

Needs a build of the shim that watches (kernels/shim/accesses.h)::

    cmake -S kernels -B build/races -G Ninja -DSPLAT_SHIM=ON -DSPLAT_SANITIZE=races
    cmake --build build/races --target splat_cuda splat_cpu
    SPLATWORKS_KERNELS=build/races python -m bench.cuda_accesses --write

Structs are loaded whole, as nvcc does where they are aligned; what it makes of single loads side by side may be fewer and wider ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.kernel_scene import surface_scene
from kernels.step import AdamParams, Device, OptimizerState

SOURCES = Path(__file__).parent.parent / "kernels" / "cuda"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "cuda_accesses.md"
GAUSSIANS, WIDTH, HEIGHT, BLENDED = 20_000, 480, 270, 30.0  # blended: gaussians a pixel
POINTS = 2_000  # of the search for neighbours, which looks at all pairs
FILE = "SPLAT_WATCH_ACCESSES"
COLUMNS = 10  # of the watch's lines
WORST = 15


@dataclass(frozen=True)
class Line:
    """What one line of one kernel does; ``done``, ``least``, ``first`` in sectors of 32 bytes, in rounds of the banks for shared memory."""

    kernel: str
    place: str
    what: str  # card load, shared store, …
    bytes_a_lane: int
    requests: int
    lanes: int
    done: int
    least: int
    first: int  # sectors that the warp had not touched before in its block; 0 for shared memory

    @property
    def in_vain(self) -> int:
        """How many more are done than would have to be."""
        return (self.done if self.is_shared else self.first) - self.least

    @property
    def is_shared(self) -> bool:
        """Whether it is shared memory that is reached."""
        return self.what.startswith("shared")


def parse(text: str) -> list[Line]:
    """Return the lines that the watch wrote, those of one place in the source added up; raises ``ValueError`` for other text."""
    sums: dict[tuple[str, str, str, int], list[int]] = defaultdict(lambda: [0] * 5)
    for row in text.splitlines():
        cells = row.split("\t")
        if len(cells) != COLUMNS:
            raise ValueError(f"{row!r} is no line of {FILE}")
        kernel, place, _, what, wide, *counts = cells
        total = sums[kernel, place, what, int(wide)]
        for i, count in enumerate(counts):
            total[i] += int(count)
    return [Line(*key, *total) for key, total in sorted(sums.items())]


def walk() -> None:
    """Run each kernel on the shim: two steps of training, the statistics of densification, neighbours."""
    scene = surface_scene(GAUSSIANS, WIDTH, HEIGHT, BLENDED)
    device, rows, size = Device("cuda"), scene.rows.clone(), (HEIGHT, WIDTH)  # a clone begins where a sector does, as on a card
    state = OptimizerState(torch.zeros_like(rows), torch.zeros_like(rows), torch.zeros(len(rows), dtype=torch.int32))
    photo = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    image, grad_image = torch.empty(3, *size), torch.empty(3, *size)
    for step in (1, 2):
        device.forward(rows, scene.camera, 3, (0.0, 0.5, 1.0), image)
        device.loss(image, photo, 0.2, grad_image)
        if step == 2:
            device.contribution(len(rows), torch.zeros(len(rows)), torch.zeros(len(rows)))
        adam = AdamParams(step, 1e-4, 1e-3, 1e-3, 1e-2, 1e-3, 1e-4, step_sh_rest=step == 1)
        device.backward_adam(rows, state, grad_image, adam)
    device.knn(rows[:POINTS, :3].contiguous())


def measure() -> list[Line]:
    """Run the walk in a process of its own and return what was counted; raises ``RuntimeError`` where the library counts nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accesses.tsv"
        subprocess.run([sys.executable, "-m", "bench.cuda_accesses", "--walk"], env={**os.environ, FILE: str(path)}, check=True)
        if not path.exists():
            raise RuntimeError("the library counted nothing: set SPLATWORKS_KERNELS to a build with SPLAT_SHIM=ON and SPLAT_SANITIZE=races")
        return parse(path.read_text())


def source_of(place: str) -> str:
    """Return the text of ``file:line`` of kernels/cuda, shortened for a cell of a table; empty where there is no such line."""
    name, _, number = place.partition(":")
    path = SOURCES / name
    lines = path.read_text().splitlines() if path.exists() and number.isdecimal() else []
    text = lines[int(number) - 1].strip() if 0 < int(number or 0) <= len(lines) else ""
    text = text.replace("|", "¦").replace("`", "'")
    return text if len(text) <= 76 else text[:75] + "…"


def row_of(line: Line, name: str) -> str:
    """Return a line of the table."""
    per = [f"{value / line.requests:.1f}" for value in (line.lanes, line.done, line.first, line.least)]
    cells = [name, line.what, str(line.bytes_a_lane), f"{line.requests:,}", *per, f"`{source_of(line.place)}`"]
    return "| " + " | ".join(cells) + " |"


def table(head: str, rows: list[str]) -> list[str]:
    """Return a table whose first column is ``head``."""
    columns = [head, "what", "bytes a lane", "requests", "lanes", "sectors or rounds", "for the first time", "least", "line"]
    return ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|", *rows, ""]


def worst_of(lines: list[Line], is_shared: bool) -> list[str]:
    """Return the rows of the lines that do most in vain."""
    some = sorted((line for line in lines if line.is_shared == is_shared), key=lambda line: -line.in_vain)[:WORST]
    return [row_of(line, f"{line.kernel} {line.place}") for line in some if line.in_vain > 0]


INTRODUCTION = f"""# How the CUDA kernels' warps reach memory

Made by `SPLATWORKS_KERNELS=build/races python -m bench.cuda_accesses --write` (its docstring says how to build that); no card was asked.

{GAUSSIANS:,} gaussians at {WIDTH}×{HEIGHT}, {BLENDED:.0f} blended a pixel: two steps of training, contribution, {POINTS:,} neighbours.

Per request of a warp: lanes that take part; sectors of 32 bytes touched in the card's memory, or rounds in which the 32 banks of shared
memory are asked; of the sectors, those that the warp touches for the first time in its block, which is all that comes from behind the first
cache where that is large enough; and how many would do if the same bytes lay side by side.
"""


def page(lines: list[Line]) -> str:
    """Return the page as Markdown."""
    out = [INTRODUCTION]
    out += ["## Most in vain, in the card's memory", "", *table("kernel, place", worst_of(lines, is_shared=False))]
    out += ["## Most in vain, in shared memory", "", *table("kernel, place", worst_of(lines, is_shared=True))]
    for kernel in sorted({line.kernel for line in lines}):
        mine = [line for line in lines if line.kernel == kernel]
        card = [line for line in mine if not line.is_shared]
        done, first, least = (sum(getattr(line, name) for line in card) for name in ("done", "first", "least"))
        out += [f"## {kernel}", "", f"{done:,} sectors touched, {first:,} for the first time, {least:,} at least.", ""]
        out += table("place", [row_of(line, line.place) for line in mine])
    return "\n".join(out)


def main() -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_accesses", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make it docs/benchmarks/cuda_accesses.md")
    parser.add_argument("--walk", action="store_true", help="only run the kernels, in a process that another counts")
    arguments = parser.parse_args()
    if arguments.walk:
        walk()
    elif arguments.write:
        PAGE.write_text(page(measure()))
    else:
        sys.stdout.write(page(measure()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
