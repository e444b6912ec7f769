"""Tasks in children: one that crashes, hangs, or takes all memory costs itself, and the others come back in order."""

import faulthandler
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CapacityError
from engine.options import IngestOptions
from engine.photos.decode import decode, formats, open_photo
from engine.photos.sandbox import Broken, Limits, run_all
from tests.faults.bad_inputs import encode

LIMITS = Limits(megapixels_at_a_time=10.0, memory_bytes=1 << 29, cpu_s=1.0, cpu_s_per_megapixel=0.0)


def act(task, ask):
    """What a photo may do to its decoder."""
    if task == "hang":
        while True:
            pass
    if task == "eat":
        return np.ones(1 << 30).sum()
    if task == "full":
        raise OSError(28, "No space left on device")
    if task == "bug":
        raise RuntimeError("nobody thought of this")
    if isinstance(task, signal.Signals):
        faulthandler.disable()  # what pytest would print of it
        ask(1.0)
        os.kill(os.getpid(), task)
    return task * 2


def run(tasks, n_children=2, work=act, known=None):
    seen = {}
    return run_all(tasks, work, LIMITS, n_children, seen.__setitem__, known), seen


def test_results_come_in_the_order_of_the_tasks():
    found, seen = run(list(range(20)))
    assert found == [2 * n for n in range(20)]
    assert seen == dict(enumerate(found))
    assert run([]) == ([], {})


def test_what_is_known_is_not_worked_on_again():
    found, seen = run(["hang", 1, "hang", 2], known={0: "known", 2: "too"})
    assert found == ["known", 2, "too", 4]
    assert seen == {1: 2, 3: 4}
    assert run(["hang"], known={0: 5}) == ([5], {})


@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_costs_only_its_task(crash):
    found, seen = run([1, crash, 3, 4, crash, 6])
    assert [found[n] for n in (0, 2, 3, 5)] == [2, 6, 8, 12]
    for n in (1, 4):
        assert found[n] == Broken(False, f"its decoder crashed ({crash.name})")
    assert len(seen) == 6


def test_work_without_end_is_ended_by_its_processor_time():
    began = time.monotonic()
    found, _ = run([1, "hang", 3])
    assert found[0] == 2
    assert found[2] == 6
    assert isinstance(found[1], Broken)
    assert found[1].too_costly
    assert time.monotonic() - began < 60


def decoded_size(path, ask):
    """Decode a photo as the first stage does."""
    with open_photo(path, formats(), IngestOptions()) as photo:
        ask(photo.width * photo.height / 1e6)
        return decode(photo, 1600).pixels.size


def test_a_real_photo_that_decodes_without_end_is_ended(tmp_path):
    for name, n_scans in (("good.jpg", 1), ("endless.jpg", 5000)):
        (tmp_path / name).write_bytes(encode.endless_jpeg(4000, 3000, n_scans))
    assert (tmp_path / "endless.jpg").stat().st_size < 200_000
    found, _ = run([tmp_path / "good.jpg", tmp_path / "endless.jpg", tmp_path / "good.jpg"], work=decoded_size)
    assert found == [(1600, 1200), Broken(True, "it takes more than 1 s to decode"), (1600, 1200)]


def test_more_memory_than_allowed_is_said():
    found, _ = run([1, "eat", 3])
    assert found == [2, Broken(True, "it takes more than 512 MiB to decode"), 6]


def test_an_error_that_nobody_thought_of_costs_only_its_task():
    found, _ = run([1, "bug", 3])
    assert found == [2, Broken(False, "its decoder crashed (exit code 1)"), 6]


def test_a_full_disk_is_no_fault_of_the_task():
    with pytest.raises(OSError, match="No space left") as caught:
        run([1, "full", 3])
    assert caught.value.errno == 28


def test_a_task_that_is_killed_from_outside_twice_stops_all():
    with pytest.raises(CapacityError) as caught:
        run([1, signal.SIGKILL, 3])
    assert caught.value.code == "capacity.killed"


def once(task, ask):
    """Crash at the first try only."""
    ask(0.1)
    mark = Path(task)
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_task_that_was_killed_by_chance_is_tried_again(tmp_path):
    found, _ = run([str(tmp_path / "a"), str(tmp_path / "b")], work=once)
    assert found == ["done", "done"]


def watched(task, ask):
    """Note that this task holds its megapixels for a while."""
    folder, number, megapixels = task
    ask(megapixels)
    (folder / f"{number}").write_text("")
    together = len(list(folder.iterdir()))
    time.sleep(0.05)
    (folder / f"{number}").unlink()
    return together


@pytest.mark.parametrize(("megapixels", "most"), [(4.0, 2), (10.0, 1), (500.0, 1)])
def test_no_more_megapixels_are_held_at_a_time_than_allowed(tmp_path, megapixels, most):
    found, _ = run([(tmp_path, n, megapixels) for n in range(8)], n_children=4, work=watched)
    assert max(found) <= most


def test_children_end_with_whoever_stops_the_work():
    class StopError(Exception):
        pass

    def stop(_index, _result):
        raise StopError

    began = time.monotonic()
    with pytest.raises(StopError):
        run_all([1, "hang", "hang"], act, LIMITS, 3, stop)
    assert time.monotonic() - began < 20
