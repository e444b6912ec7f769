"""CPU against card on the same scenes: image, loss, gradients, Adam: ``python -m bench.gpu_equal --json OUT``.

Relative errors are ‖card - cpu‖ / ‖cpu‖ over all values of a kind. Single pixels may differ more: a gaussian at the edge of being drawn
(alpha 1/255) is drawn by one and not by the other, which is why the worst single difference is printed but not held to a limit. Rows have
the widest: Adam makes steps of one length out of gradients of any, so where those are only rounding, rows go either way.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.gpu_device import SH_DEGREE, SSIM_WEIGHT, target_for, wait
from bench.gpu_memory import plain_scene
from bench.gpu_report import Report
from bench.kernel_scene import Scene, surface_scene
from kernels.step import AdamParams, Device, OptimizerState
from tests.kernels.scenes import GROUPS

CASES = ((20_000, 333, 211, 30.0), (100_000, 640, 360, 45.0), (300_000, 1280, 720, 45.0))  # gaussians, size, blended a pixel
MANY = (1_000_000, 1920, 1080, 3.0)  # gaussians, size, by how much logarithms of sizes are raised
MANY_PAIRS = 100_000_000  # offsets of bytes, slots and checkpoints then need more than 32 bits
BACKGROUND = (0.2, 0.5, 0.8)
TOLERANCES = {"image": 1e-4, "transmittance": 1e-4, "loss": 1e-5, "gradient": 2e-3, "moment": 5e-3, "movement": 2e-2}
STEPS = 3


@dataclass(frozen=True)
class Results:
    """What one device makes of a scene."""

    arrays: dict[str, torch.Tensor]  # on the CPU
    losses: dict[str, float]
    n_visible: int
    n_instances: int


def results_of(device: Device, scene: Scene) -> Results:
    """Return image, loss, gradients, and rows and moments after a few steps."""
    where, n, camera = device.tensors, len(scene.rows), scene.camera
    size = (camera.height, camera.width)
    rows, target = scene.rows.to(where, copy=True), target_for(scene).to(where)
    image, grad_image = torch.empty((3, *size), device=where), torch.empty((3, *size), device=where)
    transmittance, grad_rows = torch.empty(size, device=where), torch.empty((n, 64), device=where)
    stats = device.forward(rows, camera, SH_DEGREE, BACKGROUND, image, transmittance)
    values = device.loss(image, target, SSIM_WEIGHT, grad_image)
    device.backward(rows, grad_image, grad_rows)
    arrays = {"image": image.cpu(), "transmittance": transmittance.cpu()}  # copies, or views of what stays as it is on the CPU
    arrays |= {f"gradient {name}": grad_rows[:, columns].cpu() for name, columns in GROUPS.items()}
    arrays["image"] = arrays["image"].clone()
    moments = [torch.zeros((n, 64), device=where) for _ in range(2)]
    state = OptimizerState(moments[0], moments[1], torch.zeros(n, dtype=torch.int32, device=where))
    for step in range(1, STEPS + 1):
        device.forward(rows, camera, SH_DEGREE, BACKGROUND, image)
        device.loss(image, target, SSIM_WEIGHT, grad_image)
        # An eps above the gradients' rounding: with 1e-15 Adam makes whole steps of either sign out of what is zero but for rounding.
        device.backward_adam(
            rows, state, grad_image, AdamParams(step, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, eps=1e-7, step_sh_rest=step != 2)
        )
    wait(device)
    arrays |= {"moment 1": moments[0].cpu(), "moment 2": moments[1].cpu(), "movement": rows.cpu() - scene.rows}
    return Results(arrays, {name: getattr(values, name) for name in ("l1", "ssim", "mse")}, stats.n_visible, stats.n_instances)


def relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Return ‖value - truth‖ / ‖truth‖; infinite where a value is not finite."""
    if not bool(torch.isfinite(value).all()):
        return float("inf")
    return float((value.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-30))


def compare(ours: Results, truth: Results, name: str, report: Report) -> None:
    """Add one row a quantity; fail where one is above its tolerance."""
    for quantity, expected in truth.arrays.items():
        got, limit = ours.arrays[quantity], TOLERANCES[quantity.split()[0]]
        error, worst = relative(got, expected), float((got - expected).abs().max())
        _add(report, name, quantity, (error, worst, limit))
    for quantity, value in truth.losses.items():
        error = abs(ours.losses[quantity] - value)
        _add(report, name, f"loss {quantity}", (error / max(abs(value), 1e-3), error, TOLERANCES["loss"]))
    report.note(
        f"{name}: visible {ours.n_visible:,} on the card, {truth.n_visible:,} on the CPU; pairs {ours.n_instances:,}, {truth.n_instances:,}"
    )


def compare_many(case: tuple[int, int, int, float], least_pairs: int, report: Report) -> None:
    """Add the picture and the gradient of so many pairs that offsets need 64 bits; a note where the card has no memory for them."""
    n, width, height, grown = case
    scene = plain_scene(n, width, height)
    scene.rows[:, 3:6] += grown
    found = []
    for device in (Device("cuda"), Device("cpu")):
        rows = scene.rows.to(device.tensors, copy=True)
        image = torch.empty((3, height, width), device=device.tensors)
        grad_rows = torch.empty((n, 64), device=device.tensors)
        try:
            stats = device.forward(rows, scene.camera, 0, BACKGROUND, image)
            device.backward(rows, image, grad_rows)
        except MemoryError as error:
            report.note(f"{n:,} large gaussians: {error}")
            return
        wait(device)
        found.append((image.cpu(), grad_rows[:, :16].cpu(), stats.n_instances))
        del rows, image, grad_rows
    (image, grad, pairs), (true_image, true_grad, _) = found
    name = f"{pairs / 1e6:.0f} M pairs"
    for quantity, value, truth in (("image", image, true_image), ("gradient", grad, true_grad)):
        _add(report, name, quantity, (relative(value, truth), float((value - truth).abs().max()), TOLERANCES[quantity]))
    if pairs < least_pairs:
        report.fail(f"{name} are fewer than the {least_pairs:,} this is about")


def _add(report: Report, scene: str, quantity: str, figures: tuple[float, float, float]) -> None:
    error, worst, limit = figures
    is_equal = error <= limit
    report.add(
        {"scene": scene, "quantity": quantity, "relative error": error, "worst difference": worst, "tolerance": limit, "equal": is_equal}
    )
    if not is_equal:
        report.fail(f"{quantity} of {scene} differs by {error:.2e}, tolerance {limit:.0e}")


def main() -> int:
    """Compare all cases; return 1 when something is not equal."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_equal", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of them, smallest first")
    given = parser.parse_args()
    report = Report("CPU against card", given.json)
    for n, width, height, blended in CASES[: given.cases]:
        scene = surface_scene(n, width, height, blended)
        compare(results_of(Device("cuda"), scene), results_of(Device("cpu"), scene), f"{n // 1000} k, {width}x{height}", report)
    if given.cases == len(CASES):
        compare_many(MANY, MANY_PAIRS, report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
