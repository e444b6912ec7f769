"""Find and load the kernel libraries; their C structs, and statuses as exceptions (kernels/include/splat/splat.h)."""

import ctypes
import os
import sysconfig
from ctypes import POINTER, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

ABI_VERSION = 2
ISAS = {"auto": 0, "generic": 1, "avx2": 2, "avx512": 3}
PROFILE_SIMULATE = 2
STAGES = ("project", "sort", "bin", "forward", "loss", "target", "backward", "gradient", "contribution")


class NonFiniteError(FloatingPointError, ValueError):
    """An input array holds NaN or Inf; the text names array, row and column."""


class LibraryMissingError(RuntimeError):
    """The compiled library is not there, or is of another version; the text says how to build it."""


class Struct(ctypes.Structure):
    """A struct of the C ABI: the first member is its size, filled here."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class ContextOptions(Struct):
    """SplatContextOptions."""

    _fields_ = (("struct_size", c_uint32), ("n_threads", c_int32), ("isa", c_int32), ("device", c_int32))


class ContextInfo(Struct):
    """SplatContextInfo."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("abi_version", c_int32),
        ("n_threads", c_int32),
        ("isa", c_int32),
        ("workspace_bytes", c_uint64),
        ("name", c_char * 64),
        ("on_card", c_int32),
        ("n_replays", c_int32),
    )


class StreamArgs(Struct):
    """SplatStreamArgs."""

    _fields_ = (("struct_size", c_uint32), ("waits", c_int32), ("stream", c_void_p))


class Camera(ctypes.Structure):
    """SplatCamera."""

    _fields_ = (
        ("cam_from_world", c_float * 12),
        ("fx", c_float),
        ("fy", c_float),
        ("cx", c_float),
        ("cy", c_float),
        ("width", c_int32),
        ("height", c_int32),
        ("near_plane", c_float),
        ("far_plane", c_float),
    )


class ForwardArgs(Struct):
    """SplatForwardArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("sh_degree", c_int32),
        ("n", c_int64),
        ("params", c_void_p),
        ("camera", Camera),
        ("background", c_float * 3),
        ("dilation", c_float),
        ("image", c_void_p),
        ("transmittance", c_void_p),
        ("n_visible", c_int64),
        ("n_instances", c_int64),
    )


class LossArgs(Struct):
    """SplatLossArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("width", c_int32),
        ("height", c_int32),
        ("ssim_weight", c_float),
        ("image", c_void_p),
        ("target", c_void_p),
        ("mask", c_void_p),
        ("grad_image", c_void_p),
        ("error_map", c_void_p),
        ("target_key", c_uint64),
        ("l1", c_double),
        ("ssim", c_double),
        ("mse", c_double),
    )


class BackwardArgs(Struct):
    """SplatBackwardArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_int32),
        ("n", c_int64),
        ("params", c_void_p),
        ("grad_image", c_void_p),
        ("grad_transmittance", c_void_p),
        ("grad_params", c_void_p),
        ("density", c_void_p),
    )


class BackwardAdamArgs(Struct):
    """SplatBackwardAdamArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("step", c_int32),
        ("n", c_int64),
        ("params", c_void_p),
        ("moment1", c_void_p),
        ("moment2", c_void_p),
        ("last_step", c_void_p),
        ("grad_image", c_void_p),
        ("grad_transmittance", c_void_p),
        ("density", c_void_p),
        *((name, c_float) for name in ("lr_means", "lr_log_scales", "lr_quats", "lr_opacity", "lr_sh_dc", "lr_sh_rest")),
        *((name, c_float) for name in ("beta1", "beta2", "eps", "opacity_reg", "scale_reg")),
        ("step_sh_rest", c_int32),
    )


class ContributionArgs(Struct):
    """SplatContributionArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_int32),
        ("n", c_int64),
        ("weight_map", c_void_p),
        ("sums", c_void_p),
        ("peaks", c_void_p),
    )


class KnnArgs(Struct):
    """SplatKnnArgs."""

    _fields_ = (("struct_size", c_uint32), ("k", c_int32), ("n", c_int64), ("points", c_void_p), ("mean_sq_dist", c_void_p))


class Profile(Struct):
    """SplatProfile."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("enable", c_int32),
        ("reset", c_int32),
        ("reserved", c_int32),
        ("cpu_s", c_double * len(STAGES)),
        ("wall_s", c_double * len(STAGES)),
        ("calls", c_int64 * len(STAGES)),
        ("n_evaluated", c_uint64),
        ("n_blended", c_uint64),
    )


