"""Files on their way from storage into a job's workspace."""

from pathlib import Path

from api.settings import Settings
from api.storage import open_storage
from engine.workspace import Workspace
from worker.files import fetch


def test_masks_and_poses_arrive_where_the_engine_looks_for_them(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path / "data"))
    names = ("a.jpg", "masks/a.jpg.png", "transforms.json", "sparse/cameras.bin")
    for name in names:
        source = tmp_path / "source"
        source.write_text(name)
        storage.put(f"captures/x/photos/{name.replace('/', '-')}", source)
    wanted = [(name, f"captures/x/photos/{name.replace('/', '-')}", len(name)) for name in names]
    workspace = Workspace.at(tmp_path / "work")
    (workspace.photos / "masks").mkdir(parents=True)
    (workspace.photos / "masks" / "left-over.png").touch()
    fetch(storage, workspace, wanted)
    found = {path.relative_to(workspace.photos).as_posix(): path.read_text() for path in workspace.photos.rglob("*") if path.is_file()}
    assert found == {name: name for name in names}
    assert workspace.companion("masks") == workspace.photos / "masks"
    assert len(workspace.given_files()) == 4
