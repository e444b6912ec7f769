"""gsplat from PyPI as an opponent: found in a folder, its CUDA code built, called by its public API. ``python -m bench.gpu_opponent``.

Apache-2.0; called, not copied. GSPLAT names a folder with its wheel or source distribution, and those of what it imports.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.gpu_device import SSIM_WEIGHT
from kernels.step import CameraParams, Device

HOW_TO_CARRY = (
    "gsplat is not here. In a folder: pip download --no-deps gsplat (and rich, jaxtyping, ninja where Python lacks them), "
    "then: make gpu-check GSPLAT=FOLDER"
)
UNPACKED = Path("build") / "gpu" / "gsplat"
EXTENSIONS = Path("build") / "gpu" / "extensions"
RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}  # gsplat's defaults
WITHOUT, LEFT_OUT = "none", "gsplat is left out: its CUDA code could not be built, or not in time (build/gpu/logs/gsplat_build.log)"
NOT_CARRIED = 3  # the exit status of this module where there is nothing to build
EPS, BETAS = 1e-15, (0.9, 0.999)


def unpack(folder: Path, target: Path = UNPACKED) -> list[Path]:
    """Unpack wheels and source distributions, each once: newer sources would be compiled anew. Return the folders to import from."""
    target.mkdir(parents=True, exist_ok=True)
    for archive in sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")]):
        done = target / f".{archive.name}.{archive.stat().st_size}"
        if done.is_file():
            continue
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(target)
        else:
            shutil.unpack_archive(archive, target, filter="data")
        done.touch()
    return [target, *(each for each in sorted(target.iterdir()) if (each / "setup.py").is_file())]


def toolkit() -> str:
    """Return the CUDA toolkit's folder: CUDA_HOME, or as nvcc says it, or nothing where there is no nvcc.

    torch takes the folder above that of the nvcc on the PATH, which has no headers where that nvcc is a script that calls the real one.
    """
    if os.environ.get("CUDA_HOME"):
        return os.environ["CUDA_HOME"]
    if shutil.which("nvcc") is None:
        return ""
    asked = ("nvcc", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull)
    said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stderr
    found = re.search(r"^#\$ _HERE_=(.+)$", said, re.MULTILINE)
    return str(Path(found[1]).parent) if found else ""


def find_gsplat(folder: str) -> Any:
    """Return the module, from the folder where one is named; None where there is none, or it is not wanted. It is built at first use."""
    if folder == WITHOUT:
        return None
    if toolkit():
        os.environ["CUDA_HOME"] = toolkit()
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(EXTENSIONS.resolve()))
    if folder and Path(folder).is_dir():
        sys.path[:0] = [str(each.resolve()) for each in unpack(Path(folder))]
    try:
        return importlib.import_module("gsplat")
    except ImportError as error:
        print(f"gsplat cannot be imported: {error}", flush=True)
        return None


def why_without(folder: str) -> str:
    """Return why there is no gsplat, as ``find_gsplat`` was given it."""
    return LEFT_OUT if folder == WITHOUT else HOW_TO_CARRY


def compiled() -> str:
    """Build gsplat's CUDA code, or load what was built; return its version. Raises ``RuntimeError`` where it cannot be had."""
    backend = importlib.import_module("gsplat.cuda._backend")
    if backend._C is None:
        raise RuntimeError("gsplat found no CUDA toolkit to build its kernels with")
    return str(importlib.import_module("gsplat").__version__)


def parameters_of(rows: torch.Tensor) -> dict[str, torch.nn.Parameter]:
    """Return gsplat's parameters of our rows [N, 64]: logarithms of scales, logits of opacities, colours [N, 1, 3] and [N, 15, 3]."""
    n = len(rows)
    rest = torch.stack([rows[:, 16 * (channel + 1) : 16 * (channel + 1) + 15] for channel in range(3)], dim=2)
    values = {"means": rows[:, 0:3], "scales": rows[:, 3:6], "quats": rows[:, 6:10], "opacities": rows[:, 10]}
    values |= {"sh0": rows[:, 11:14].reshape(n, 1, 3), "shN": rest}
    return {name: torch.nn.Parameter(value.contiguous().clone()) for name, value in values.items()}


def optimizers_of(parameters: dict[str, torch.nn.Parameter], make: Callable[..., Any], rates: dict[str, float]) -> dict[str, Any]:
    """Return one optimiser a parameter, as gsplat's own trainer has them."""
    return {name: make([{"params": parameter, "lr": rates[name]}], eps=EPS, betas=BETAS) for name, parameter in parameters.items()}


@dataclass(frozen=True)
class View:
    """A camera as gsplat takes it, on the card once and for all."""

    viewmats: torch.Tensor  # [1, 4, 4] float32
    intrinsics: torch.Tensor  # [1, 3, 3] float32
    width: int
    height: int

    @classmethod
    def of(cls, camera: CameraParams, where: torch.device) -> "View":
        """Return the view of our camera."""
        pose = torch.tensor([*camera.cam_from_world, 0.0, 0.0, 0.0, 1.0]).reshape(1, 4, 4)
        intrinsics = torch.tensor([[[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]]])
        return cls(pose.to(where), intrinsics.to(where), camera.width, camera.height)


@dataclass(frozen=True)
class Picture:
    """What a rasterisation returned: the image [H, W, 3] with its graph, and gsplat's own account of it."""

    image: torch.Tensor
    info: dict[str, Any]

    @property
    def visible(self) -> torch.Tensor:
        """Which gaussians were drawn, [N] bool."""
        drawn: torch.Tensor = (self.info["radii"] > 0).all(-1).any(0)
        return drawn


def rasterize(gsplat: Any, parameters: dict[str, torch.nn.Parameter], view: View, sh_degree: int) -> Picture:
    """Render by gsplat's defaults with packed=False, black behind."""
    images, _, info = gsplat.rasterization(
        means=parameters["means"],
        quats=parameters["quats"],
        scales=torch.exp(parameters["scales"]),
        opacities=torch.sigmoid(parameters["opacities"]),
        colors=torch.cat([parameters["sh0"], parameters["shN"]], 1),
        viewmats=view.viewmats,
        Ks=view.intrinsics,
        width=view.width,
        height=view.height,
        sh_degree=sh_degree,
        packed=False,
        tile_size=16,
    )
    return Picture(images[0], info)


class OurLoss(torch.autograd.Function):
    """Our loss kernel behind autograd, so that both sides pay the same for it: (1 - w) L1 + w (1 - SSIM) of an image [H, W, 3]."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, device: Device, target: torch.Tensor, target_key: int) -> torch.Tensor:
        """Return zero: only the gradient is wanted, and to tell the value would be to wait for the card."""
        planar = image.permute(2, 0, 1).contiguous()
        grad = torch.empty_like(planar)
        device.loss(planar, target, SSIM_WEIGHT, grad, target_key=target_key)
        ctx.save_for_backward(grad)
        return image.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient of the image, for a loss that this is a summand of."""
        (grad,) = ctx.saved_tensors
        return grad.permute(1, 2, 0), None, None, None


def main() -> int:
    """Build gsplat's CUDA code, so that it is there when it is wanted."""
    if find_gsplat(os.environ.get("GSPLAT", "")) is None:
        print(HOW_TO_CARRY)
        return NOT_CARRIED
    print(f"gsplat {compiled()} is built", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
