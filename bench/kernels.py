"""Speed of the CPU kernels: ``python -m bench.kernels --json OUT``.

Times are the least over many repetitions of the CPU clocks of the threads that took part, stage by stage, so that a shared machine
says nearly the same as a quiet one; the yardstick is a loop of independent multiply-adds timed by the same clock in the same run. A step
is forward, loss and backward with Adam; the recipe steps the higher colour bases in every fourth only. Speed-ups are the schedule's own:
tasks timed by the CPU clock and dealt out as the pool does, starting and joining left out. ``--against FOLDER`` measures another build of
the library, step by step in turn with this one.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for torch's arrays, as the engine has them; read when torch first allocates

import torch

from bench.kernel_scene import Scene, surface_scene
from kernels._lib import STAGES
from kernels.step import AdamParams, Device, OptimizerState

CASES = ((100_000, 480, 270), (50_000, 480, 270), (100_000, 960, 540))
BLENDED_PER_PIXEL = 45
STEP_STAGES = ("project", "sort", "bin", "forward", "loss", "backward", "gradient")
ADAM = AdamParams(1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # rates of zero: the scene stays what it is, the work is the same
REST_EVERY = 4  # steps of the recipe to one that steps the higher colour bases
SIMULATED = (2, 4, 8, 16)  # threads
# Floating-point operations, counted by hand in the sources: a lane, a visible gaussian (the second: with the higher bases), a colour value.
FLOP_FORWARD, FLOP_BACKWARD, FLOP_PROJECT, FLOP_GRADIENT, FLOP_GRADIENT_REST, FLOP_LOSS = 30, 56, 680, 650, 1400, 300


@dataclass(frozen=True)
class Row:
    """One case on one library, instruction set and number of threads; milliseconds of one step."""

    library: str
    gaussians: int
    width: int
    height: int
    isa: str
    n_threads: int
    n_visible: int
    n_instances: int
    blended_per_pixel: float
    evaluated_per_pixel: float
    fma_gflops: float  # one core, the calibration loop
    cpu_ms: dict[str, float]  # by stage, all threads together, in a step with the higher bases
    gradient_without_rest_ms: float
    wall_ms: float  # sum of the stages' least wall times
    share_of_peak: dict[str, float]  # of the calibration loop
    speed_up: dict[int, dict[str, float]] = field(default_factory=dict)  # by threads and stage, "step" for all: the schedule's

    @property
    def with_rest_ms(self) -> float:
        """CPU milliseconds of a step that steps the higher colour bases."""
        return sum(self.cpu_ms.values())

    @property
    def without_rest_ms(self) -> float:
        """CPU milliseconds of a step that leaves them."""
        return self.with_rest_ms - self.cpu_ms["gradient"] + self.gradient_without_rest_ms

    @property
    def recipe_ms(self) -> float:
        """CPU milliseconds of the recipe's mean step."""
        return (self.with_rest_ms + (REST_EVERY - 1) * self.without_rest_ms) / REST_EVERY

    def gevals(self, stage: str) -> float:
        """Billions of pixel lanes a second of CPU time."""
        return self.evaluated_per_pixel * self.width * self.height / self.cpu_ms[stage] / 1e6


class Run:
    """A training state on one device, and the least time of each stage so far."""

    def __init__(self, scene: Scene, device: Device) -> None:
        n, camera = len(scene.rows), scene.camera
        shape = (3, camera.height, camera.width)
        self.scene, self.device, self.step = scene, device, 0
        self.rows = scene.rows.clone()
        self.state = OptimizerState(torch.zeros(n, 64), torch.zeros(n, 64), torch.zeros(n, dtype=torch.int32))
        self.image, self.grad_image, self.density = torch.empty(shape), torch.empty(shape), torch.zeros(n, 4)
        generator = torch.Generator().manual_seed(1)
        self.target = torch.randint(0, 256, (*shape[1:], 3), dtype=torch.uint8, generator=generator)
        self.cpu = {rest: dict.fromkeys(STAGES, float("inf")) for rest in (True, False)}
        self.wall = dict.fromkeys(STAGES, float("inf"))

    def one_step(self, with_rest: bool) -> None:
        """Run forward, loss and backward with Adam once."""
        self.step += 1
        self.device.forward(self.rows, self.scene.camera, 3, (0.0, 0.0, 0.0), self.image)
        self.device.loss(self.image, self.target, 0.2, self.grad_image, target_key=1)
        adam = AdamParams(**(vars(ADAM) | {"step": self.step, "step_sh_rest": with_rest}))
        self.device.backward_adam(self.rows, self.state, self.grad_image, adam, self.density)

    def time_step(self, with_rest: bool) -> None:
        """Run a step and note what was least."""
        self.device.profile()
        self.one_step(with_rest)
        profile, least = self.device.profile(enable=False), self.cpu[with_rest]
        for stage in STAGES:
            least[stage] = min(least[stage], profile.cpu_s[stage] * 1e3)
            self.wall[stage] = min(self.wall[stage], profile.wall_s[stage] * 1e3)

    def stage_ms(self, stage: str) -> float:
        """Least CPU milliseconds of a stage; the higher bases matter to the gradient stage alone."""
        return self.cpu[True][stage] if stage == "gradient" else min(self.cpu[True][stage], self.cpu[False][stage])


