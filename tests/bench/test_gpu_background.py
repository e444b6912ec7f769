"""What is made beside the tests of a card: started where it is needed, waited for, left out where it fails."""

import os
import sys
from pathlib import Path

import pytest

from bench.gpu_background import GSPLAT, SCENES, Background, background_parts
from bench.gpu_opponent import HOW_TO_CARRY, LEFT_OUT, NOT_CARRIED, WITHOUT, find_gsplat, why_without
from bench.gpu_parts import CUT_SHORT, Part


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSPLAT", "wheels")


def parts(of_gsplat: str) -> list[Part]:
    return [
        Part(SCENES, "Scenes", (sys.executable, "-c", ""), 30),
        Part(GSPLAT, "gsplat's CUDA code", (sys.executable, "-c", of_gsplat), 30),
    ]


def before(name: str) -> Part:
    return Part(name, name, ("true",), 30)


def test_only_what_is_needed_is_started(tmp_path: Path) -> None:
    for only, started in (({"walk"}, set()), ({"stages"}, {SCENES}), ({"gpu_train"}, {GSPLAT}), (set(), {SCENES, GSPLAT})):
        background = Background(parts(""), only, tmp_path)
        assert set(background.running) == started
        background.unfinished()


def test_measuring_waits_for_what_runs_and_checking_does_not(tmp_path: Path) -> None:
    background = Background(parts("import time; time.sleep(0.3)"), set(), tmp_path)
    assert background.settle(before("walk"), 500.0) == []
    assert set(background.running) == {SCENES, GSPLAT}
    assert background.settle(before("steps"), 500.0) == []
    assert background.running == {}
    assert os.environ["GSPLAT"] == "wheels"


def test_a_build_that_fails_is_told_and_leaves_gsplat_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    background = Background(parts("raise SystemExit('no glm')"), set(), tmp_path)
    (failed,) = background.settle(before("steps"), 500.0)
    assert (failed.part.name, failed.status) == (GSPLAT, 1)
    assert "no glm" in capsys.readouterr().out
    assert os.environ["GSPLAT"] == WITHOUT
    assert find_gsplat(os.environ["GSPLAT"]) is None
    assert why_without(WITHOUT) == LEFT_OUT != why_without("") == HOW_TO_CARRY


def test_a_build_that_is_late_is_left_out_only_where_it_is_needed(tmp_path: Path) -> None:
    background = Background(parts("import time; time.sleep(60)"), set(), tmp_path)
    assert background.settle(before("steps"), 0.0) == []
    assert os.environ["GSPLAT"] == "wheels"
    assert background.settle(before("gpu_gsplat"), 0.0) == []
    assert os.environ["GSPLAT"] == WITHOUT
    assert GSPLAT in {outcome.part.name for outcome in background.unfinished() if outcome.status == CUT_SHORT}


def test_nothing_to_build_is_no_failure(tmp_path: Path) -> None:
    background = Background(parts(f"raise SystemExit({NOT_CARRIED})"), {"gpu_train"}, tmp_path)
    assert background.settle(before("gpu_train"), 500.0) == []
    assert os.environ["GSPLAT"] == "wheels"


def test_the_parts_are_those_two() -> None:
    assert [part.name for part in background_parts(Path("scenes"))] == [SCENES, GSPLAT]
