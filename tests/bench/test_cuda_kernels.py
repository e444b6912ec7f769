"""The table of loops is that of nvcc's code, and says what no list can hold more often than it is long."""

import shutil
from dataclasses import fields, replace

import pytest

from bench.cuda_counts import Counts
from bench.cuda_kernels import GRADIENT_WITH_REST, KERNELS
from bench.cuda_sass import SOURCES, disassemble, has_tools, kernels_in, parts_of

COUNTS = replace(Counts(**{field.name: 100 for field in fields(Counts)}), n=1_000_000, width=64, height=64)


def test_a_step_with_the_higher_bases_moves_their_parameters_and_moments_too() -> None:
    without = next(kernel for kernel in KERNELS if kernel.name == "gradient_kernel")
    assert GRADIENT_WITH_REST.size_bytes(COUNTS) - without.size_bytes(COUNTS) == COUNTS.visible * 5 * 192


def test_the_table_of_loops_is_that_of_nvccs_code() -> None:
    if not has_tools("cuobjdump"):
        pytest.skip("needs nvcc and cuobjdump")
    found = kernels_in(disassemble(SOURCES, shutil.which("cuobjdump") or ""))
    wrong = {
        kernel.name: len(parts_of(found[kernel.name]))
        for kernel in KERNELS
        if len(parts_of(found[kernel.name])) != len(kernel.trips(COUNTS))
    }
    assert not wrong, "bench/cuda_kernels.py says how often each loop runs"
