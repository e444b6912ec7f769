"""The real ingest stage, killed without warning: the next attempt goes on photo by photo, to the same bytes."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from engine.options import RunOptions
from engine.photos import ingest
from engine.photos.prepared import from_json, to_json
from engine.workspace import Workspace
from tests.engine.killing import files_of, kill_after, kill_at, left_behind, run_whole
from tests.engine.photos.draw import jpeg_bytes, texture, write_photos

N_PHOTOS = 12
MADE = ("images", "image_masks", "image_alpha")
THREADS = ("--set", "threads=2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good photos, one with a mask, a cut-out, a copy, a blank one and one that is cut off."""
    folder = tmp_path_factory.mktemp("killed") / "photos"
    write_photos(folder, 7)
    (folder / "masks").mkdir()
    Image.new("L", (400, 300), 255).save(folder / "masks/IMG_1.jpg.png")
    cut_out = texture(20)
    cut_out.putalpha(Image.radial_gradient("L").resize(cut_out.size))
    cut_out.save(folder / "cut_out.png")
    (folder / "copy.jpg").write_bytes(jpeg_bytes(texture(3), quality=90))
    (folder / "blank.jpg").write_bytes(jpeg_bytes(Image.new("RGB", (400, 300), (200, 200, 200))))
    (folder / "half.jpg").write_bytes(jpeg_bytes(texture(9))[:3000])
    (folder / "text.jpg").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A stage that nobody disturbed."""
    workspace = Workspace.at(tmp_path_factory.mktemp("alone"), photos)
    run_whole(workspace, "ingest", *THREADS)
    assert left_behind(workspace) == []
    return workspace


def made(workspace: Workspace) -> dict[str, bytes]:
    files = {f"{folder}/{name}": data for folder in MADE for name, data in files_of(workspace.root / folder).items()}
    return files | {"images.json": workspace.images_index.read_bytes()}


def n_read(said: list[str]) -> list[int]:
    """Return the counts of photos read that were told."""
    return [int(found[1]) for words in said if (found := re.match(rf"(\d+) of {N_PHOTOS} photos read", words))]


def test_a_stage_killed_again_and_again_gives_the_bytes_of_one_left_alone(alone: Workspace, photos: Path, tmp_path: Path) -> None:
    chance, workspace, done = random.Random(20261121), Workspace.at(tmp_path, photos), 0
    for _ in range(3):
        target = done + chance.randint(1, 3)
        counts = n_read(kill_at(workspace, "ingest", f"{target} of {N_PHOTOS} photos read", *THREADS))
        assert counts == list(range(done or 1, target + 1)), "what was kept was done again"
        done = target
    said, last = run_whole(workspace, "ingest", *THREADS)
    assert n_read(said) == list(range(done, N_PHOTOS + 1))
    assert made(workspace) == made(alone)
    assert last["stats"] == json.loads(alone.stamp("ingest").read_text())["stats"]
    assert left_behind(workspace) == []


def test_a_stage_killed_at_any_moment_gives_the_bytes_of_one_left_alone(alone: Workspace, photos: Path, tmp_path: Path) -> None:
    chance, workspace = random.Random(), Workspace.at(tmp_path, photos)
    delays = [chance.uniform(0.0, 0.3) for _ in range(4)]
    for delay in delays:
        kill_after(workspace, "ingest", delay, *THREADS)
    run_whole(workspace, "ingest", *THREADS)
    assert made(workspace) == made(alone), f"killed after {delays} s"
    assert left_behind(workspace) == []


def test_a_stage_killed_after_the_last_photo_reads_none_again(alone: Workspace, photos: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, photos)
    kill_at(workspace, "ingest", "8 of 12 photos can be used", *THREADS)
    shutil.rmtree(workspace.masks)
    said, _ = run_whole(workspace, "ingest", *THREADS)
    assert n_read(said) == [N_PHOTOS]
    assert made(workspace) == made(alone)


def changed_mask(folder: Path) -> None:
    Image.new("L", (400, 300), 0).save(folder / "masks/IMG_1.jpg.png")


def removed_mask(folder: Path) -> None:
    shutil.rmtree(folder / "masks")


def changed_photo(folder: Path) -> None:
    (folder / "IMG_1.jpg").write_bytes(jpeg_bytes(texture(77)))


@pytest.mark.parametrize("change", [changed_mask, removed_mask, changed_photo])
def test_what_has_changed_since_is_read_anew_and_nothing_old_is_shown(change, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
    kill_at(workspace, "ingest", f"{N_PHOTOS} of {N_PHOTOS} photos read", *THREADS)
    change(tmp_path / "photos")
    said, _ = run_whole(workspace, "ingest", *THREADS)
    assert n_read(said) == [N_PHOTOS - 1, N_PHOTOS]
    fresh = Workspace.at(tmp_path / "fresh", tmp_path / "photos")
    ingest.run(fresh, RunOptions(threads=2), lambda _event: None)
    assert made(workspace) == made(fresh)


def test_a_torn_file_is_written_anew(alone: Workspace, photos: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, photos)
    kill_at(workspace, "ingest", f"{N_PHOTOS} of {N_PHOTOS} photos read", *THREADS)
    (scratch,) = workspace.root.glob(".unfinished-ingest-*")
    for torn in (scratch / "images/IMG_0.jpg", scratch / "masks/IMG_1.jpg.png", scratch / "IMG_2.json"):
        torn.write_bytes(torn.read_bytes()[:100])
    said, _ = run_whole(workspace, "ingest", *THREADS)
    assert n_read(said) == list(range(N_PHOTOS - 3, N_PHOTOS + 1))
    assert made(workspace) == made(alone)


def test_a_prepared_photo_is_kept_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, photos)
    ingest.run(workspace, RunOptions(threads=1), lambda _event: None)
    notes = sorted(workspace.root.glob(".unfinished-ingest-*/*.json"))
    assert len(notes) == N_PHOTOS
    for note in notes:
        said = json.loads(note.read_text())["value"]
        assert json.loads(json.dumps(to_json(from_json(said)))) == said
