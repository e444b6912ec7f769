"""With which pairs of photos a model may begin, and what happens where all are narrow."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from engine.options import PosesOptions
from engine.sfm.context import Context, Deadline, Photo
from engine.sfm.mapping import Mapper
from engine.sfm.matching import read_view_graph
from engine.sfm.opening import WIDEST_DEG, opening_angle_deg
from engine.sfm.pairs import Pairs, all_pairs
from engine.unfinished import Headway, Pieces

N_PHOTOS, WIDTH, HEIGHT, FOCAL = 6, 640, 480, 768.0


class Row:
    """Photos side by side, ``step`` apart, of 400 points at depths 4 to 8: features, matches and verified pairs, as real ones."""

    def __init__(self, folder: Path, step: float) -> None:
        self.database = folder / "database.db"
        names = [f"{index}.jpg" for index in range(N_PHOTOS)]
        photos = [Photo(name, name, WIDTH, HEIGHT, FOCAL, 1, None) for name in names]
        self.context = Context(folder, folder, photos, 0, 1, Deadline.after(120))
        self.pairs: Pairs = all_pairs(N_PHOTOS)
        random = np.random.default_rng(0)
        points = np.stack([random.uniform(-1.2, 1.2, 400), random.uniform(-0.9, 0.9, 400), random.uniform(4, 8, 400)], axis=1)
        camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=[FOCAL, WIDTH / 2, HEIGHT / 2, 0.0])
        with pycolmap.Database.open(self.database) as opened:
            camera.camera_id = opened.write_camera(camera)
        ids = self._write_photos(names, points, step, random, camera.camera_id)
        self._match(ids, len(points))

    def _write_photos(self, names: list[str], points: np.ndarray, step: float, random: np.random.Generator, camera_id: int) -> list[int]:
        ids = []
        with pycolmap.Database.open(self.database) as opened:
            rig = pycolmap.Rig()
            rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
            rig_id = opened.write_rig(rig)
            for index, name in enumerate(names):
                image_id = opened.write_image(pycolmap.Image(name=name, camera_id=camera_id))
                frame = pycolmap.Frame(rig_id=rig_id)
                frame.add_data_id(pycolmap.data_t(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id), image_id))
                opened.write_frame(frame)
                seen = points - [step * (index - N_PHOTOS / 2), 0.02 * index, 0.01 * index]
                pixels = FOCAL * seen[:, :2] / seen[:, 2:] + [WIDTH / 2, HEIGHT / 2] + random.normal(0, 0.2, (len(points), 2))
                opened.write_keypoints(image_id, np.concatenate([pixels, np.ones_like(pixels)], axis=1).astype(np.float32))
                ids.append(image_id)
        return ids

    def _match(self, ids: list[int], n_points: int) -> None:
        same = np.repeat(np.arange(n_points, dtype=np.uint32)[:, None], 2, axis=1)
        with pycolmap.Database.open(self.database) as opened:
            for i, j in self.pairs:
                opened.write_matches(ids[i], ids[j], same)
        listed = self.context.folder / "pairs.txt"
        listed.write_text("".join(f"{i}.jpg {j}.jpg\n" for i, j in self.pairs))
        options = pycolmap.TwoViewGeometryOptions()
        options.ransac.random_seed = 0
        pycolmap.verify_matches(self.database, listed, options)

    def map(self) -> Mapper:
        pieces = Pieces(self.context.folder, Headway("poses", lambda _event: None))
        mapper = Mapper(self.context, PosesOptions(), lambda _share, _words: None, pieces)
        mapper.run(self.database, self.pairs, read_view_graph(self.database, len(self.pairs)))
        return mapper


def test_the_opening_angle_is_the_one_a_quarter_of_the_pairs_reach(tmp_path: Path) -> None:
    # Points are 5.7 away in the middle; a quarter of the 15 pairs are 3 steps apart and more.
    expected = np.degrees(2 * np.arctan(3 * 0.2 / 2 / 5.7))
    assert opening_angle_deg(Row(tmp_path, 0.2).database) == pytest.approx(expected, rel=0.2)


def test_the_opening_angle_is_never_wider_than_colmaps(tmp_path: Path) -> None:
    assert opening_angle_deg(Row(tmp_path, 1.0).database) == WIDEST_DEG


def test_without_matches_the_opening_angle_is_colmaps(tmp_path: Path) -> None:
    pycolmap.Database.open(tmp_path / "empty.db").close()
    assert opening_angle_deg(tmp_path / "empty.db") == WIDEST_DEG


def test_photos_from_nearly_one_direction_are_placed_without_a_hopeless_attempt(tmp_path: Path) -> None:
    mapper = Row(tmp_path, 0.07).map()
    skipped, narrow = mapper.attempts
    assert skipped.mapper == "incremental"
    assert skipped.registered == 0
    assert "degrees" in skipped.note
    assert narrow.mapper == mapper.mapper == "incremental narrow"
    assert narrow.registered == narrow.gain == len(mapper.best) == N_PHOTOS
    assert narrow.seconds > 0


def test_photos_taken_apart_are_placed_at_once(tmp_path: Path) -> None:
    mapper = Row(tmp_path, 0.5).map()
    assert [attempt.mapper for attempt in mapper.attempts] == ["incremental"]
    assert len(mapper.best) == N_PHOTOS
