"""Speed of the CUDA kernels, stage by stage and as whole steps: ``python -m bench.gpu_speed --json OUT --scenes FOLDER --card JSON``.

Stage times are the median over steps of the events that the library sets around each stage. The work that shares are taken of is a lower
bound, counted by hand: bytes that have to be moved once, and floating-point operations of the pixels that are truly blended, so a kernel
that looks at twice as many pixels as it blends shows half the share. Steps a second are of a loop that never waits for the card.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from bench.gpu_card import Peaks, peaks_of
from bench.gpu_device import OurStep, peak_bytes, per_second, reset_peak, wait
from bench.gpu_graphs import device_with
from bench.gpu_report import Report
from bench.gpu_scenes import SIZES, MadeScene, Size, read
from bench.kernels import FLOP_BACKWARD, FLOP_FORWARD, FLOP_GRADIENT_REST, FLOP_LOSS, FLOP_PROJECT, STEP_STAGES
from kernels.step import Device, ForwardStats

REPETITIONS, SECONDS = 20, 1.5
REST_EVERY = 4  # as the recipe has it
GATES = {"1 M, 1920x1080": 150.0, "3 M, 1920x1080": 60.0}  # steps/s, with the higher bases every fourth step; the goals are 250 and 110


@dataclass(frozen=True)
class Work:
    """What a stage has to do at least."""

    size_bytes: float
    flop: float


def work_of(stage: str, n: int, stats: ForwardStats, pixels: int, blended_per_pixel: float) -> Work:
    """Return the least work of a stage: line 0 of every row, all lines of visible ones, lists once a pass, pictures once."""
    visible, pairs, lanes = stats.n_visible, stats.n_instances, blended_per_pixel * pixels
    works = {
        "project": Work(64.0 * n + (192 + 56) * visible, FLOP_PROJECT * visible),
        "sort": Work(4 * 2 * 8.0 * visible, 0.0),  # four passes of eight bits over key and number
        "bin": Work(48.0 * visible + 2 * 2 * 6.0 * pairs, 0.0),  # two passes over a tile's 16 bits and a number
        "forward": Work(52.0 * pairs + 16.0 * pixels, FLOP_FORWARD * lanes),
        "loss": Work(3 * 45.0 * pixels, 3 * FLOP_LOSS * pixels),
        "backward": Work((52.0 + 36.0) * pairs + 16.0 * pixels, FLOP_BACKWARD * lanes),
        "gradient": Work(6 * 256.0 * visible, FLOP_GRADIENT_REST * visible),
    }
    return works[stage]


def stage_ms(step: OurStep, repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of each stage of a whole step."""
    for _ in range(3):
        step.whole()
    times: dict[str, list[float]] = {stage: [] for stage in STEP_STAGES}
    for _ in range(repetitions):
        step.device.profile()
        step.whole()
        profile = step.device.profile(enable=False)
        for stage in STEP_STAGES:
            times[stage].append(1e3 * profile.wall_s[stage])
    return {stage: statistics.median(values) for stage, values in times.items()}


def measure_stages(size: Size, made: MadeScene, peaks: Peaks | None, report: Report, repetitions: int = REPETITIONS) -> None:
    """Add a row a stage."""
    step = OurStep(Device("cuda"), made.scene)
    times = stage_ms(step, repetitions)
    stats = step.device.forward(step.rows, made.scene.camera, 3, (0.0, 0.0, 0.0), step.image)
    pixels = size.width * size.height
    for stage, milliseconds in times.items():
        work, seconds = work_of(stage, size.n, stats, pixels, made.blended_per_pixel), max(milliseconds, 1e-6) / 1e3
        report.add(
            {
                "scene": size.name,
                "stage": stage,
                "ms": milliseconds,
                "MB at least": work.size_bytes / 1e6,
                "GFLOP at least": work.flop / 1e9,
                "share of bandwidth": work.size_bytes / seconds / peaks.bytes_per_s if peaks else None,
                "share of FP32": work.flop / seconds / peaks.flop_per_s if peaks and work.flop else None,
            }
        )
    total = sum(times.values())
    report.add({"scene": size.name, "stage": "sum", "ms": total})
    report.note(f"{size.name}: {stats.n_visible:,} visible, {stats.n_instances:,} pairs, {made.blended_per_pixel:.0f} blended a pixel")


def rate_of(device: Device, made: MadeScene, rest_every: int, seconds: float) -> float:
    """Return steps a second."""
    step = OurStep(device, made.scene, rest_every)
    rate = per_second(device, step.whole, seconds)
    wait(device)
    return rate


def measure_steps(size: Size, made: MadeScene, report: Report, seconds: float = SECONDS) -> None:
    """Add steps a second, with the higher bases stepped in every fourth and in every step, without graphs, and bytes a gaussian."""
    device = Device("cuda", waits=False)
    reset_peak(device)
    rate = rate_of(device, made, REST_EVERY, seconds)
    held, replays = device.info().workspace_bytes, device.info().n_replays
    bytes_each = {"workspace bytes a gaussian": held / size.n, "all bytes a gaussian": (held + peak_bytes(device)) / size.n}
    del device
    report.add(
        {
            "scene": size.name,
            f"steps/s, SH rest every {REST_EVERY}th": rate,
            "steps/s, SH rest every step": rate_of(Device("cuda", waits=False), made, 1, seconds),
            "steps/s, every 4th, no graphs": rate_of(device_with("0"), made, REST_EVERY, seconds),
            "replays": replays,
            **bytes_each,
        }
    )
    gate = GATES.get(size.name)
    if gate is not None and rate < gate:
        report.fail(f"{size.name}: {rate:.0f} steps/s, the gate is {gate:.0f}")


def main() -> int:
    """Measure all sizes: first whole steps, which matter most."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_speed", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--what", choices=("steps", "stages"), required=True)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the scenes; what is missing is made there")
    parser.add_argument("--card", type=Path, required=True, help="what bench.gpu_card wrote")
    given = parser.parse_args()
    title = "Whole steps: forward, loss, backward with Adam" if given.what == "steps" else "Stages of a step that steps all bases"
    report, peaks = Report(title, given.json), peaks_of(given.card)
    for size in SIZES:
        made = read(size, given.scenes)
        if given.what == "steps":
            measure_steps(size, made, report)
        else:
            measure_stages(size, made, peaks, report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
