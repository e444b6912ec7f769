"""Steps by CUDA graphs against the same steps launch by launch: ``python -m bench.gpu_graphs --json OUT``. They must agree bit for bit.

The camera moves, photo, background and rates change in every step, so that what a graph keeps from the step before would show.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from bench.gpu_device import SH_DEGREE, SSIM_WEIGHT, wait
from bench.gpu_report import Report
from bench.kernel_scene import Scene, surface_scene
from kernels.step import AdamParams, Device, OptimizerState

SWITCH = "SPLATWORKS_GRAPHS"
CASES = ((20_000, 480, 270, 30.0), (150_000, 1280, 720, 30.0))  # gaussians, size, blended a pixel
STEPS = 40
FIRST = 10  # steps in which a graph may not be there yet: room for lists is found first


def steps_of(device: Device, scene: Scene, steps: int = STEPS) -> list[torch.Tensor]:
    """Return rows, second moments and the last image, on the CPU, after steps before a moving camera."""
    where, n = device.tensors, len(scene.rows)
    size = (scene.camera.height, scene.camera.width)
    rows = scene.rows.to(where, copy=True)
    moments = [torch.zeros((n, 64), device=where) for _ in range(2)]
    state = OptimizerState(moments[0], moments[1], torch.zeros(n, dtype=torch.int32, device=where))
    image, grad_image = torch.empty((3, *size), device=where), torch.empty((3, *size), device=where)
    generator = torch.Generator().manual_seed(5)
    photos = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).to(where) for _ in range(3)]
    for step in range(1, steps + 1):
        pose = list(scene.camera.cam_from_world)
        pose[3] += 0.02 * ((step * 7) % 5 - 2)
        device.forward(rows, replace(scene.camera, cam_from_world=tuple(pose)), SH_DEGREE, (0.0, 0.02 * step, 1.0), image)
        device.loss(image, photos[step % 3], SSIM_WEIGHT, grad_image)
        adam = AdamParams(step, 1e-4 / step, 1e-3, 1e-3, 1e-2, 1e-3, 1e-4, step_sh_rest=step % 4 == 0)
        device.backward_adam(rows, state, grad_image, adam)
    wait(device)
    return [rows.cpu(), state.moment2.cpu(), image.cpu()]


def device_with(switch: str) -> Device:
    """Return a card that does not wait, with graphs ("1") or without ("0"): the library reads the environment when a context begins."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = switch
    try:
        return Device("cuda", waits=False)
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def compare(name: str, scene: Scene, report: Report, steps: int = STEPS) -> None:
    """Add a row; fail where one bit differs, or where nothing was replayed."""
    plain, replayed = device_with("0"), device_with("1")
    expected, got = steps_of(plain, scene, steps), steps_of(replayed, scene, steps)
    is_same = all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    replays = replayed.info().n_replays
    report.add({"scene": name, "steps": steps, "replays": replays, "same bits": is_same})
    if not is_same:
        report.fail(f"{name}: steps by graphs differ from steps without")
    if replays < steps - FIRST:
        report.fail(
            f"{name}: {replays} of {steps} forward passes were replays: the runtime refused the graph, or what is asked for never repeats"
        )


def main() -> int:
    """Compare; return 1 when something differs."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_graphs", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of them, smallest first")
    given = parser.parse_args()
    report = Report("Steps by CUDA graphs against steps without", given.json)
    for n, width, height, blended in CASES[: given.cases]:
        compare(f"{n // 1000} k, {width}x{height}", surface_scene(n, width, height, blended), report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
