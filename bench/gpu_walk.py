"""Walk through every call of a card at odd sizes: ``python -m bench.gpu_walk [quick]``. For compute-sanitizer, which watches it.

Start it with PYTORCH_NO_CUDA_MEMORY_CACHING=1: each tensor is then an allocation of its own, whose ends the tool knows.
"""

import argparse
import sys
from dataclasses import dataclass

import torch

from bench.gpu_device import wait
from kernels.step import AdamParams, Device, OptimizerState
from kernels.tensors import ROW
from tests.kernels.scenes import Scene, scene, sized_scene

SIZES = ((1, 1, 3), (15, 7, 1), (33, 17, 31), (64, 31, 33), (97, 70, 150), (257, 40, 64))  # width, height, gaussians
SCENES = ("crowded", "fog", "near", "huge", "needles")


@dataclass
class Arrays:
    """All that a step on one scene reads and writes."""

    rows: torch.Tensor
    state: OptimizerState
    image: torch.Tensor
    grad_image: torch.Tensor
    transmittance: torch.Tensor
    error_map: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor
    density: torch.Tensor

    @classmethod
    def of(cls, subject: Scene, device: Device) -> "Arrays":
        """Return arrays for a scene; what the kernels write starts as what it must not stay."""
        where, n = device.tensors, len(subject.rows)
        size = (subject.camera.height, subject.camera.width)
        moments = [torch.zeros((n, ROW), device=where) for _ in range(2)]
        mask = torch.ones(size, dtype=torch.uint8)
        mask[: size[0] // 3] = 0
        target = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))

        def unset(*shape: int) -> torch.Tensor:
            return torch.full(shape, float("nan"), device=where)

        return cls(
            subject.rows.to(where, copy=True),
            OptimizerState(moments[0], moments[1], torch.zeros(n, dtype=torch.int32, device=where)),
            unset(3, *size),
            unset(3, *size),
            unset(*size),
            unset(*size),
            mask.to(where),
            target.to(where),
            torch.zeros((n, 4), device=where),
        )


def walk(device: Device, subject: Scene, sh_degree: int) -> None:
    """Make every call once and more; raise ``RuntimeError`` where a picture or the rows are not finite afterwards."""
    arrays, camera, n = Arrays.of(subject, device), subject.camera, len(subject.rows)
    where = device.tensors
    device.forward(arrays.rows, camera, sh_degree, subject.background, arrays.image)  # without waiting, the next finds the room it needs
    for step in (1, 2, 3):
        device.forward(arrays.rows, camera, sh_degree, subject.background, arrays.image, arrays.transmittance if step == 1 else None)
        device.loss(arrays.image, arrays.target, 0.2, arrays.grad_image, arrays.mask if step != 2 else None, arrays.error_map, step % 2)
        sums, peaks = torch.zeros(n, device=where), torch.zeros(n, device=where)
        device.contribution(n, sums, peaks, arrays.error_map)
        grad_rows = torch.full((n, ROW), float("nan"), device=where)
        device.backward(arrays.rows, arrays.grad_image, grad_rows, arrays.error_map, arrays.density)
        adam = AdamParams(step, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, opacity_reg=0.01, scale_reg=0.01, step_sh_rest=step == 2)
        device.backward_adam(arrays.rows, arrays.state, arrays.grad_image, adam, arrays.density)
        wait(device)
        for name, values in (("image", arrays.image), ("gradients", grad_rows), ("rows", arrays.rows)):
            if not bool(torch.isfinite(values).all()):
                raise RuntimeError(f"{name} of {subject.name} at {camera.width}x{camera.height}, step {step}, are not finite")
    device.knn(arrays.rows[:, :3].contiguous(), min(3, 16))


def subjects(*, is_quick: bool) -> list[tuple[Scene, int]]:
    """Return scenes and colour degrees."""
    sized = [(sized_scene(width, height, n), index % 4) for index, (width, height, n) in enumerate(SIZES)]
    return sized[::2] if is_quick else sized + [(scene(name), 3) for name in SCENES]


def main() -> int:
    """Walk, with a device that waits and with one that does not."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_walk", description=__doc__)
    parser.add_argument("how", nargs="?", choices=("quick", "whole"), default="whole", help="quick: three small sizes only")
    is_quick = parser.parse_args().how == "quick"
    for waits in (True, False):
        device = Device("cuda", waits=waits)
        for subject, sh_degree in subjects(is_quick=is_quick):
            walk(device, subject, sh_degree)
        wait(device)
    print(f"walked through every call on {device.info().name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
