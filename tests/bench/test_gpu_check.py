"""What can be known of ``make gpu-check`` without a card: its order, its page, its JSON, and that parts of it run on the shim."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import gpu_check
from bench.gpu_background import background_parts
from bench.gpu_card import Peaks, card_facts
from bench.gpu_check import (
    Run,
    build_parts,
    checking_parts,
    main,
    measuring_parts,
    module,
    report_path,
    set_up_environment,
    without_graphs,
)
from bench.gpu_equal import compare, compare_many, results_of
from bench.gpu_graphs import SWITCH
from bench.gpu_graphs import compare as compare_graphs
from bench.gpu_memory import check as check_memory
from bench.gpu_memory import plain_scene
from bench.gpu_parts import Part
from bench.gpu_report import Report
from bench.gpu_scenes import MadeScene, Size, make, read
from bench.gpu_speed import measure_stages, measure_steps, work_of
from bench.gpu_walk import subjects, walk
from bench.kernel_scene import surface_scene
from kernels.step import Device, ForwardStats
from tests.kernels.conftest import card


@pytest.fixture(scope="module")
def cuda() -> Device:
    return card()


def test_without_a_card_it_says_so_and_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main() == 2
    assert "no NVIDIA card" in capsys.readouterr().err


def test_every_module_that_is_started_is_there_and_has_a_name_of_its_own() -> None:
    parts = [*build_parts("90"), *checking_parts(), *measuring_parts(["folder"]), *background_parts(Path("scenes"))]
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        names = [name for name in part.command if name.startswith("bench.")]
        assert all((Path(gpu_check.__file__).parent / f"{name.removeprefix('bench.')}.py").is_file() for name in names)
    assert all((Path(gpu_check.__file__).parent.parent / test).is_file() for test in gpu_check.TRAINING_TESTS)
    assert report_path(parts[-3]).name == "gpu_train.json"


def test_all_parts_find_the_same_libraries_and_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "PYTHONPATH", "SPLATWORKS_KERNELS", "CUDA_MODULE_LOADING", "TORCH_CUDA_ARCH_LIST", "GSPLAT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("GSPLAT", "wheels")
    set_up_environment("120")
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "12.0"
    assert Path(os.environ["GSPLAT"]).is_absolute()
    assert Path(os.environ["SPLATWORKS_KERNELS"]).parts[-3:] == ("build", "gpu", "kernels")
    assert str(Path(sys.executable).parent) in os.environ["PATH"].split(os.pathsep)


def test_the_parts_that_must_run_fit_into_the_time_together() -> None:
    certain = [part for part in checking_parts() if part.name in ("card", "kernel_tests", "walk", "memcheck")]
    assert sum(part.limit_s for part in [*build_parts("90"), *certain]) < gpu_check.TOTAL_S


def test_a_run_prints_and_writes_each_part_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(gpu_check, "REPORTS", tmp_path / "reports")
    run = Run(60, tmp_path / "all.json")
    good = "import sys; from bench.gpu_report import Report; from pathlib import Path; Report('Good', Path(sys.argv[2])).add({'a': 1})"
    run.do(Part("good", "Good part", (sys.executable, "-c", good, "--json", str(tmp_path / "reports" / "good.json")), 30, 1))
    run.do(Part("bad", "Bad part", (sys.executable, "-c", "print('why'); raise SystemExit(4)"), 30, 1))
    written = json.loads((tmp_path / "all.json").read_text())
    assert [part["outcome"] for part in written["parts"]] == ["ok", "FAILED (4)"]
    assert written["reports"]["good"]["rows"] == [{"a": 1}]
    page = capsys.readouterr().out
    assert "| 1 |" in page
    assert "why" in page
    assert not run.is_good()
    assert "| Bad part | FAILED (4) |" in run.summary()


def test_a_benchmark_may_be_cut_short_and_a_test_may_not(tmp_path: Path) -> None:
    late = Part("late", "Late", (sys.executable, "-c", ""), 50, 40)
    for part, is_good in ((late, True), (replace(late, is_needed=True), False)):
        run = Run(10, tmp_path / "all.json")
        run.do(part)
        assert run.is_good() is is_good


def test_card_facts_are_text_and_name_the_commit() -> None:
    facts = card_facts()
    assert facts["torch"] == torch.__version__
    assert all(isinstance(value, str) and value for value in facts.values())


def test_a_module_command_names_its_report() -> None:
    command = module("gpu_equal", "--cases", "1")
    assert command[1:3] == ("-m", "bench.gpu_equal")
    assert command[-2:] == ("--cases", "1")


def test_every_call_is_walked_through(cuda: Device) -> None:
    for subject, sh_degree in subjects(is_quick=True):
        walk(cuda, subject, sh_degree)


def test_card_and_cpu_are_equal_and_a_wrong_gradient_is_seen(cuda: Device) -> None:
    scene = surface_scene(800, 64, 48, 12.0)
    report, truth = Report("Equal"), results_of(Device("cpu"), scene)
    ours = results_of(cuda, scene)
    compare(ours, truth, "small", report)
    assert report.failures == []
    assert all(row["equal"] for row in report.rows)
    ours.arrays["gradient quats"][0] += 1e-3
    compare(ours, truth, "small", report)
    assert report.failures[0].startswith("gradient quats of small differs")


def test_many_pairs_are_compared_and_too_few_are_told(cuda: Device) -> None:
    assert cuda.info().name
    report = Report("Many")
    compare_many((300, 96, 64, 2.5), 200, report)
    assert report.failures == []
    assert [row["quantity"] for row in report.rows] == ["image", "gradient"]
    compare_many((30, 32, 32, 1.0), 10_000, report)
    assert "fewer than the 10,000" in report.failures[0]


def test_steps_by_graphs_are_compared_with_steps_without(cuda: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.info().name
    scene, report = surface_scene(600, 64, 48, 12.0), Report("Graphs")
    compare_graphs("small", scene, report, steps=12)
    assert report.failures == []
    assert report.rows[0]["same bits"]
    assert int(str(report.rows[0]["replays"])) >= 2
    if cuda.info().name == "shim":
        monkeypatch.setenv("SPLAT_SHIM_GRAPHS", "0")
        compare_graphs("refused", scene, report, steps=12)
        assert report.failures[0].startswith("refused: 0 of 12 forward passes were replays")


def test_where_graphs_fail_the_rest_is_run_without_them() -> None:
    parts = {part.name: without_graphs(part) for part in [*checking_parts(), *measuring_parts([])]}
    assert all(part.environment[SWITCH] == "0" for part in parts.values())
    assert parts["kernel_tests"].command[-1] == "cuda and not graph"
    assert parts["memcheck"].environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_stages_and_steps_are_measured(cuda: Device) -> None:
    assert cuda.info().name
    size, report = Size(600, 64, 48), Report("Speed")
    made = MadeScene(surface_scene(600, 64, 48, 12.0), 12.0)
    measure_stages(size, made, Peaks(1e12, 1e13), report, repetitions=2)
    assert [row["stage"] for row in report.rows] == ["project", "sort", "bin", "forward", "loss", "backward", "gradient", "sum"]
    assert all(float(str(row["ms"])) > 0 for row in report.rows if row["stage"] not in ("sort", "bin"))
    measure_steps(size, made, report, seconds=0.1)
    assert float(str(report.rows[-1]["steps/s, SH rest every 4th"])) > 0


def test_a_scene_is_made_once_and_read_back(tmp_path: Path) -> None:
    size = Size(500, 64, 48)
    make(size, tmp_path)
    written = size.file(tmp_path).stat().st_mtime_ns
    made = read(size, tmp_path)
    assert size.file(tmp_path).stat().st_mtime_ns == written
    assert made.scene.rows.shape == (500, 64)
    assert made.scene.camera.width == 64
    assert 5 < made.blended_per_pixel < 60


def test_the_least_work_grows_with_what_is_seen() -> None:
    few, many = (work_of("backward", 100, ForwardStats(50, pairs), 1000, 10.0) for pairs in (100, 200))
    assert many.size_bytes - few.size_bytes == 100 * 88
    assert few.flop == many.flop > 0


def test_memory_that_suffices_is_told_as_a_failure_of_the_check(cuda: Device) -> None:
    report = Report("Memory")
    check_memory(cuda, plain_scene(200, 64, 48), plain_scene(100, 32, 32), report)
    assert len(report.failures) == 1
    assert "gave 'no error'" in report.failures[0]
    assert report.rows[1]["right"]
