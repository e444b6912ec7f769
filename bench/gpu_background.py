"""What ``make gpu-check`` makes beside its tests: the scenes, on the CPU, and gsplat's CUDA code by half the cores.

Only what the parts that are asked for need is started, and measuring waits for it, so that it has the machine for itself.
"""

import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from bench.gpu_opponent import NOT_CARRIED, WITHOUT
from bench.gpu_parts import CUT_SHORT, Outcome, Part, last_lines, start, stop

SCENES, GSPLAT = "scenes", "gsplat_build"
NEEDS = {"steps": {SCENES}, "stages": {SCENES}, "gpu_gsplat": {SCENES, GSPLAT}, "gpu_train": {GSPLAT}}
WAIT_S = {SCENES: 60.0, GSPLAT: 120.0}
RESERVE_S = {SCENES: 150.0, GSPLAT: 100.0}  # of the whole run's time, which no waiting may take


def background_parts(scenes: Path) -> list[Part]:
    """Return how the scenes are made and gsplat's CUDA code is built."""
    jobs = {"MAX_JOBS": str(max(1, (os.cpu_count() or 2) // 2))}
    return [
        Part(SCENES, "Scenes", (sys.executable, "-m", "bench.gpu_scenes", str(scenes)), 400),
        Part(GSPLAT, "gsplat's CUDA code", (sys.executable, "-m", "bench.gpu_opponent"), 400, environment=jobs),
    ]


class Background:
    """The processes beside the tests. gsplat is left out where its code is not built in time, or cannot be."""

    def __init__(self, parts: list[Part], only: Collection[str], logs: Path) -> None:
        asked = set.union(set(), *(needs for name, needs in NEEDS.items() if not only or name in only))
        self.parts = {part.name: part for part in parts if part.name in asked}
        self.logs, self.began = logs, time.monotonic()
        self.running = {name: start(part, self.log(name)) for name, part in self.parts.items()}

    def log(self, name: str) -> Path:
        """Return the file with what was said."""
        return self.logs / f"{name}.log"

    def settle(self, before: Part, left_s: float) -> list[Outcome]:
        """Wait a while for all that runs, before a part that measures. Return what ended in a failure since; its end is printed."""
        failed = []
        for name in list(self.running) if before.name in NEEDS else []:
            if not self._is_done(name, min(WAIT_S[name], left_s - RESERVE_S[name])):
                print(f"{self.parts[name].title}: not done; the parts to come share the machine with it", flush=True)
                self._leave_out(name, before)
                continue
            status = self.running.pop(name).returncode
            if status not in (0, NOT_CARRIED):
                print(f"{self.parts[name].title}: FAILED ({status})\n{last_lines(self.log(name), 30)}\n", flush=True)
                failed.append(Outcome(self.parts[name], status, time.monotonic() - self.began, self.log(name)))
                if name == GSPLAT:
                    os.environ["GSPLAT"] = WITHOUT  # or each part that wants it would try to build it again
        return failed

    def _is_done(self, name: str, limit_s: float) -> bool:
        try:
            self.running[name].wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _leave_out(self, name: str, before: Part) -> None:
        if name == GSPLAT and GSPLAT in NEEDS[before.name]:
            os.environ["GSPLAT"] = WITHOUT  # two builds in one folder would spoil each other

    def unfinished(self) -> list[Outcome]:
        """End what still runs; return it as cut short."""
        for process in self.running.values():
            stop(process)
        ended = [Outcome(self.parts[name], CUT_SHORT, time.monotonic() - self.began, self.log(name)) for name in self.running]
        self.running.clear()
        return ended
