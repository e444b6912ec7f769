"""COLMAP's text model, against pycolmap's writer, and damaged."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from engine.errors import InputError
from engine.formats.colmap import read_reconstruction
from engine.formats.colmap_text import has_model, read_model


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One model, written by pycolmap as text and as binary."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 2, 2, 30
    model = pycolmap.synthesize_dataset(options)
    text, binary = tmp_path / "text", tmp_path / "binary"
    for folder in (text, binary):
        folder.mkdir()
    model.write_text(text)
    model.write_binary(binary)
    return text, binary


def test_text_and_binary_of_one_model_read_alike(folders: tuple[Path, Path]) -> None:
    text, binary = map(read_model, folders)
    assert text.cameras == binary.cameras
    assert [(image.name, image.image_id, image.camera_id) for image in text.images] == [
        (image.name, image.image_id, image.camera_id) for image in binary.images
    ]
    for first, second in zip(text.images, binary.images, strict=True):
        assert first.cam_from_world == pytest.approx(second.cam_from_world, abs=1e-9)
    order = [np.lexsort(model.points.xyz.T.round(6)) for model in (text, binary)]
    assert text.points.xyz[order[0]] == pytest.approx(binary.points.xyz[order[1]], abs=1e-9)
    assert (text.points.rgb[order[0]] == binary.points.rgb[order[1]]).all()
    assert (text.points.tracks[order[0]] == binary.points.tracks[order[1]]).all()
    assert len(read_reconstruction(folders[1]).images) == 4


def test_a_folder_is_a_model_only_with_all_three_files(folders: tuple[Path, Path]) -> None:
    text, _ = folders
    assert has_model(text)
    (text / "points3D.txt").unlink()
    assert not has_model(text)
    with pytest.raises(InputError, match=r"points3D\.txt"):
        read_model(text)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("cameras.txt", "1 PINHOLE 10 10 nan 1 1 1", "finite"),
        ("cameras.txt", "1 PINHOLE 10 10 1 1 1", "parameters"),
        ("cameras.txt", "1 MAGIC 10 10 1 1 1", "known model"),
        ("cameras.txt", "1 PINHOLE 0 10 1 1 1 1", "px"),
        ("cameras.txt", "1 PINHOLE -5 10 1 1 1 1", "whole number"),
        ("images.txt", "1 1 0 0 0 0 0 inf 1 a.jpg\n", "finite"),
        ("images.txt", "1 0 0 0 0 0 0 0 1 a.jpg\n", "quaternion"),
        ("images.txt", "1 1 0 0 0 0 0 0 999 a.jpg\n", "cameras.txt"),
        ("images.txt", "1 1 0 0 0 a.jpg\n", "needs"),
        ("points3D.txt", "1 0 0 1e999 1 1 1 0", "finite"),
        ("points3D.txt", "1 0 0 0 999 1 1 0", "colour"),
        ("points3D.txt", "1 x 0 0 1 1 1 0", "cannot be read"),
    ],
)
def test_damage_is_named_with_file_and_line(name: str, line: str, words: str, folders: tuple[Path, Path]) -> None:
    (folders[0] / name).write_text(f"# comment\n{line}\n")
    with pytest.raises(InputError, match=words) as caught:
        read_model(folders[0])
    assert caught.value.code == "input.colmap_invalid"
    assert f"{name}, line 2" in caught.value.detail
