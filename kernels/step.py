"""The fast path: one ``Device`` per process and card, and the three calls of a training step.

This is the Python contract that the engine uses; bodies are thin ctypes calls into the C ABI (kernels/include/splat/splat.h has the
formulas). All tensors are torch, contiguous, on the device's memory; dtype and shape are checked here, once per call, by name.
"""

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from kernels import _lib

ROW = 64  # floats per gaussian
MAX_SIDE = 16384  # pixels
DENSITY = 4  # floats per gaussian of density statistics
DILATION = 0.3  # pixels², as every viewer adds


@dataclass(frozen=True)
class CameraParams:
    """A pinhole camera: ``cam_from_world`` row-major 3×4 floats, intrinsics in pixels, pixel centres at .5."""

    cam_from_world: tuple[float, ...]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    near_plane: float = 0.01
    far_plane: float = 1e6


@dataclass(frozen=True)
class ForwardStats:
    """What a forward pass met."""

    n_visible: int
    n_instances: int


@dataclass(frozen=True)
class LossValues:
    """Means over the (masked) pixels and channels."""

    l1: float
    ssim: float
    mse: float


@dataclass(frozen=True)
class AdamParams:
    """Rates of one optimiser step; ``step`` counts from 1."""

    step: int
    lr_means: float
    lr_log_scales: float
    lr_quats: float
    lr_opacity: float
    lr_sh_dc: float
    lr_sh_rest: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-15
    opacity_reg: float = 0.0
    scale_reg: float = 0.0
    step_sh_rest: bool = True


@dataclass(frozen=True)
class OptimizerState:
    """Adam's moments, [N, 64] float32 each, and the last step each row was updated, [N] int32."""

    moment1: torch.Tensor  # [N, 64] float32
    moment2: torch.Tensor  # [N, 64] float32
    last_step: torch.Tensor  # [N] int32


@dataclass(frozen=True)
class DeviceInfo:
    """What a device runs on."""

    name: str  # "avx512", "avx2", "generic", or the card
    n_threads: int
    workspace_bytes: int
    on_card: bool = False
    n_replays: int = 0  # passes that were one CUDA graph's replay so far


@dataclass(frozen=True)
class Profile:
    """Seconds by stage (names: ``kernels._lib.STAGES``), calls, and the pixel lanes of the last ``contribution``."""

    cpu_s: dict[str, float]
    wall_s: dict[str, float]
    calls: dict[str, int]
    n_evaluated: int
    n_blended: int


