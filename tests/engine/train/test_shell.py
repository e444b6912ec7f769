from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.scene import PinholeView
from engine.train.shell import fibonacci_sphere, project, shell_radius, shell_rows
from engine.train.views import PhotoCache, TrainingPhoto

FORWARD = np.hstack([np.eye(3), np.zeros((3, 1))])


def photo_of(folder: Path, colour: tuple[int, int, int]) -> TrainingPhoto:
    path = folder / "a.png"
    Image.new("RGB", (64, 48), colour).save(path)
    return TrainingPhoto("a.png", path, PinholeView(FORWARD, 40.0, 40.0, 32.0, 24.0, 64, 48))


def test_directions_are_unit_vectors_spread_evenly() -> None:
    directions = fibonacci_sphere(1000)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1.0)
    assert np.abs(directions.mean(axis=0)).max() < 2e-3


def test_the_shell_stands_only_where_a_photo_looks_and_has_its_colour(tmp_path: Path) -> None:
    photo = photo_of(tmp_path, (10, 120, 240))
    rows = shell_rows([photo], PhotoCache([photo]), np.zeros(3), 50.0, 2000, 0.3)
    assert 0 < len(rows) < 1000
    means = rows[:, :3].double().numpy()
    assert np.allclose(np.linalg.norm(means, axis=1), 50.0, rtol=1e-5)
    seen, _, _ = project(means, photo.view)
    assert seen.all()
    colour = rows[:, 11:14] * 0.28209479177387814 + 0.5
    assert torch.allclose(colour, torch.tensor([10.0, 120.0, 240.0]) / 255.0, atol=1e-5)


def test_before_a_black_backdrop_there_is_no_shell(tmp_path: Path) -> None:
    photo = photo_of(tmp_path, (3, 8, 2))
    assert len(shell_rows([photo], PhotoCache([photo]), np.zeros(3), 50.0, 2000, 0.3)) == 0


def test_nothing_behind_the_camera_is_seen() -> None:
    seen, rows, columns = project(
        np.array([[0.0, 0.0, 5.0], [0.0, 0.0, -5.0], [0.0, 0.0, 0.0]]), PinholeView(FORWARD, 40, 40, 32, 24, 64, 48)
    )
    assert seen.tolist() == [True, False, False]
    assert (rows.tolist(), columns.tolist()) == ([24], [32])


def test_the_radius_reaches_beyond_the_points() -> None:
    points = np.array([[0.0, 0.0, 100.0]] * 50)
    assert shell_radius(points, np.zeros(3), 1.0) == 150.0
    assert shell_radius(points, np.zeros(3), 100.0) == 1000.0