_CALLS = {
    "splat_context_info": ContextInfo,
    "splat_context_stream": StreamArgs,
    "splat_context_profile": Profile,
    "splat_forward": ForwardArgs,
    "splat_loss": LossArgs,
    "splat_backward": BackwardArgs,
    "splat_backward_adam": BackwardAdamArgs,
    "splat_contribution": ContributionArgs,
    "splat_knn": KnnArgs,
}
_EXCEPTIONS: dict[int, type[Exception]] = {1: ValueError, 2: MemoryError, 3: RuntimeError, 4: NonFiniteError, 5: RuntimeError}


def library_path(device: str) -> Path:
    """Return the newest of the wheel's copy, an editable install's copy and the checkout's build folder; raises ``LibraryMissingError``.

    The environment's SPLATWORKS_KERNELS, a folder, goes before all of them: for comparing builds.
    """
    name = f"libsplat_{device}.so"
    chosen = os.environ.get("SPLATWORKS_KERNELS")
    if chosen:
        path = Path(chosen).resolve() / name
        if not path.is_file():
            raise LibraryMissingError(f"SPLATWORKS_KERNELS is {chosen}, which holds no {name}. Build there or unset it.")
        return path
    package = Path(__file__).parent
    site = [Path(sysconfig.get_path(key)) / "kernels" for key in ("platlib", "purelib")]
    places = [package / "lib", *(each / "lib" for each in site), package.parent / "build" / "kernels"]
    found = [place / name for place in places if (place / name).is_file()]
    if not found:
        raise LibraryMissingError(_how_to_build(device))
    return max(found, key=lambda path: path.stat().st_mtime)


def load(device: str) -> ctypes.CDLL:
    """Return the library of "cpu" or "cuda", its functions declared; raises ``LibraryMissingError`` where it was not built."""
    return _load(library_path(device))


@cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, struct in _CALLS.items():
        if not hasattr(library, name):
            raise LibraryMissingError(f"{library._name} is older than this Python code: it has no {name}. Run: make setup")
        getattr(library, name).argtypes = (c_void_p, POINTER(struct))
    library.splat_context_create.argtypes = (POINTER(ContextOptions), POINTER(c_void_p))
    library.splat_context_destroy.argtypes = (c_void_p,)
    library.splat_context_destroy.restype = None
    library.splat_calibrate.argtypes = (c_void_p, POINTER(c_double))
    library.splat_last_error.restype = c_char_p
    return library


def check(library: ctypes.CDLL, status: int) -> None:
    """Raise what a status stands for, in the library's words: ``ValueError``, ``MemoryError``, ``NonFiniteError`` or ``RuntimeError``."""
    if status:
        text = library.splat_last_error().decode("utf-8", "replace")
        raise _EXCEPTIONS.get(status, RuntimeError)(text)


def create_context(library: ctypes.CDLL, options: ContextOptions) -> c_void_p:
    """Return a new context; raises like ``check``, and ``LibraryMissingError`` when library and Python disagree on the ABI."""
    context = c_void_p()
    check(library, library.splat_context_create(ctypes.byref(options), ctypes.byref(context)))
    info = ContextInfo()
    check(library, library.splat_context_info(context, ctypes.byref(info)))
    if info.abi_version != ABI_VERSION:
        library.splat_context_destroy(context)
        raise LibraryMissingError(f"the kernel library has ABI {info.abi_version}, this Python code needs {ABI_VERSION}. Run: make setup")
    return context


def _how_to_build(device: str) -> str:
    if device == "cpu":
        return (
            "libsplat_cpu.so is not built. It needs a C++ compiler (Debian, Ubuntu: apt-get install g++), then: make setup, "
            "or in a checkout: cmake -S kernels -B build/kernels -G Ninja && cmake --build build/kernels"
        )
    return f"libsplat_{device}.so is not built. It needs the CUDA toolkit (nvcc on the PATH) when the package is installed: make setup"