class Device:
    """One device, its thread pool and its workspaces. Not for use from two threads at a time.

    ``device`` is "cpu", "cuda" or "cuda:N"; ``n_threads`` 0 means one per usable core; ``isa`` is "auto", "avx512", "avx2" or "generic".
    A card's calls work on torch's current stream; with ``waits`` false they return at once, and values and errors are those of the frame
    before (splat.h, SplatStreamArgs). Raises ``ValueError`` for an unknown name, ``RuntimeError`` where machine or build lack it,
    ``kernels._lib.LibraryMissingError`` (a RuntimeError) with the command to run where the library was not built.
    """

    def __init__(self, device: str = "cpu", n_threads: int = 0, isa: str = "auto", waits: bool = True) -> None:
        kind, _, ordinal = device.partition(":")
        if kind not in ("cpu", "cuda") or (ordinal and (kind == "cpu" or not ordinal.isdecimal())):
            raise ValueError(f"device is {device!r}, expected 'cpu', 'cuda' or 'cuda:N'")
        if isa not in _lib.ISAS:
            raise ValueError(f"isa is {isa!r}, expected one of {', '.join(_lib.ISAS)}")
        self._library = _lib.load(kind)
        options = _lib.ContextOptions(n_threads=n_threads, isa=_lib.ISAS[isa], device=int(ordinal or 0))
        self._context = _lib.create_context(self._library, options)
        weakref.finalize(self, self._library.splat_context_destroy, self._context)
        self._size = (0, 0)  # height, width of the last forward
        self._stream: int | None = None  # that the context works on, as far as it was told
        self._waits = waits
        self.tensors = torch.device("cuda", int(ordinal or 0)) if self.info().on_card else torch.device("cpu")
        if kind == "cuda":
            self._work_on(0)

    def info(self) -> DeviceInfo:
        """Return the instruction set and number of threads in use, and the bytes of workspace held."""
        info = _lib.ContextInfo()
        _lib.check(self._library, self._library.splat_context_info(self._context, ctypes.byref(info)))
        return DeviceInfo(info.name.decode(), info.n_threads, info.workspace_bytes, bool(info.on_card), info.n_replays)

    def forward(
        self,
        rows: torch.Tensor,  # [N, 64] float32
        camera: CameraParams,
        sh_degree: int,
        background: tuple[float, float, float],
        image: torch.Tensor,  # out [3, H, W] float32
        transmittance: torch.Tensor | None = None,  # out [H, W] float32
    ) -> ForwardStats:
        """Project, sort, bin and blend into ``image``; keeps what the backward passes and ``contribution`` need until the next forward.

        Raises ``ValueError`` naming the argument that does not fit, ``kernels._lib.NonFiniteError`` (a FloatingPointError) naming row
        and column of a value that is not finite. Formulas: splat.h, ``kernels.reference.render``.
        """
        c_camera = _camera(camera)
        size = (camera.height, camera.width)
        args = _lib.ForwardArgs(
            sh_degree=sh_degree,
            n=_count(rows),
            params=self._pointer("rows", rows, (-1, ROW)),
            camera=c_camera,
            background=background,
            dilation=DILATION,
            image=self._pointer("image", image, (3, *size)),
            transmittance=self._pointer("transmittance", transmittance, size),
        )
        self._call(self._library.splat_forward, args)
        self._size = size
        return ForwardStats(args.n_visible, args.n_instances)

    def loss(
        self,
        image: torch.Tensor,  # [3, H, W] float32
        target: torch.Tensor,  # [H, W, 3] uint8
        ssim_weight: float,
        grad_image: torch.Tensor | None = None,  # out [3, H, W] float32
        mask: torch.Tensor | None = None,  # [H, W] uint8
        error_map: torch.Tensor | None = None,  # out [H, W] float32
        target_key: int = 0,
    ) -> LossValues:
        """Return L1, SSIM and mean squared error, and write dloss/dimage, loss = (1 - w) L1 + w (1 - SSIM).

        ``target_key`` other than 0 promises that the same key always comes with the same target and mask: what depends on them alone is
        then kept. Raises ``ValueError`` naming the argument that does not fit. Formulas: ``kernels.reference.loss``.
        """
        size = tuple(image.shape[1:])
        args = _lib.LossArgs(
            width=size[-1] if size else 0,
            height=size[0] if size else 0,
            ssim_weight=ssim_weight,
            image=self._pointer("image", image, (3, -1, -1)),
            target=self._pointer("target", target, (*size, 3), torch.uint8),
            mask=self._pointer("mask", mask, size, torch.uint8),
            grad_image=self._pointer("grad_image", grad_image, (3, *size)),
            error_map=self._pointer("error_map", error_map, size),
            target_key=target_key,
        )
        self._call(self._library.splat_loss, args)
        return LossValues(args.l1, args.ssim, args.mse)

    def backward(
        self,
        rows: torch.Tensor,  # [N, 64] float32
        grad_image: torch.Tensor,  # [3, H, W] float32
        grad_rows: torch.Tensor,  # out [N, 64] float32
        grad_transmittance: torch.Tensor | None = None,  # [H, W] float32
        density: torch.Tensor | None = None,  # in/out [N, 4] float32
    ) -> None:
        """Write dloss/drows of the last forward, whose ``rows`` must be unchanged; rows of unseen gaussians become zero.

        Raises ``ValueError`` naming the argument that does not fit. Formulas: autograd of ``kernels.reference.render``.
        """
        n = _count(rows)
        args = _lib.BackwardArgs(
            n=n,
            params=self._pointer("rows", rows, (-1, ROW)),
            grad_image=self._pointer("grad_image", grad_image, (3, *self._frame_size())),
            grad_transmittance=self._pointer("grad_transmittance", grad_transmittance, self._frame_size()),
            grad_params=self._pointer("grad_rows", grad_rows, (n, ROW)),
            density=self._pointer("density", density, (n, DENSITY)),
        )
        self._call(self._library.splat_backward, args)

    def backward_adam(
        self,
        rows: torch.Tensor,  # in/out [N, 64] float32
        state: OptimizerState,
        grad_image: torch.Tensor,  # [3, H, W] float32
        adam: AdamParams,
        density: torch.Tensor | None = None,  # in/out [N, 4] float32
    ) -> None:
        """Backward and one step of Adam in one pass, for the gaussians that the last forward saw; adds to the density statistics.

        Raises ``ValueError`` naming the argument that does not fit. Formulas: splat.h, ``kernels.reference.adam_step``.
        """
        n = _count(rows)
        rates = {name: value for name, value in vars(adam).items() if name != "step_sh_rest"}
        args = _lib.BackwardAdamArgs(
            n=n,
            params=self._pointer("rows", rows, (-1, ROW)),
            moment1=self._pointer("moment1", state.moment1, (n, ROW)),
            moment2=self._pointer("moment2", state.moment2, (n, ROW)),
            last_step=self._pointer("last_step", state.last_step, (n,), torch.int32),
            grad_image=self._pointer("grad_image", grad_image, (3, *self._frame_size())),
            density=self._pointer("density", density, (n, DENSITY)),
            step_sh_rest=int(adam.step_sh_rest),
            **rates,
        )
        self._call(self._library.splat_backward_adam, args)

    def contribution(
        self,
        n: int,
        sums: torch.Tensor | None = None,  # in/out [N] float32
        peaks: torch.Tensor | None = None,  # in/out [N] float32
        weight_map: torch.Tensor | None = None,  # [H, W] float32
    ) -> None:
        """Add to ``sums`` what each gaussian gave to the last forward, and raise ``peaks`` to its largest alpha · T.

        Raises ``ValueError`` naming the argument that does not fit. Formulas: ``kernels.reference.contribution``.
        """
        args = _lib.ContributionArgs(
            n=n,
            weight_map=self._pointer("weight_map", weight_map, self._frame_size()),
            sums=self._pointer("sums", sums, (n,)),
            peaks=self._pointer("peaks", peaks, (n,)),
        )
        self._call(self._library.splat_contribution, args)

    def knn(self, points: torch.Tensor, k: int = 3) -> torch.Tensor:  # points [N, 3] float32 -> [N] float32 mean squared distance
        """Return each point's mean squared distance to its ``k`` (1..16) nearest others, exactly; to all others if there are fewer.

        Raises ``ValueError`` naming the argument that does not fit, ``kernels._lib.NonFiniteError`` for points that are not finite.
        """
        distances = torch.empty(_count(points), device=self.tensors)
        args = _lib.KnnArgs(
            k=k,
            n=_count(points),
            points=self._pointer("points", points, (-1, 3)),
            mean_sq_dist=self._pointer("mean_sq_dist", distances, (-1,)),
        )
        self._call(self._library.splat_knn, args)
        return distances

    def profile(self, enable: bool = True, simulate: bool = False) -> Profile:
        """Return where time went since the last call, then start from zero; ``enable`` says whether to measure from now on.

        With ``simulate`` the calling thread runs every task from now on, and ``wall_s`` is what the schedule would take if each of the
        device's threads had a core of its own (task times by the CPU clock, serial parts counted, starting and joining not).
        """
        args = _lib.Profile(enable=_lib.PROFILE_SIMULATE if enable and simulate else int(enable), reset=1)
        self._call(self._library.splat_context_profile, args)
        seconds = dict(zip(_lib.STAGES, args.cpu_s, strict=True)), dict(zip(_lib.STAGES, args.wall_s, strict=True))
        return Profile(*seconds, dict(zip(_lib.STAGES, args.calls, strict=True)), args.n_evaluated, args.n_blended)

    def calibrate(self) -> float:
        """Return the floating-point operations a second of one core in a loop of independent multiply-adds (CPU clock)."""
        flops_per_s = ctypes.c_double()
        _lib.check(self._library, self._library.splat_calibrate(self._context, ctypes.byref(flops_per_s)))
        return flops_per_s.value

    def _call(self, function: Any, args: _lib.Struct) -> None:
        if self.tensors.type == "cuda":
            self._work_on(torch.cuda.current_stream(self.tensors).cuda_stream)
        try:
            _lib.check(self._library, function(self._context, ctypes.byref(args)))
        except MemoryError:
            if not self._has_torch_given_back():
                raise
            _lib.check(self._library, function(self._context, ctypes.byref(args)))

    def _has_torch_given_back(self) -> bool:
        """Say whether torch held memory of the card that it did not use: it is given back, and a workspace may have it now."""
        if self.tensors.type != "cuda":
            return False
        held = torch.cuda.memory_reserved(self.tensors)
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self.tensors) < held

    def _work_on(self, stream: int) -> None:
        if stream != self._stream:
            args = _lib.StreamArgs(waits=int(self._waits), stream=stream or None)
            _lib.check(self._library, self._library.splat_context_stream(self._context, ctypes.byref(args)))
            self._stream = stream

    def _frame_size(self) -> tuple[int, int]:
        if self._size == (0, 0):
            raise ValueError("this needs a forward before it on the same Device")
        return self._size

    def _pointer(self, name: str, tensor: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int | None:
        """Return a tensor's address after checking it by name; -1 in ``shape`` is any size, None has none."""
        if tensor is None:
            return None
        fits = tensor.ndim == len(shape) and all(want in (-1, have) for have, want in zip(tensor.shape, shape, strict=True))
        if not fits or tensor.dtype != dtype:
            expected = ", ".join("any" if size < 0 else str(size) for size in shape)
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} [{expected}]")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous: its strides are {tensor.stride()}; call .contiguous() on it")
        if tensor.device != self.tensors:
            raise ValueError(f"{name} is on {tensor.device}, expected {self.tensors}")
        return tensor.data_ptr()


def _camera(camera: CameraParams) -> _lib.Camera:
    if len(camera.cam_from_world) != 12:
        raise ValueError(f"camera.cam_from_world has {len(camera.cam_from_world)} numbers, expected 12")
    for name in ("width", "height"):  # before they are compared with the image's shape
        if not 1 <= getattr(camera, name) <= MAX_SIDE:
            raise ValueError(f"camera.{name} is {getattr(camera, name)}, expected 1..{MAX_SIDE} pixels")
    values = dict(vars(camera))
    return _lib.Camera(cam_from_world=(ctypes.c_float * 12)(*values.pop("cam_from_world")), **values)


def _count(rows: torch.Tensor) -> int:
    return int(rows.shape[0]) if rows.ndim else 0
