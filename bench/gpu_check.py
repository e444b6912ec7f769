"""Everything that needs an NVIDIA card, in one command of at most nine minutes: ``make gpu-check`` (docs/gpu.md).

Builds the kernels for the card, tests them on it, watches them with compute-sanitizer, compares card and CPU, measures stages and steps,
gsplat beside them, running out of memory, training to PSNR. Each part has a limit of its own, and later parts are cut before earlier ones.
What is finished is printed at once and written to one JSON.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.cpp_extension import CUDA_HOME

from bench.gpu_background import Background, background_parts
from bench.gpu_card import BUILD, architecture, card_facts
from bench.gpu_graphs import SWITCH
from bench.gpu_opponent import toolkit
from bench.gpu_parts import CUT_SHORT, NOT_STARTED, Clock, Outcome, Part, last_lines, run_part
from bench.gpu_report import read_report, write_in_order

TOTAL_S = 525.0  # of nine minutes; the rest is for starting and ending
LOGS, SCENES, REPORTS = BUILD / "logs", BUILD / "scenes", BUILD / "reports"
LIBRARIES = BUILD / "kernels"
TABLES = Path("docs") / "benchmarks"
TRAINING_TESTS = ("tests/engine/train/test_on_card.py", "tests/engine/test_device.py")
SANITIZER = ("compute-sanitizer", "--error-exitcode", "9", "--print-limit", "20")
WITH_GRAPHS, WITHOUT_GRAPHS = "cuda", "cuda and not graph"  # tests, by name
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of one of our modules, which writes its report as JSON."""
    return (sys.executable, "-m", f"bench.{name}", "--json", str(REPORTS / f"{name}.json"), *arguments)


def build_parts(arch: str) -> list[Part]:
    """Return how the libraries are built."""
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DSPLAT_CUDA=ON", f"-DSPLAT_CUDA_ARCHITECTURES={arch}-real")
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    configure = ("cmake", "-S", "kernels", "-B", str(LIBRARIES), *generator, *options)
    compile_all = ("cmake", "--build", str(LIBRARIES), "--parallel", str(os.cpu_count() or 4))
    return [
        Part("configure", "CMake", configure, 40, is_needed=True),
        Part("build", f"Kernels for sm_{arch}", compile_all, 180, is_needed=True),
    ]


def checking_parts() -> list[Part]:
    """Return the tests and what watches them."""
    pytest = (sys.executable, "-m", "pytest", "-q", "-W", "default", "--maxfail=15", "-p", "no:cacheprovider", "--no-header", "--tb=short")
    walk = (sys.executable, "-m", "bench.gpu_walk")
    parts = [
        Part("card", "The card", module("gpu_card"), 45),
        Part("gpu_graphs", "CUDA graphs", module("gpu_graphs"), 40),
        Part("kernel_tests", "tests/kernels -k cuda", (*pytest, "tests/kernels", "-k", WITH_GRAPHS), 90, is_needed=True),
        Part("training_tests", "Training and its memory on the card", (*pytest, *TRAINING_TESTS), 75, is_needed=True),
        Part("walk", "Every call at odd sizes", walk, 30),
    ]
    for tool, how, limit in (("memcheck", "whole", 50.0), ("racecheck", "whole", 50.0), ("initcheck", "quick", 20.0)):
        parts.append(Part(tool, f"compute-sanitizer {tool}", (*SANITIZER, "--tool", tool, *walk, how), limit, environment=UNCACHED))
    return parts


def measuring_parts(folders: list[str]) -> list[Part]:
    """Return the comparisons and benchmarks, what matters most first."""
    scenes = ("--scenes", str(SCENES))
    card = ("--card", str(REPORTS / "gpu_card.json"))
    speed = (sys.executable, "-m", "bench.gpu_speed")
    return [
        Part("gpu_equal", "CPU against card", module("gpu_equal"), 60, is_needed=True),
        Part("steps", "Whole steps", (*speed, "--json", str(REPORTS / "steps.json"), "--what", "steps", *scenes, *card), 60),
        Part("stages", "Stages", (*speed, "--json", str(REPORTS / "stages.json"), "--what", "stages", *scenes, *card), 45),
        Part("gpu_memory", "Out of memory", module("gpu_memory"), 30),
        Part("gpu_gsplat", "Beside gsplat", module("gpu_gsplat", *scenes), 90),
        Part("gpu_train", "Training to PSNR", module("gpu_train", *folders), 240, least_s=20),
    ]


