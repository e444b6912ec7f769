"""Mapping with marks: the same numbers as COLMAP's own without one, the same bytes whoever stopped it and where."""

import contextlib
import resource
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from engine.sfm import incremental
from engine.sfm.context import Context, Deadline
from engine.sfm.incremental import Incremental, Task
from engine.sfm.mapper_options import incremental_options
from engine.sfm.marks import Marks
from engine.unfinished import Headway, Pieces

WIDTH, HEIGHT, FOCAL = 640, 480, 600.0
# Photos around one thing, and around another that they share nothing with.
GROUPS = (9, 5)
N_POINTS = 150
MODEL = ("cameras.bin", "images.bin", "points3D.bin", "frames.bin", "rigs.bin")


class Stopped(Exception):  # noqa: N818 - it is no error here
    """Mapping was stopped."""


def pixels(points: np.ndarray, angle: float, random: np.random.Generator) -> np.ndarray:
    """Return where a camera on a circle of radius 4 sees points, [P, 2]."""
    cos, sin = np.cos(angle), np.sin(angle)
    seen = points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]) + [0, 0, 4]
    return FOCAL * seen[:, :2] / seen[:, 2:] + [WIDTH / 2, HEIGHT / 2] + random.normal(0, 0.3, (len(points), 2))


def write_camera(opened: pycolmap.Database) -> tuple[int, int]:
    params = [FOCAL, WIDTH / 2, HEIGHT / 2, 0.0]
    camera_id = opened.write_camera(pycolmap.Camera(model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=params))
    rig = pycolmap.Rig()
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
    return camera_id, opened.write_rig(rig)


def write_group(opened: pycolmap.Database, camera: tuple[int, int], n_photos: int, random: np.random.Generator) -> list[tuple[str, str]]:
    """Write photos of one thing; return the pairs that share points."""
    points, ids = random.uniform(-1, 1, (N_POINTS, 3)), {}
    for index in range(n_photos):
        name = f"{n_photos}-{index}.jpg"
        image_id = opened.write_image(pycolmap.Image(name=name, camera_id=camera[0]))
        frame = pycolmap.Frame(rig_id=camera[1])
        frame.add_data_id(pycolmap.data_t(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera[0]), image_id))
        opened.write_frame(frame)
        found = pixels(points, 0.25 * index, random)
        opened.write_keypoints(image_id, np.concatenate([found, np.ones_like(found)], axis=1).astype(np.float32))
        ids[name] = image_id
    pairs = [(a, b) for a, b in combinations(ids, 2) if abs(ids[a] - ids[b]) < 4]
    for number, (a, b) in enumerate(pairs):
        # Each pair misses other points, so that tracks are of many lengths.
        shared = np.flatnonzero(np.arange(N_POINTS) % 7 != number % 7).astype(np.uint32)
        opened.write_matches(ids[a], ids[b], np.stack([shared, shared], axis=1))
    return pairs


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("groups"), np.random.default_rng(1)
    with pycolmap.Database.open(folder / "database.db") as opened:
        camera = write_camera(opened)
        pairs = [pair for n_photos in GROUPS for pair in write_group(opened, camera, n_photos, random)]
    (folder / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    pycolmap.verify_matches(folder / "database.db", folder / "pairs.txt", options)
    return folder / "database.db"


class Run:
    """Attempts at mapping a database in one folder; ``made_from`` is what they say they depend on."""

    def __init__(self, database: Path, root: Path, made_from: str = "") -> None:
        self.folder, self.database = root / "pieces", database
        self.folder.mkdir(exist_ok=True, parents=True)
        self.marks = Marks(Pieces(self.folder, Headway("poses", lambda _event: None)), "test", made_from)
        self.placed: list[int] = []

    def options(self) -> pycolmap.IncrementalPipelineOptions:
        return incremental_options(Context(self.folder, self.folder, [], 0, 1, Deadline.after(100)), "strict", 8.0)

    def map(self, stop_at: int = 0) -> list:
        """Map until so many photos are placed (0: to the end); return the models."""
        self.placed = []

        def on_placed(count: int) -> None:
            self.placed.append(count)
            if count == stop_at:
                raise Stopped

        task = Task(self.database, self.folder, self.options(), lambda: False, on_placed)
        return Incremental(task, self.marks).run()

    def stop(self, count: int) -> None:
        with pytest.raises(Stopped):
            self.map(count)

    def bytes(self) -> list[bytes]:
        """Map to the end; return the bytes of all models."""
        return [(self.written(index, model) / name).read_bytes() for index, model in enumerate(self.map()) for name in MODEL]

    def written(self, index: int, model: pycolmap.Reconstruction) -> Path:
        output = self.folder.parent / f"model-{index}"
        output.mkdir(exist_ok=True)
        model.write(output)
        return output


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "WORK_BETWEEN_MARKS", 1)