def simulate(scene: Scene, isa: str, n_threads: int, repetitions: int) -> dict[str, float]:
    """Return by stage, and for the step, how much faster the schedule is on that many cores than one after another (median)."""
    run = Run(scene, Device("cpu", n_threads, isa))
    run.one_step(True)
    ratios: dict[str, list[float]] = {stage: [] for stage in (*STEP_STAGES, "step")}
    for _ in range(repetitions):
        run.device.profile(simulate=True)
        run.one_step(False)
        profile = run.device.profile(enable=False)
        for stage in STEP_STAGES:
            ratios[stage].append(profile.cpu_s[stage] / profile.wall_s[stage])
        ratios["step"].append(sum(profile.cpu_s[stage] for stage in STEP_STAGES) / sum(profile.wall_s[stage] for stage in STEP_STAGES))
    return {stage: sorted(values)[len(values) // 2] for stage, values in ratios.items()}


def row_of(run: Run, library: str, n_threads: int) -> Row:
    """Return what a finished run says."""
    device, camera = run.device, run.scene.camera
    flops_per_s = device.calibrate()
    stats = device.forward(run.rows, camera, 3, (0.0, 0.0, 0.0), run.image)
    device.contribution(len(run.rows), torch.zeros(len(run.rows)))
    lanes = device.profile(enable=False)
    pixels = camera.width * camera.height
    cpu = {stage: run.stage_ms(stage) for stage in STEP_STAGES}
    work = {
        "project": stats.n_visible * FLOP_PROJECT / cpu["project"],
        "forward": lanes.n_evaluated * FLOP_FORWARD / cpu["forward"],
        "loss": 3 * pixels * FLOP_LOSS / cpu["loss"],
        "backward": lanes.n_evaluated * FLOP_BACKWARD / cpu["backward"],
        "gradient": stats.n_visible * FLOP_GRADIENT_REST / cpu["gradient"],
        "gradient without rest": stats.n_visible * FLOP_GRADIENT / run.cpu[False]["gradient"],
    }
    return Row(
        library=library,
        gaussians=len(run.rows),
        width=camera.width,
        height=camera.height,
        isa=device.info().name,
        n_threads=n_threads,
        n_visible=stats.n_visible,
        n_instances=stats.n_instances,
        blended_per_pixel=lanes.n_blended / pixels,
        evaluated_per_pixel=lanes.n_evaluated / pixels,
        fma_gflops=flops_per_s / 1e9,
        cpu_ms=cpu,
        gradient_without_rest_ms=run.cpu[False]["gradient"],
        wall_ms=sum(run.wall[stage] for stage in STEP_STAGES),
        share_of_peak={stage: flop * 1e3 / flops_per_s for stage, flop in work.items()},
    )


def measure(scene: Scene, isa: str, n_threads: int, repetitions: int, libraries: list[str]) -> list[Row]:
    """Return one row a library (folder, or "" for the installed one), measured in turn step by step."""
    runs = [Run(scene, device_of(library, n_threads, isa)) for library in libraries]
    for run in runs:
        run.one_step(True)
        run.one_step(False)
    for _ in range(repetitions):
        for with_rest in (True, False):
            for run in runs:
                run.time_step(with_rest)
    return [row_of(run, library or "this", n_threads) for run, library in zip(runs, libraries, strict=True)]


def device_of(library: str, n_threads: int, isa: str) -> Device:
    """Return a device of the library in that folder; "" is the one that is chosen anyway."""
    before = os.environ.get("SPLATWORKS_KERNELS", "")
    os.environ["SPLATWORKS_KERNELS"] = library or before
    try:
        return Device("cpu", n_threads, isa)
    finally:
        os.environ["SPLATWORKS_KERNELS"] = before


def usable_isas() -> list[str]:
    """Return the instruction sets that library and machine have, best first."""
    usable = []
    for isa in ("avx512", "avx2", "generic"):
        try:
            Device("cpu", 1, isa)
        except RuntimeError:
            continue
        usable.append(isa)
    return usable


HEADER = (
    "| gaussians, image | ISA, threads | project | sort | bin | forward | loss | backward | grad+Adam with / without SH rest "
    "| **step with / without / recipe** | wall | G evals/s fwd / bwd | share of peak: project, fwd, loss, bwd, grad |\n" + "|---" * 13 + "|"
)


def line(row: Row) -> str:
    """Return a row as Markdown."""
    stages = " | ".join(f"{row.cpu_ms[stage]:.2f}" for stage in STEP_STAGES)
    shares = ", ".join(f"{row.share_of_peak[stage]:.0%}" for stage in ("project", "forward", "loss", "backward", "gradient"))
    return (
        f"| {row.gaussians // 1000} k, {row.width}x{row.height}: {row.n_visible / 1e3:.1f} k visible, {row.n_instances / 1e3:.0f} k pairs, "
        f"{row.blended_per_pixel:.0f} of {row.evaluated_per_pixel:.0f} evals/px | {row.isa}, {row.n_threads}"
        f"{'' if row.library == 'this' else ' (against)'} | {stages} / {row.gradient_without_rest_ms:.2f} "
        f"| **{row.with_rest_ms:.1f} / {row.without_rest_ms:.1f} / {row.recipe_ms:.1f}** | {row.wall_ms:.1f} "
        f"| {row.gevals('forward'):.2f} / {row.gevals('backward'):.2f} | {shares} |"
    )


def main() -> int:
    """Run the benchmark and write its rows."""
    parser = argparse.ArgumentParser(description="Speed of the CPU kernels, stage by stage")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--repetitions", type=int, default=30, help="steps per row (30), half as many for the schedule")
    parser.add_argument("--isa", action="append", help="only these instruction sets")
    parser.add_argument("--threads", type=int, action="append", help="numbers of threads (1 and all cores)")
    parser.add_argument("--first", action="store_true", help="only the first case")
    parser.add_argument("--against", help="folder of another build of the library, measured in turn with this one")
    options = parser.parse_args()
    cores = Device("cpu").info().n_threads
    threads, isas = options.threads or sorted({1, cores}), options.isa or usable_isas()
    libraries = ["", options.against] if options.against else [""]
    print(HEADER)
    rows = []
    for n, width, height in CASES[:1] if options.first else CASES:
        scene = surface_scene(n, width, height, BLENDED_PER_PIXEL)
        for isa in isas:
            for n_threads in threads if isa == isas[0] else threads[:1]:
                found = measure(scene, isa, n_threads, options.repetitions, libraries)
                if n_threads == 1:
                    speed_up = found[0].speed_up
                    speed_up |= {k: simulate(scene, isa, k, options.repetitions // 2 + 1) for k in SIMULATED}
                rows += found
                print("\n".join(map(line, found)), flush=True)
    print("\nSpeed-up by the schedule on", ", ".join(map(str, SIMULATED)), "threads:")
    for row in rows:
        for stage in (*STEP_STAGES, "step") if row.speed_up else ():
            ratios = ", ".join(f"{row.speed_up[k][stage]:.2f}" for k in SIMULATED)
            print(f"- {row.gaussians // 1000} k, {row.width}x{row.height}, {row.isa}, {stage}: {ratios}")
    if options.json:
        report = {"machine": platform.processor() or platform.machine(), "cores": cores, "load": os.getloadavg()[0]}
        figures = [asdict(row) | {name: getattr(row, name) for name in ("with_rest_ms", "without_rest_ms", "recipe_ms")} for row in rows]
        options.json.write_text(json.dumps(report | {"rows": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
