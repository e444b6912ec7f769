"""What a stage leaves for the next attempt: whole pieces of the same work, and nothing else."""

import json
import tempfile
from pathlib import Path

import pytest

from engine import unfinished as left
from engine.errors import Cancelled, CapacityError, CaptureError, InternalError
from engine.events import Checkpointed
from engine.unfinished import Headway, Pieces, clear, place, unfinished
from engine.workspace import Workspace

FIGURES = {"db": 30.125, "names": ["a", "b"]}


def pieces_in(folder: Path, heard: list | None = None) -> Pieces:
    return Pieces(folder, Headway("train", [].append if heard is None else heard.append))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with unfinished(tmp_path, "train", {"steps": 5}) as found:
        return found


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "picture.png"
    path.write_bytes(b"pixels" * 100)
    pieces_in(folder).put("view", FIGURES, [path], {"photo": "a.jpg"})
    return path


def attempt(root: Path, error: Exception) -> None:
    with unfinished(root, "train", {"steps": 5}) as folder:
        (folder / "something").touch()
        raise error


def test_a_piece_comes_back_as_it_was_kept(folder: Path, file: Path) -> None:
    assert file.exists()
    assert pieces_in(folder).get("view", {"photo": "a.jpg"}) == FIGURES
    assert pieces_in(folder).get("view", {"photo": "b.jpg"}) is None
    assert pieces_in(folder).get("other") is None


def test_a_piece_whose_file_is_cut_changed_or_gone_is_none(folder: Path, file: Path) -> None:
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole + b"!", bytes(len(whole)), b""):
        file.write_bytes(damaged)
        assert pieces_in(folder).get("view", {"photo": "a.jpg"}) is None
    file.unlink()
    assert pieces_in(folder).get("view", {"photo": "a.jpg"}) is None


def test_a_note_cut_anywhere_is_no_piece(folder: Path, file: Path) -> None:
    assert file.exists()
    note = folder / "view.json"
    whole = note.read_bytes()
    for size in range(len(whole.rstrip())):
        note.write_bytes(whole[:size])
        assert pieces_in(folder).get("view", {"photo": "a.jpg"}) is None
    for odd in (b"null", b"[]", b"{}", b'"x"', bytes(100), json.dumps({"value": 1, "files": [], "made_from": 3}).encode()):
        note.write_bytes(odd)
        assert pieces_in(folder).get("view", {"photo": "a.jpg"}) is None


def test_only_the_same_work_finds_what_was_left(tmp_path: Path, folder: Path) -> None:
    with unfinished(tmp_path, "train", {"steps": 5}) as again:
        assert again == folder
    with unfinished(tmp_path, "compress", {"steps": 5}) as other_stage:
        assert other_stage != folder
    assert folder.exists(), "another stage's is none of its business"
    with unfinished(tmp_path, "train", {"steps": 6}) as other_steps:
        assert other_steps != folder
    assert not folder.exists()


@pytest.mark.parametrize(("family", "stays"), [(Cancelled, True), (CapacityError, True), (CaptureError, False), (InternalError, False)])
def test_what_an_attempt_broke_on_is_not_gone_on_with(tmp_path: Path, family: type, stays: bool) -> None:
    with pytest.raises(family):
        attempt(tmp_path, family("made.up", "Made up", "for this test"))
    assert bool(list(tmp_path.glob(".unfinished-*"))) == stays


def test_a_stamped_stage_leaves_nothing_and_others_what_they_had(tmp_path: Path, folder: Path) -> None:
    workspace = Workspace.at(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/checkpoint-0000005.pt").touch()
    with unfinished(tmp_path, "compress", {}) as other:
        pass
    clear(workspace, "compress")
    assert not other.exists()
    assert folder.exists()
    assert (tmp_path / "train/checkpoint-0000005.pt").exists()
    clear(workspace, "train")
    assert list(tmp_path.iterdir()) == [tmp_path / "train"]
    assert not list((tmp_path / "train").iterdir())


def test_headway_is_told_by_the_clock_and_counts_what_was_there(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file.exists()
    heard: list = []
    pieces = pieces_in(folder, heard)
    assert pieces.get("view", {"photo": "a.jpg"}) == FIGURES
    pieces.put("second", {})
    assert not heard
    monkeypatch.setattr(left, "TELL_EVERY_S", 0.0)
    pieces.put("third", {})
    assert heard == [Checkpointed("train", 3)]


def test_a_placed_file_and_its_first_name_do_not_hang_together(tmp_path: Path, folder: Path, file: Path) -> None:
    whole = file.read_bytes()
    (tmp_path / "renders").mkdir()
    place([file], tmp_path / "renders")
    assert (tmp_path / "renders/picture.png").read_bytes() == whole
    file.unlink()
    assert (tmp_path / "renders/picture.png").read_bytes() == whole
    assert folder.exists()


def test_where_a_file_can_have_one_name_only_it_is_copied(file: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == file.stat().st_dev:
        pytest.skip("there is no second file system to link to")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        place([file], Path(folder))
        assert (Path(folder) / file.name).read_bytes() == file.read_bytes()
