"""Speed of the CPU kernels: ``python -m bench.kernels --json OUT``.

Times are the least over many repetitions of the CPU clocks of the threads that took part, stage by stage, so that a shared machine
says nearly the same as a quiet one; the yardstick is a loop of independent multiply-adds timed by the same clock in the same run.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.kernel_scene import Scene, surface_scene
from kernels._lib import STAGES
from kernels.step import AdamParams, Device, OptimizerState

CASES = ((100_000, 480, 270), (50_000, 480, 270), (100_000, 960, 540))
BLENDED_PER_PIXEL = 45
STEP_STAGES = ("project", "sort", "bin", "forward", "loss", "backward", "gradient")
ADAM = AdamParams(1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # rates of zero: the scene stays what it is, the work is the same


@dataclass(frozen=True)
class Row:
    """One case on one instruction set and number of threads; milliseconds of one step."""

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
    cpu_ms: dict[str, float]  # by stage, all threads together
    step_cpu_ms: float
    step_wall_ms: float  # sum of the stages' least wall times
    forward_gevals: float  # pixel lanes a second of CPU time
    backward_gevals: float
    forward_gblended: float
    backward_gblended: float
    fma_share: float  # of the calibration loop, forward and backward together, 30 and 56 operations a lane


def one_step(device: Device, scene: Scene, buffers: dict[str, torch.Tensor], state: OptimizerState, step: int) -> None:
    """Run forward, loss and backward with Adam once."""
    device.forward(scene.rows, scene.camera, 3, (0.0, 0.0, 0.0), buffers["image"])
    device.loss(buffers["image"], buffers["target"], 0.2, buffers["grad_image"], target_key=1)
    adam = AdamParams(**(vars(ADAM) | {"step": step}))
    device.backward_adam(scene.rows, state, buffers["grad_image"], adam, buffers["density"])


def least_times(device: Device, scene: Scene, repetitions: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return each stage's least CPU and wall milliseconds over the repetitions."""
    n, camera = len(scene.rows), scene.camera
    shape = (3, camera.height, camera.width)
    generator = torch.Generator().manual_seed(1)
    buffers = {
        "image": torch.empty(shape),
        "grad_image": torch.empty(shape),
        "density": torch.zeros(n, 4),
        "target": torch.randint(0, 256, (*shape[1:], 3), dtype=torch.uint8, generator=generator),
    }
    state = OptimizerState(torch.zeros(n, 64), torch.zeros(n, 64), torch.zeros(n, dtype=torch.int32))
    for step in (1, 2):
        one_step(device, scene, buffers, state, step)
    device.profile()
    cpu = dict.fromkeys(STAGES, float("inf"))
    wall = dict(cpu)
    for step in range(3, 3 + repetitions):
        one_step(device, scene, buffers, state, step)
        profile = device.profile()
        cpu = {stage: min(cpu[stage], profile.cpu_s[stage] * 1e3) for stage in STAGES}
        wall = {stage: min(wall[stage], profile.wall_s[stage] * 1e3) for stage in STAGES}
    device.profile(enable=False)
    return cpu, wall


def measure(scene: Scene, isa: str, n_threads: int, repetitions: int) -> Row:
    """Return one row of the table."""
    device = Device("cpu", n_threads, isa)
    flops_per_s = device.calibrate()
    stats = device.forward(scene.rows, scene.camera, 3, (0.0, 0.0, 0.0), torch.empty(3, scene.camera.height, scene.camera.width))
    device.contribution(len(scene.rows), torch.zeros(len(scene.rows)))
    lanes = device.profile(enable=False)
    cpu, wall = least_times(device, scene, repetitions)
    pixels = scene.camera.width * scene.camera.height
    forward_s, backward_s = cpu["forward"] / 1e3, cpu["backward"] / 1e3
    return Row(
        gaussians=len(scene.rows),
        width=scene.camera.width,
        height=scene.camera.height,
        isa=device.info().name,
        n_threads=n_threads,
        n_visible=stats.n_visible,
        n_instances=stats.n_instances,
        blended_per_pixel=lanes.n_blended / pixels,
        evaluated_per_pixel=lanes.n_evaluated / pixels,
        fma_gflops=flops_per_s / 1e9,
        cpu_ms={stage: cpu[stage] for stage in STEP_STAGES},
        step_cpu_ms=sum(cpu[stage] for stage in STEP_STAGES),
        step_wall_ms=sum(wall[stage] for stage in STEP_STAGES),
        forward_gevals=lanes.n_evaluated / forward_s / 1e9,
        backward_gevals=lanes.n_evaluated / backward_s / 1e9,
        forward_gblended=lanes.n_blended / forward_s / 1e9,
        backward_gblended=lanes.n_blended / backward_s / 1e9,
        fma_share=lanes.n_evaluated * 86 / (forward_s + backward_s) / flops_per_s,
    )


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


def run(cases: tuple[tuple[int, int, int], ...], isas: list[str], threads: list[int], repetitions: int) -> list[Row]:
    """Measure every case on every instruction set with one thread, and the best set with the other numbers of threads too."""
    rows = []
    for n, width, height in cases:
        scene = surface_scene(n, width, height, BLENDED_PER_PIXEL)
        for isa in isas:
            for n_threads in threads if isa == isas[0] else threads[:1]:
                rows.append(measure(scene, isa, n_threads, repetitions))
                print(line(rows[-1]), flush=True)
    return rows


HEADER = (
    "| gaussians, image | ISA, threads | project | sort | bin | forward | loss | backward | grad+Adam | **step CPU** | step wall "
    "| G evals/s fwd / bwd | FMA share |\n" + "|---" * 13 + "|"
)


def line(row: Row) -> str:
    """Return a row as Markdown."""
    stages = " | ".join(f"{row.cpu_ms[stage]:.2f}" for stage in STEP_STAGES)
    return (
        f"| {row.gaussians // 1000} k, {row.width}x{row.height}, {row.blended_per_pixel:.0f}/px ({row.evaluated_per_pixel:.0f} evals) "
        f"| {row.isa}, {row.n_threads} | {stages} | **{row.step_cpu_ms:.1f}** | {row.step_wall_ms:.1f} "
        f"| {row.forward_gevals:.2f} / {row.backward_gevals:.2f} | {row.fma_share:.0%} |"
    )


def main() -> int:
    """Run the benchmark and write its rows."""
    parser = argparse.ArgumentParser(description="Speed of the CPU kernels, stage by stage")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--repetitions", type=int, default=30, help="steps per row (30)")
    parser.add_argument("--isa", action="append", help="only these instruction sets")
    parser.add_argument("--threads", type=int, action="append", help="numbers of threads (1 and all cores)")
    parser.add_argument("--first", action="store_true", help="only the first case")
    options = parser.parse_args()
    cores = Device("cpu").info().n_threads
    threads = options.threads or sorted({1, cores})
    print(HEADER)
    rows = run(CASES[:1] if options.first else CASES, options.isa or usable_isas(), threads, options.repetitions)
    if options.json:
        report = {"machine": platform.processor() or platform.machine(), "cores": cores, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