@pytest.mark.usefixtures("often")
def test_every_photo_is_placed_once_however_often_mapping_is_stopped(database: Path, tmp_path: Path) -> None:
    whole, broken = Run(database, tmp_path / "whole"), Run(database, tmp_path / "broken")
    expected = whole.bytes()
    assert len(expected) == len(GROUPS) * len(MODEL)
    n_placed = sum(GROUPS) - 2 * len(GROUPS)
    assert whole.placed == list(range(1, n_placed + 1))
    for count in range(1, n_placed + 1):
        broken.stop(count)
        assert broken.placed == [count]
    assert broken.bytes() == expected
    assert broken.placed == []


def test_without_a_mark_the_models_are_those_of_colmap(database: Path, tmp_path: Path) -> None:
    run = Run(database, tmp_path)
    theirs = pycolmap.incremental_mapping(database, run.folder, tmp_path, run.options())
    for index, mine in enumerate(run.map()):
        assert sorted(mine.reg_image_ids()) == sorted(theirs[index].reg_image_ids())
        for image_id in mine.reg_image_ids():
            pose = mine.image(image_id).cam_from_world().matrix()
            np.testing.assert_array_equal(pose, theirs[index].image(image_id).cam_from_world().matrix())
        assert set(mine.points3D) == set(theirs[index].points3D)
        for point_id, point in mine.points3D.items():
            np.testing.assert_array_equal(point.xyz, theirs[index].points3D[point_id].xyz)


def test_marks_leave_as_many_photos_and_no_larger_errors(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Run(database, tmp_path / "without").map()
    monkeypatch.setattr(incremental, "WORK_BETWEEN_MARKS", 1)
    for one, other in zip(without, Run(database, tmp_path / "with").map(), strict=True):
        assert one.num_reg_images() == other.num_reg_images()
        assert other.compute_mean_reprojection_error() < 1.01 * one.compute_mean_reprojection_error()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("torn", ["cameras.bin", "images.bin", "points3D.bin", "mark-test.json"])
def test_a_mark_that_is_torn_is_not_gone_on_from(database: Path, tmp_path: Path, torn: str) -> None:
    run = Run(database, tmp_path / "run")
    run.stop(4)
    (path,) = run.folder.rglob(torn)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run.bytes() == Run(database, tmp_path / "other").bytes()
    assert run.placed[0] == 1


@pytest.mark.usefixtures("often")
def test_a_mark_of_other_work_is_not_gone_on_from(database: Path, tmp_path: Path) -> None:
    Run(database, tmp_path, "this").stop(4)
    other = Run(database, tmp_path, "that")
    other.stop(3)
    assert other.placed == [1, 2, 3]


@pytest.mark.usefixtures("often")
def test_a_mark_that_is_forgotten_leaves_nothing(database: Path, tmp_path: Path) -> None:
    run = Run(database, tmp_path)
    run.stop(4)
    assert len(list(run.folder.glob("mark-test*"))) == 2, "the model of the last mark only, and its note"
    run.marks.forget()
    assert not list(run.folder.iterdir())


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 33 kB, what SQLite needs and nine photos exceed: to whoever writes one that is a full disk.

    Inside a test only: pytest itself may be writing to a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("often")
def test_a_mark_that_the_disk_has_no_room_for_is_an_error(database: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), small_files():
        Run(database, tmp_path).map()
