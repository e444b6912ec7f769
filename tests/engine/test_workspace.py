import multiprocessing
import time
from pathlib import Path

import pytest

from engine.workspace import Stamp, Workspace, hash_json, locked, read_stamp, replacing, replacing_folder, write_json


def write_half(target: Path) -> None:
    with replacing(target) as aside:
        aside.write_text("half")
        raise RuntimeError("half way")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError, match="half way"):
        write_half(target)
    assert target.read_text().strip().startswith('{\n "old"')
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_whole_and_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".assets.77.part").mkdir()
    (tmp_path / ".assets.77.part" / "junk").write_text("half")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "old").write_text("old")
    with replacing_folder(tmp_path / "assets") as folder:
        (folder / "new").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]
    assert [path.name for path in (tmp_path / "assets").iterdir()] == ["new"]


def test_a_damaged_stamp_counts_as_none(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    workspace.stamp("train").write_text('{"key": "x"')
    assert read_stamp(workspace, "train") is None
    workspace.stamp("train").write_text('{"key": "x"}')
    assert read_stamp(workspace, "train") is None


def test_a_stamp_is_read_back(tmp_path: Path) -> None:
    from dataclasses import asdict

    workspace = Workspace.at(tmp_path)
    stamp = Stamp("key", {"a": 1}, {"b": 2.5}, 3.25, 4)
    write_json(workspace.stamp("poses"), asdict(stamp))
    assert read_stamp(workspace, "poses") == stamp


def test_keys_do_not_depend_on_the_order_of_names() -> None:
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})


def hold(root: Path, seconds: float) -> None:
    with locked(Workspace.at(root)):
        (root / "held").touch()
        time.sleep(seconds)
        (root / "released").touch()


def test_two_processes_never_hold_one_workspace(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, 0.5))
    other.start()
    while not (tmp_path / "held").exists():
        assert other.is_alive()
        time.sleep(0.01)
    with locked(Workspace.at(tmp_path)):
        assert (tmp_path / "released").exists()
    other.join()