class Run:
    """A run: its time, its outcomes, its page and its JSON."""

    def __init__(self, total_s: float, path: Path) -> None:
        self.clock, self.path, self.outcomes = Clock(total_s), path, list[Outcome]()
        self.started = time.monotonic()
        self.reports: dict[str, Any] = {}
        self.facts: dict[str, str] = {}

    def do(self, part: Part) -> Outcome:
        """Run a part, print what it found, write all that is known."""
        outcome = run_part(part, self.clock, LOGS)
        self.outcomes.append(outcome)
        print(f"[{time.monotonic() - self.started:4.0f} s] {part.title}: {outcome.words}, {outcome.seconds:.0f} s", flush=True)
        report = read_report(report_path(part), part.title)
        if report.rows or report.notes or report.failures:
            print(f"\n{report.markdown()}", flush=True)
            self.reports[part.name] = {
                "title": report.title,
                "rows": report.rows,
                "notes": report.notes,
                "failures": report.failures,
                **report.data,
            }
        if outcome.status not in (0, NOT_STARTED) and not report.failures:
            print(f"{last_lines(outcome.log, 30)}\n", flush=True)
        self.write()
        return outcome

    def write(self) -> None:
        """Write the JSON."""
        parts = [{"part": each.part.name, "outcome": each.words, "seconds": round(each.seconds, 1)} for each in self.outcomes]
        seconds = round(time.monotonic() - self.started, 1)
        write_in_order(self.path, {"machine": self.facts, "seconds": seconds, "parts": parts, "reports": self.reports})

    def summary(self) -> str:
        """Return what became of every part, and where the figures are."""
        lines = ["### All parts", "", "| part | outcome | s |", "| --- | --- | --- |"]
        lines += [f"| {each.part.title} | {each.words} | {each.seconds:.0f} |" for each in self.outcomes]
        return "\n".join([*lines, "", f"Figures: {self.path}. What each part said: {LOGS}."])

    def is_good(self) -> bool:
        """Say whether nothing failed, and nothing that is needed was left out; benchmarks may be cut short."""
        return all(each.status == 0 or (each.status in (CUT_SHORT, NOT_STARTED) and not each.part.is_needed) for each in self.outcomes)


def report_path(part: Part) -> Path:
    """Return where a part writes its report; a path that is never there for a part without one."""
    arguments = list(part.command)
    return Path(arguments[arguments.index("--json") + 1]) if "--json" in arguments else REPORTS / f"{part.name}.none"


def set_up_environment(arch: str) -> None:
    """Point everything that is started at what is built here, and at the tools beside this Python and in the CUDA toolkits."""
    homes = dict.fromkeys(home for home in (toolkit(), CUDA_HOME) if home)
    tools = [str(Path(sys.executable).parent), *(str(Path(home) / "bin") for home in homes)]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *tools])
    os.environ["TORCH_CUDA_ARCH_LIST"] = f"{arch[:-1]}.{arch[-1]}"  # the same for all: with other flags torch would compile gsplat anew
    if os.environ.get("GSPLAT"):
        os.environ["GSPLAT"] = str(Path(os.environ["GSPLAT"]).resolve())
    os.environ["SPLATWORKS_KERNELS"] = str(LIBRARIES.resolve())
    os.environ["CUDA_MODULE_LOADING"] = "LAZY"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))


def without_graphs(part: Part) -> Part:
    """Return a part as it is run where graphs failed: everything goes on launch by launch, so that the rest is known all the same."""
    command = tuple(WITHOUT_GRAPHS if word == WITH_GRAPHS else word for word in part.command)
    return replace(part, command=command, environment={**part.environment, SWITCH: "0"})


def carry_out(run: Run, arch: str, folders: list[str], only: set[str]) -> None:
    """Run all parts in order, or those asked for."""
    for part in build_parts(arch):
        if run.do(part).status:
            return
    background = Background(background_parts(SCENES), only, LOGS)
    try:
        has_graphs = True
        for part in [*checking_parts(), *measuring_parts(folders)]:
            if only and part.name not in only:
                continue
            run.outcomes += background.settle(part, run.clock.left_s())
            outcome = run.do(part if has_graphs else without_graphs(part))
            has_graphs = has_graphs and (part.name != "gpu_graphs" or outcome.status == 0)
    finally:
        run.outcomes += background.unfinished()


def main() -> int:
    """Run; return 1 when something failed, 2 when there is no card to run on."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help=f"all parts together ({TOTAL_S:.0f})")
    parser.add_argument("--only", default="", help="parts by name, with commas: kernel_tests,steps,stages,gpu_gsplat,…")
    parser.add_argument("--json", type=Path, help="where the figures go (docs/benchmarks/gpu_CARD_DATE.json)")
    given = parser.parse_args()
    folders = [each for each in os.environ.get("GPU_CHECK_SCENES", "").split(os.pathsep) if each]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CUT_SHORT))  # so that what was started is ended as well
    try:
        arch = architecture()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    set_up_environment(arch)
    facts = card_facts()
    card = torch.cuda.get_device_name(0).lower().replace("nvidia", "").strip().replace(" ", "-")
    run = Run(given.seconds, given.json or TABLES / f"gpu_{card}_{datetime.now(UTC):%Y-%m-%d}.json")
    run.facts = {**facts, "host": platform.machine(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    shutil.rmtree(REPORTS, ignore_errors=True)
    carry_out(run, arch, folders, {each for each in given.only.split(",") if each})
    print(run.summary())
    return 0 if run.is_good() else 1


if __name__ == "__main__":
    raise SystemExit(main())
