import pytest

from cli.photos import collect, companions
from engine.errors import InputError


def test_collect_takes_photos_of_folders_and_files_as_they_are_named(tmp_path):
    for name in ("b.JPG", "a.png", "walk.MOV", "notes.txt", ".hidden.jpg", "sub/c.webp", ".thumbs/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = collect([tmp_path, tmp_path / "notes.txt", tmp_path / "a.png"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.png", "b.JPG", "sub/c.webp", "walk.MOV", "notes.txt"]


def test_collect_names_the_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        collect([tmp_path / "nowhere"])


def test_collect_refuses_a_folder_without_photos_and_says_what_a_photo_is(tmp_path):
    with pytest.raises(InputError) as caught:
        collect([tmp_path])
    assert ".jpg" in caught.value.hint
    assert ".mp4" in caught.value.hint


def test_masks_and_poses_are_no_photos_and_go_along_under_their_names(tmp_path):
    for name in ("images/a.png", "masks/a.png.png", "images/masks/.hidden.png", "transforms.json", "sparse/0/cameras.bin", "other.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = {"masks/a.png.png", "transforms.json", "sparse/0/cameras.bin"}
    assert [path.name for path in collect([tmp_path])] == ["a.png"]
    assert set(companions([tmp_path]).values()) == expected
    (tmp_path / "images/masks/.hidden.png").unlink()
    (tmp_path / "images/masks").rmdir()
    # The same from beside.
    assert set(companions([tmp_path / "images"]).values()) == expected
    assert companions([tmp_path / "images/a.png"]) == {}
