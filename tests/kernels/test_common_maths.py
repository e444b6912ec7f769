import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from kernels import reference

KERNELS = Path(reference.__file__).parent


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Compile and run ``common_maths.cpp``; return what it printed."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++, c++ or $CXX) on this machine")
    program = tmp_path_factory.mktemp("maths") / "common_maths"
    source = Path(__file__).with_name("common_maths.cpp")
    subprocess.run([compiler, "-std=c++17", "-O1", "-Wall", "-Werror", "-I", KERNELS, source, "-o", program], check=True, timeout=120)
    printed = subprocess.run([program], check=True, timeout=60, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in printed.splitlines())}


def test_the_projections_derivative_is_exact(figures: dict[str, float]) -> None:
    # Measured 5e-15; a wrong term is 1e-3 or more. Many cases lie in the clamped part of the view.
    assert figures["geometry"] < 1e-11
    assert figures["clamped"] > 1000


def test_the_determinant_summed_from_squares_is_the_determinant(figures: dict[str, float]) -> None:
    # Measured 3e-8: the square of the dilation is rounded to float32.
    assert figures["determinant"] < 1e-7


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_colours_derivative_by_direction_is_exact(figures: dict[str, float], degree: int) -> None:
    assert figures[f"sh_direction_{degree}"] < 1e-11


def test_the_bases_are_the_references(figures: dict[str, float]) -> None:
    direction = torch.tensor([[0.6, -0.48, 0.64]], dtype=torch.float64)
    got = [figures[f"basis_{k}"] for k in range(1, 16)]
    assert got == pytest.approx(reference.sh_basis(direction, 3)[0, 1:].tolist(), abs=3e-7)  # the constants are float32
