"""What a stage's key depends on."""

from pathlib import Path

from engine.options import PosesOptions, RunOptions
from engine.stages import stage_key
from engine.workspace import Workspace


def test_masks_and_poses_beside_the_photos_are_part_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("photo")
    workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
    keys = [stage_key(workspace, "ingest", RunOptions())]
    (tmp_path / "masks").mkdir()
    for name in ("masks/a.jpg.png", "transforms.json", "other.json"):
        (tmp_path / name).write_text("x")
        keys.append(stage_key(workspace, "ingest", RunOptions()))
    keys.append(stage_key(workspace, "ingest", RunOptions(poses=PosesOptions(source="estimate"))))
    assert len({*keys[:3], keys[4]}) == 4
    assert keys[3] == keys[2]


def test_the_workspaces_own_artefacts_are_never_taken_for_given_files(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    (workspace.photos / "masks").mkdir(parents=True)
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "cameras.bin").touch()
    assert workspace.companion("sparse") is None
    assert workspace.companion("masks") == workspace.photos / "masks"
