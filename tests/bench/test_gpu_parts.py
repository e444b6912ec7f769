"""A check that runs out of time must still leave what it had."""

import sys
import time
from pathlib import Path

from bench.gpu_parts import CUT_SHORT, NOT_STARTED, Clock, Part, last_lines, run_part


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_part_says_how_it_ended_and_its_words_are_kept(tmp_path: Path) -> None:
    outcome = run_part(
        Part("three", "", python("import os; print(os.environ['WHAT']); raise SystemExit(3)"), 20, 1, {"WHAT": "seen"}), Clock(60), tmp_path
    )
    assert (outcome.status, outcome.words) == (3, "FAILED (3)")
    assert last_lines(outcome.log, 5) == "seen"


def test_a_part_is_cut_at_its_own_limit_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import time; time.sleep(2); open('late', 'w').close()"
    start_child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    code = f"import os, time; os.chdir({str(tmp_path)!r}); {start_child}; time.sleep(60)"
    outcome = run_part(Part("slow", "", python(code), 0.5, 0.1), Clock(60), tmp_path)
    assert outcome.status == CUT_SHORT
    assert outcome.seconds < 6
    time.sleep(2.0)
    assert not (tmp_path / "late").exists(), "the child went on"


def test_a_part_is_cut_when_the_whole_time_is_up(tmp_path: Path) -> None:
    outcome = run_part(Part("slow", "", python("import time; time.sleep(60)"), 50, 0.1), Clock(3.5), tmp_path)
    assert outcome.status == CUT_SHORT


def test_a_part_without_enough_time_left_is_not_started(tmp_path: Path) -> None:
    outcome = run_part(Part("late", "", python("raise SystemExit(1)"), 50, 20), Clock(15), tmp_path)
    assert (outcome.status, outcome.words) == (NOT_STARTED, "no time left")
    assert not outcome.log.exists()


def test_a_program_that_is_not_there_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    outcome = run_part(Part("tool", "", ("no-such-sanitizer",), 50, 1), Clock(60), tmp_path)
    assert outcome.status != 0
    assert outcome.words == "no-such-sanitizer is not installed"
