"""What a training step should take on an H200, foreseen without one: ``python -m bench.cuda_model --scenes FOLDER [--write]``.

Nothing here was run on a card. A kernel's time is taken for the longest of: its warps' instructions (nvcc's machine code for sm_90 by
parts, times how often each part is run in bench.gpu_scenes' scenes) at ISSUE of what the schedulers can issue; the words that it moves
through shared memory and shuffles; the bytes that it has to move at the copy bandwidth measured on such a card; the least time of a launch.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.cuda_counts import Counts, count
from bench.cuda_kernels import GRADIENT_WITH_REST, KERNELS, Kernel
from bench.cuda_sass import SOURCES, Part, disassemble, has_tools, kernels_in, parts_of
from bench.gpu_scenes import SIZES, read

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "cuda_model.md"
MULTIPROCESSORS, SCHEDULERS, CLOCK, BANDWIDTH = 132, 4, 1.98e9, 4.3e12  # Hz, bytes/s
ISSUE = 0.65  # of issue slots: good kernels of this kind are reported at 60 to 80 %
FLOOR_MS = 0.0025  # a launch in a row of them, the gap before it included
SORT_PASS_MS = 0.006  # a pass of CUB's radix sort over few elements: two waits of blocks for those before
REST_EVERY = 4  # steps of the recipe to one that steps the higher colour bases
STAGES = {  # of bench.gpu_speed, by how their rows' names begin
    "project": ("project",),
    "sort": ("counts_by_depth", "CUB: sort by depth", "CUB: sum"),
    "bin": ("emit", "CUB: sort by tile", "ranges"),
    "forward": ("blend",),
    "loss": ("ssim", "loss_gradient"),
    "backward": ("spread",),
    "gradient": ("gradient_kernel, higher",),
}
GOALS = {1_000_000: (250, 400), 3_000_000: (110, 180)}  # steps/s: goal, stretch


@dataclass(frozen=True)
class Row:
    """What was foreseen for one kernel, or several that do nearly nothing."""

    name: str
    instructions: float  # of warps
    words: float  # of warps
    size_bytes: float
    floor_ms: float

    @property
    def bounds(self) -> dict[str, float]:
        """Milliseconds by what may be the limit."""
        return {
            "instructions": 1e3 * self.instructions / (MULTIPROCESSORS * SCHEDULERS * CLOCK * ISSUE),
            "shared memory": 1e3 * self.words / (MULTIPROCESSORS * CLOCK),
            "memory": 1e3 * self.size_bytes / BANDWIDTH,
            "launch": self.floor_ms,
        }

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return max(self.bounds.values())


def row_of(kernel: Kernel, counts: Counts, parts: list[Part], name: str = "") -> Row:
    """Return what is foreseen for a kernel; raises ``ValueError`` where its machine code has other loops than the table says."""
    trips = kernel.trips(counts)
    if len(trips) != len(parts):
        raise ValueError(
            f"{kernel.name}: {len(parts) - 1} loops in nvcc's code, {len(trips) - 1} in bench/cuda_kernels.py; correct the table"
        )
    times = list(zip(parts, trips, strict=True))
    return Row(
        name=name or kernel.name,
        instructions=sum(part.instructions * often for part, often in times),
        words=sum(part.words * often for part, often in times),
        size_bytes=kernel.size_bytes(counts),
        floor_ms=FLOOR_MS,
    )


def sort_rows(counts: Counts) -> list[Row]:
    """Return the sorts and the sum, of which only bytes and launches are known, and all that is hardly more than a launch."""
    tile_passes = 2  # of 13 bits
    return [
        Row("CUB: sort by depth, 4 passes", 0, 0, counts.n * (4 + 4 * 16.0), 2 * FLOOR_MS + 4 * SORT_PASS_MS),
        Row("CUB: sum of counts", 0, 0, counts.n * 16.0, 2 * FLOOR_MS),
        Row("CUB: sort by tile, 2 passes", 0, 0, counts.pairs * (2 + tile_passes * 12.0), 2 * FLOOR_MS + tile_passes * SORT_PASS_MS),
        Row("fills, copies, sums of sums: 5 launches", 0, 0, counts.tiles * 8.0, 5 * FLOOR_MS),
    ]


def rows_of(counts: Counts, kernels: dict[str, list[Part]]) -> list[Row]:
    """Return a step's rows; the gradient's without the higher bases and, last, with them."""
    rows = [row_of(kernel, counts, kernels[kernel.name]) for kernel in KERNELS]
    rest = row_of(GRADIENT_WITH_REST, counts, kernels["gradient_kernel"], "gradient_kernel, higher bases too")
    return [*rows[:-1], *sort_rows(counts), rows[-1], rest]


def step_ms(rows: list[Row]) -> float:
    """Return the mean step of the recipe: the last row in one of REST_EVERY, the one before it in the others."""
    *always, without, with_rest = rows
    return sum(row.ms for row in always) + ((REST_EVERY - 1) * without.ms + with_rest.ms) / REST_EVERY


def stage_ms(rows: list[Row]) -> dict[str, float]:
    """Return the milliseconds of each stage that bench.gpu_speed times, in a step that steps all bases."""
    return {stage: sum(row.ms for row in rows if row.name.startswith(names)) for stage, names in STAGES.items()}


def counts_of(folder: Path) -> list[Counts]:
    """Return the counts of the 1080p scenes, smallest first."""
    sizes = sorted((each for each in SIZES if each.height == 1080), key=lambda each: each.n)
    return [count(read(size, folder).scene) for size in sizes]


def table(counts: Counts, rows: list[Row]) -> list[str]:
    """Return one scene's section, as lines of Markdown."""
    total = step_ms(rows)
    lines = [
        f"## {counts.n / 1e6:g} M gaussians, {counts.width}x{counts.height}: {total:.2f} ms, {1e3 / total:.0f} steps/s foreseen",
        "",
        f"{counts.visible:,} visible, {counts.pairs:,} (gaussian, tile) pairs, {counts.region_pairs:,} (gaussian, 8x4 region) pairs",
        f"before the end of the region's list, {counts.buckets:,} buckets of 64 pairs with {counts.turns:,} regions,",
        f"{counts.blended / counts.pixels:.1f} blended a pixel.",
        "",
        "| kernel | M instructions of warps | ms at 65 % | M words of warps in shared memory | ms | MB | ms | foreseen ms | limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        bounds = row.bounds
        cells = [
            row.name,
            f"{row.instructions / 1e6:.1f}",
            f"{bounds['instructions']:.3f}",
            f"{row.words / 1e6:.1f}",
            f"{bounds['shared memory']:.3f}",
        ]
        cells += [f"{row.size_bytes / 1e6:.0f}", f"{bounds['memory']:.3f}", f"{row.ms:.3f}", max(bounds, key=lambda name: bounds[name])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "By the stages of bench.gpu_speed, ms: " + ", ".join(f"{stage} {ms:.3f}" for stage, ms in stage_ms(rows).items()) + "."]
    if counts.n in GOALS:
        goal, stretch = GOALS[counts.n]
        lines += ["", f"Goal {goal} steps/s ({1e3 / goal:.2f} ms), stretch {stretch} ({1e3 / stretch:.2f} ms)."]
    return [*lines, ""]


def page(scenes: list[Counts], kernels: dict[str, list[Part]]) -> str:
    """Return the whole page."""
    lines = ["# What a step should take on an H200", "", *ASSUMPTIONS]
    for counts in scenes:
        lines += table(counts, rows_of(counts, kernels))
    return "\n".join(lines)


ASSUMPTIONS = """\
Made by `python -m bench.cuda_model --write`. **A prediction: nothing was run on a card.** Its use is to say what costs most and what a
change should gain; `make gpu-check` measures.

- Instructions: nvcc's machine code for sm_90 (`cuobjdump -sass`), by loops, times how often warps run each loop in bench.gpu_scenes' scenes
  (bench/cuda_counts.py: the kernels' own formulas in torch; lists are walked through in every 13th tile). Code in no loop counts
  whole, slow paths (denormals, divergent shuffles) not at all; the sorts are CUB's: bytes and launches only.
- 132 multiprocessors, 4 schedulers each, one instruction a cycle at 1.98 GHz, 65 % of it used. What takes two cycles counts as one.
- Shared memory and shuffles: 32 words a cycle and multiprocessor, what all lanes read alike counted as often as there are lanes. That is
  the most it can be: whether a card answers such reads sooner is not known here.
- Memory: what has to be moved once, at 4.3 TB/s. What the 60 MB of L2 save (sorts of 1 M and less) is not taken off.
- A launch takes 2.5 us at least, a pass of a sort 6 us. No time of the host, none of torch's.
- A step is forward, loss, backward with Adam; the higher colour bases are stepped in every fourth.
""".splitlines()


def main() -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_model", description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of bench.gpu_scenes; what is missing is made there")
    parser.add_argument(
        "--cuobjdump", default="cuobjdump", help="from the toolkit, or PyPI's nvidia-cuda-cuobjdump with nvidia-cuda-nvdisasm beside it"
    )
    parser.add_argument("--kernels", type=Path, default=SOURCES, help="sources, to compare others with these")
    parser.add_argument("--write", action="store_true", help="make it docs/benchmarks/cuda_model.md")
    given = parser.parse_args()
    if not has_tools(given.cuobjdump):
        print("nvcc and cuobjdump are needed: neither a card nor a driver is", file=sys.stderr)
        return 2
    kernels = {name: parts_of(each) for name, each in kernels_in(disassemble(given.kernels, given.cuobjdump)).items()}
    text = page(counts_of(given.scenes), kernels)
    if given.write:
        PAGE.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
