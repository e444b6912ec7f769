"""Running out of a card's memory: ``python -m bench.gpu_memory --json OUT``. A named error, then work as before.

On a card all memory but a little is taken first; on the shim the environment's SPLAT_SHIM_MEMORY limits it.
"""

import argparse
from pathlib import Path

import torch

from bench.gpu_device import BLACK, SH_DEGREE, is_real, wait
from bench.gpu_report import Report
from bench.kernel_scene import Scene, rows_of
from kernels.step import CameraParams, Device

LEFT_BYTES = 192 << 20  # for other processes' contexts and the small things
LEAST_PIECE_BYTES = 32 << 20
LARGE, SMALL = (1_000_000, 3840, 2160), (2_000, 160, 90)  # gaussians, size


def plain_scene(n: int, width: int, height: int) -> Scene:
    """Return a scene without fitting its sizes."""
    pose = (1, 0, 0, 0, 0, 1, 0, 0.6, 0, 0, 1, 5.0)
    return Scene(torch.from_numpy(rows_of(n, 0)), CameraParams(pose, 0.75 * width, 0.75 * width, width / 2, height / 2, width, height))


def take_all_but(device: Device, left_bytes: int) -> list[torch.Tensor]:
    """Return tensors that leave about ``left_bytes`` of the card's memory to others; plain allocations, and none on the shim."""
    taken: list[torch.Tensor] = []
    piece = torch.cuda.mem_get_info(device.tensors)[0] - left_bytes if is_real(device) else 0
    while piece >= LEAST_PIECE_BYTES:
        try:
            taken.append(torch.empty(piece, dtype=torch.uint8, device=device.tensors))
            piece = min(piece, torch.cuda.mem_get_info(device.tensors)[0] - left_bytes)
        except torch.OutOfMemoryError:  # not in one piece
            piece //= 2
    return taken


def render(device: Device, scene: Scene) -> torch.Tensor:
    """Return the picture, on the CPU; raises ``MemoryError``."""
    image = torch.empty((3, scene.camera.height, scene.camera.width), device=device.tensors)
    device.forward(scene.rows.to(device.tensors), scene.camera, SH_DEGREE, BLACK, image)
    wait(device)
    return image.cpu()


def outgrow(device: Device, scene: Scene) -> str:
    """Render without the memory for it; return the error's text, or nothing if there was none."""
    rows = scene.rows.to(device.tensors)
    image = torch.empty((3, scene.camera.height, scene.camera.width), device=device.tensors)
    if is_real(device):
        torch.cuda.empty_cache()
    taken = take_all_but(device, LEFT_BYTES)
    try:
        device.forward(rows, scene.camera, SH_DEGREE, BLACK, image)
        wait(device)
    except MemoryError as error:
        return str(error)
    finally:
        del taken
        if is_real(device):
            torch.cuda.empty_cache()
    return ""


def draws_beside_unused_memory(device: Device, scene: Scene) -> bool:
    """Say whether a new device draws while torch keeps nearly all memory that it does not use: it has to be asked back."""
    kept = take_all_but(device, LEFT_BYTES)
    del kept  # free for torch's next tensors, and for nobody else
    image = render(Device("cuda"), scene)
    return bool(torch.isfinite(image).all())


def check(device: Device, large: Scene, small: Scene, report: Report) -> None:
    """Add what happened before, without memory, and afterwards."""
    before = render(device, small)
    said = outgrow(device, large)
    report.add({"when": "without memory", "happened": said or "no error", "right": "bytes" in said})
    if "bytes" not in said:
        report.fail(f"{len(large.rows):,} gaussians without memory for them gave {said or 'no error'!r}, not the named one")
    is_same = bool(torch.equal(render(device, small), before))
    report.add({"when": "afterwards, small", "happened": "rendered on the same device", "right": is_same})
    if not is_same:
        report.fail("the device draws another picture after it ran out of memory")
    if is_real(device):
        is_finite = bool(torch.isfinite(render(device, large)).all())
        report.add({"when": "torch keeps all", "happened": "a new device rendered", "right": draws_beside_unused_memory(device, large)})
        report.add({"when": "afterwards, large", "happened": f"{device.info().workspace_bytes:,} bytes of workspace", "right": is_finite})


def main() -> int:
    """Check; return 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_memory", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--large", type=int, default=LARGE[0], metavar="GAUSSIANS")
    given = parser.parse_args()
    report = Report("Out of memory", given.json)
    check(Device("cuda"), plain_scene(given.large, *LARGE[1:]), plain_scene(*SMALL), report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
