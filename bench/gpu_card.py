"""What card this is and what it can do at most, measured: ``python -m bench.gpu_card --json OUT``."""

import argparse
import ctypes
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.gpu_device import median_ms
from bench.gpu_report import Report, read_report
from kernels.step import Device

BUILD = Path("build") / "gpu"
PEAK_SOURCE = Path(__file__).with_name("gpu_peak.cu")
ASKED = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.limit",
    "memory.total",
    "temperature.gpu",
)
COPY_BYTES = 2 << 30


@dataclass(frozen=True)
class Peaks:
    """Ceilings of a card, as measured in this run."""

    bytes_per_s: float  # read and written by a large copy
    flop_per_s: float  # float32 multiply-adds count two


def said_by(*command: str) -> str:
    """Return what a program printed, or nothing where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def card_facts() -> dict[str, str]:
    """Return card, driver, clocks and versions as text; what cannot be asked for is left out."""
    answers = said_by("nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader").splitlines()
    facts = dict(zip(ASKED, (cell.strip() for cell in answers[0].split(",")), strict=False)) if answers else {}
    facts |= {"torch": torch.__version__, "torch cuda": torch.version.cuda or "none"}
    facts["nvcc"] = said_by("nvcc", "--version").rpartition("release ")[2].split(",")[0]
    commit = said_by("git", "rev-parse", "--short", "HEAD")
    facts["commit"] = commit or os.environ.get("GPU_CHECK_COMMIT", "")  # a copy of the files has no history to ask
    facts["changed files"] = str(len(said_by("git", "status", "--porcelain", "--untracked-files=no").splitlines())) if commit else ""
    return {name: value for name, value in facts.items() if value}


def architecture() -> str:
    """Return the first card's compute capability as CMake writes it, "90"; raises ``RuntimeError`` where torch sees no card."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no NVIDIA card. Run this where nvidia-smi lists one, with a torch that was built for CUDA.")
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}{minor}"


def copy_bytes_per_s(device: Device, size_bytes: int = COPY_BYTES) -> float:
    """Return the bytes a second, read and written, of a copy on the card."""
    source = torch.zeros(size_bytes // 4, device=device.tensors)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / (median_ms(device, lambda: target.copy_(source), 15) / 1e3)


def flop_per_s(library: Path) -> float:
    """Return the float32 operations a second of the compiled loop of gpu_peak.cu; raises ``RuntimeError`` when it cannot run."""
    peak = ctypes.CDLL(str(library.resolve())).peak_fma
    peak.argtypes, peak.restype = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_double)), ctypes.c_double
    milliseconds = ctypes.c_double()
    blocks = 16 * torch.cuda.get_device_properties(0).multi_processor_count
    operations = peak(0, blocks, 20_000, ctypes.byref(milliseconds))
    if operations < 0:
        raise RuntimeError(f"the loop of multiply-adds ended with CUDA error {-operations:.0f}")
    return float(operations / (milliseconds.value / 1e3))


def build_peak(folder: Path, arch: str) -> Path:
    """Compile gpu_peak.cu into a folder; return the library."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libgpu_peak.so"
    command = ["nvcc", "-O3", f"-arch=sm_{arch}", "--shared", "-Xcompiler", "-fPIC", "-o", str(library), str(PEAK_SOURCE)]
    subprocess.run(command, check=True, timeout=120)
    return library


def peaks_of(path: Path) -> Peaks | None:
    """Return the ceilings that an earlier ``main`` wrote, or None."""
    found = read_report(path, "").data.get("peaks")
    return Peaks(**found) if found else None


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_card", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    report = Report("The card", parser.parse_args().json)
    facts = card_facts()
    report.keep("facts", facts)
    report.add(facts)
    device = Device("cuda")
    peaks = Peaks(copy_bytes_per_s(device), flop_per_s(build_peak(BUILD, architecture())))
    report.keep("peaks", asdict(peaks))
    report.keep("facts", card_facts())  # once more: the clocks of a card at work
    report.note(f"copy {peaks.bytes_per_s / 1e12:.2f} TB/s read and written, float32 multiply-adds {peaks.flop_per_s / 1e12:.1f} TFLOP/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
