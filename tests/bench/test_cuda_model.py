"""What is foreseen follows from counts and machine code; the table of loops is the one that nvcc's code has."""

from dataclasses import fields, replace

import pytest

from bench.cuda_counts import Counts
from bench.cuda_kernels import KERNELS, Kernel
from bench.cuda_model import BANDWIDTH, ISSUE, Row, page, row_of, rows_of, stage_ms, step_ms
from bench.cuda_sass import Part
from bench.kernels import STEP_STAGES

COUNTS = replace(Counts(**{field.name: 100 for field in fields(Counts)}), n=1_000_000, width=64, height=64)


def of_loops(n: int) -> list[Part]:
    return [Part(0, 100, 10, 0), *(Part(each, each + 1, 20, 3) for each in range(1, n + 1))]


def test_a_kernel_takes_as_long_as_what_holds_it_most() -> None:
    row = Row("any", instructions=132 * 4 * 1.98e9 * ISSUE, words=132 * 1.98e9 / 2, size_bytes=BANDWIDTH / 4, floor_ms=0.1)
    assert row.bounds == pytest.approx({"instructions": 1000.0, "shared memory": 500.0, "memory": 250.0, "launch": 0.1})
    assert row.ms == pytest.approx(1000.0)


def test_parts_count_as_often_as_they_are_run() -> None:
    row = row_of(Kernel("any", lambda c: (c.warps, 3 * c.turns), lambda c: c.n * 8.0), COUNTS, of_loops(1))
    assert (row.instructions, row.words, row.size_bytes) == (100 * 10 + 300 * 20, 300 * 3, 8e6)


def test_a_kernel_with_other_loops_than_the_table_says_is_refused() -> None:
    with pytest.raises(ValueError, match=r"any: 2 loops in nvcc's code, 1 in bench/cuda_kernels\.py"):
        row_of(Kernel("any", lambda c: (c.warps, c.turns), lambda _: 0.0), COUNTS, of_loops(2))


def test_a_step_takes_the_higher_bases_in_every_fourth() -> None:
    always, without, with_rest = (Row(name, 0, 0, 0, ms) for name, ms in (("always", 1.0), ("without", 2.0), ("with", 6.0)))
    assert step_ms([always, without, with_rest]) == pytest.approx(1.0 + 2.0 + 1.0)


def test_every_stage_that_is_timed_on_a_card_has_its_kernels() -> None:
    kernels = {kernel.name: of_loops(len(kernel.trips(COUNTS)) - 1) for kernel in KERNELS}
    stages = stage_ms(rows_of(COUNTS, kernels))
    assert list(stages) == list(STEP_STAGES)
    assert all(ms > 0 for ms in stages.values())


def test_the_page_says_that_nothing_was_run() -> None:
    kernels = {kernel.name: of_loops(len(kernel.trips(COUNTS)) - 1) for kernel in KERNELS}
    text = page([COUNTS], kernels)
    assert "nothing was run on a card" in text
    assert all(row.name in text for row in rows_of(COUNTS, kernels))
