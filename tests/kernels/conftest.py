"""Fixtures of the kernel tests: one torch thread, a generator, and a CPU device for each instruction set."""

from pathlib import Path
from typing import cast

import pytest
import torch

from kernels.step import Device
from tests.kernels.card import OnCard

torch.set_num_threads(1)

NEEDED_FLAGS = {
    "generic": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vbmi2"},
}


def machine_flags() -> set[str]:
    """Return the instruction sets that Linux reports for this machine; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


def machine_isas() -> list[str]:
    """Return the instruction sets of the library that this machine can run, best first."""
    return [isa for isa in ("avx512", "avx2", "generic") if NEEDED_FLAGS[isa] <= machine_flags()]


@pytest.fixture
def generator() -> torch.Generator:
    """A random generator with a fixed seed."""
    return torch.Generator().manual_seed(20)


@pytest.fixture(scope="session", params=["avx512", "avx2", "generic", "cuda"])
def device(request: pytest.FixtureRequest) -> Device:
    """A CPU device with two threads for each instruction set that this machine has, and a card, or its shim, where there is one."""
    if request.param == "cuda":
        return cast(Device, OnCard(card()))
    missing = NEEDED_FLAGS[request.param] - machine_flags()
    if missing:
        pytest.skip(f"this machine has no {', '.join(sorted(missing))}")
    return Device("cpu", n_threads=2, isa=request.param)


def card(*, waits: bool = True) -> Device:
    """Return the first card, or skip the test where there is none; ``make cuda-check`` gives the shim's."""
    try:
        return Device("cuda", waits=waits)
    except RuntimeError as error:
        return pytest.skip(str(error))
