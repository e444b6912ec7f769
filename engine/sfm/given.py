"""Poses that came with the photos: sparse points for them, and a model like the one that is otherwise estimated."""

import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from engine.events import OnEvent, Warned
from engine.formats.colmap import read_reconstruction
from engine.geometry import Array, Similarity
from engine.scene import Camera, Reconstruction
from engine.sfm.context import Context, Photo
from engine.sfm.frame import VIEW_DISTANCE
from engine.sfm.models import Model, poses_of
from engine.sfm.pairs import Pairs
from engine.sfm.unfinished import TRIANGULATED
from engine.unfinished import Pieces
from engine.workspace import replacing

STAGE = "poses"
# With this many points in the given model nothing needs to be searched for; with fewer after the search, more are scattered.
ENOUGH_POINTS = 1000
LEAST_POINTS = 300
SCATTERED = 4000
_GREY = (128, 128, 128)
# Photos that look further apart than this share too little to be compared, cosine.
_LEAST_COSINE = 0.3
# The given frame is kept while the median distance to what is seen lies in here and no camera is further out: the files' fixed point and
# float32 numbers then still resolve it.
_KEPT_DISTANCES = (0.25, 250.0)
_KEPT_REACH = 1000.0


@dataclass(frozen=True)
class Posed:
    """Given poses of the photos in images/: by photo name, cameras at the photos' size."""

    model: Reconstruction
    cameras: dict[str, pycolmap.Camera]

    @property
    def poses(self) -> dict[str, Array]:
        """``cam_from_world``, [3, 4], by name."""
        return {image.name: image.cam_from_world for image in self.model.images}

    def groups(self) -> list[list[str]]:
        """Return the names of the photos that share a camera, in order of the first."""
        groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for image in self.model.images:
            camera = self.cameras[image.name]
            groups[(camera.model_name, camera.width, camera.height, tuple(camera.params))].append(image.name)
        return list(groups.values())


def read_posed(folder: Path, photos: list[Photo]) -> Posed:
    """Return the given poses with their cameras brought to the size of the photos."""
    model = read_reconstruction(folder)
    sizes = {photo.name: (photo.width, photo.height) for photo in photos}
    cameras = {image.name: camera_at(model.cameras[image.camera_id], *sizes[image.name]) for image in model.images}
    return Posed(model, cameras)


def camera_at(camera: Camera, width: int, height: int) -> pycolmap.Camera:
    """Return a camera for the same picture at another size; distortion does not change with it."""
    scaled = pycolmap.Camera(model=camera.model, width=camera.width, height=camera.height, params=list(camera.params))
    if (width, height) != (camera.width, camera.height):
        scaled.rescale(width, height)
    scaled.has_prior_focal_length = True
    return scaled


def create_given_database(context: Context, posed: Posed, path: Path) -> None:
    """Make the database with all photos and the cameras that they came with."""
    with replacing(path) as aside:
        _fill(context, posed, aside)


def _fill(context: Context, posed: Posed, path: Path) -> None:
    pycolmap.Database.open(path).close()
    for names in posed.groups():
        camera = posed.cameras[names[0]]
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = camera.model_name
        reader.camera_params = ",".join(repr(float(value)) for value in camera.params)
        pycolmap.import_images(path, context.images, pycolmap.CameraMode.SINGLE, names, reader)


def pairs_by_pose(context: Context, posed: Posed, neighbours: int) -> Pairs:
    """Return for each photo the ``neighbours`` nearest that look much the same way, as sorted pairs of indices."""
    poses = np.stack([posed.poses[photo.name] for photo in context.photos])
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    cosines = poses[:, 2, :3] @ poses[:, 2, :3].T
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    reach = max(float(np.median(distances)), 1e-12)
    cost = np.where(cosines > _LEAST_COSINE, distances / reach + 1.0 - cosines, np.inf)
    np.fill_diagonal(cost, np.inf)
    pairs = set()
    for index, row in enumerate(cost):
        for other in np.argsort(row, kind="stable")[:neighbours]:
            if np.isfinite(row[other]):
                pairs.add((min(index, int(other)), max(index, int(other))))
    return sorted(pairs)


def triangulate(context: Context, posed: Posed, database: Path, pieces: Pieces) -> Any:
    """Return a pycolmap reconstruction with the given poses, untouched, and the points that the matches give, as it is read from disk."""
    output = context.folder / TRIANGULATED
    if pieces.get(TRIANGULATED) is None:
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = 1
        for group in (options, options.mapper, options.triangulation):
            group.random_seed = context.seed
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        pycolmap.triangulate_points(_empty_model(posed, database), database, context.images, output, options=options)
        pieces.put(TRIANGULATED, {}, sorted(output.iterdir()))
    return pycolmap.Reconstruction(output)


def with_given_points(posed: Posed) -> Any:
    """Return a pycolmap reconstruction with the given poses and the given points."""
    model = _empty_model(posed, None)
    for xyz, rgb in zip(posed.model.points.xyz, posed.model.points.rgb, strict=True):
        model.add_point3D(xyz, pycolmap.Track(), rgb)
    return model


def _empty_model(posed: Posed, database: Path | None) -> Any:
    """Return a reconstruction of cameras and poses; with a database, numbered as there."""
    cameras = {name: number for number, names in enumerate(posed.groups(), start=1) for name in names}
    ids = {image.name: (image.image_id, cameras[image.name]) for image in posed.model.images}
    if database is not None:
        with pycolmap.Database.open(database) as opened:
            ids = {image.name: (image.image_id, image.camera_id) for image in opened.read_all_images()}
    model = pycolmap.Reconstruction()
    for image in posed.model.images:
        image_id, camera_id = ids[image.name]
        if not model.exists_camera(camera_id):
            camera = posed.cameras[image.name]
            camera.camera_id = camera_id
            model.add_camera_with_trivial_rig(camera)
        pose = image.cam_from_world
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:, :3]), pose[:, 3])
        model.add_image_with_trivial_frame(pycolmap.Image(name=image.name, camera_id=camera_id, image_id=image_id), rigid)
    return model


def scatter(reconstruction: Any, posed: Posed, seed: int, on_event: OnEvent) -> int:
    """Add points at random to what most cameras see, when there are hardly any; return how many. A warning tells of it."""
    found = reconstruction.num_points3D()
    if found >= LEAST_POINTS:
        return 0
    points = common_view(posed, np.random.default_rng(seed), SCATTERED)
    for xyz in points:
        reconstruction.add_point3D(xyz, pycolmap.Track(), np.array(_GREY, np.uint8))
    detail = f"only {found} points were found in the photos with the poses that came; {len(points)} were scattered where most cameras look"
    on_event(Warned(STAGE, "capture.few_points", detail, {"found": found, "scattered": len(points)}))
    return len(points)


def common_view(posed: Posed, rng: np.random.Generator, count: int) -> Array:
    """Return ``count`` points, [count, 3], drawn where the most cameras look: the better half of ten times as many along random rays."""
    names = sorted(posed.cameras)
    poses = np.stack([posed.poses[name] for name in names])
    focal = np.array([_half_view(posed.cameras[name]) for name in names])  # [M, 2]
    depth = typical_depth(poses)
    picked = rng.integers(0, len(names), 10 * count)
    z = depth * rng.uniform(0.3, 2.0, len(picked))
    rays = rng.uniform(-1.0, 1.0, (len(picked), 2)) * focal[picked] * z[:, None]
    in_cam = np.concatenate([rays, z[:, None]], axis=1)
    points: Array = np.einsum("nji,nj->ni", poses[picked, :, :3], in_cam - poses[picked, :, 3])
    n_seen = np.zeros(len(points))
    for pose, half in zip(poses, focal, strict=True):
        local = points @ pose[:, :3].T + pose[:, 3]
        n_seen += (local[:, 2] > 0.1 * depth) & (np.abs(local[:, :2]) <= half * local[:, 2:]).all(axis=1)
    # Random keys settle ties, so that the chosen fill the volume evenly.
    best = np.lexsort((rng.random(len(points)), -np.minimum(n_seen, np.quantile(n_seen, 0.8))))
    return points[best[:count]]


def typical_depth(poses: Array) -> float:
    """Return how far from the cameras the point lies that they look at together; their spread where they do not, 1 for a lone place."""
    rotations, ahead = poses[:, :, :3], poses[:, 2, :3]
    centres = -np.einsum("mji,mj->mi", rotations, poses[:, :, 3])
    # The point with the least squared distance to all optical axes.
    across = np.eye(3)[None] - ahead[:, :, None] * ahead[:, None, :]
    spread = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max())
    focus = np.linalg.lstsq(across.sum(axis=0), np.einsum("mij,mj->i", across, centres), rcond=None)[0]
    depth = float(np.median(np.einsum("mj,mj->m", focus - centres, ahead)))
    return depth if 0.2 * spread < depth < 20.0 * spread else max(2.0 * spread, 1e-6) if spread > 0 else 1.0


def kept_frame(reconstruction: Any, on_event: OnEvent) -> Similarity:
    """Return the identity: who brings poses wants the own frame back. Scenes that the files cannot resolve are moved, with a warning."""
    poses = np.stack(list(poses_of(reconstruction).values()))
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    points = np.array([point.xyz for point in reconstruction.points3D.values()]).reshape(-1, 3)
    middle = np.median(points, axis=0)
    distance = float(np.median(np.linalg.norm(centres - middle, axis=1)))
    identity = Similarity(1.0, np.eye(3), np.zeros(3))
    if _KEPT_DISTANCES[0] <= distance <= _KEPT_DISTANCES[1] and float(np.abs(centres).max()) <= _KEPT_REACH:
        return identity
    scale = VIEW_DISTANCE / max(distance, 1e-12)
    detail = (
        f"the scene is seen from {distance:.3g} units away, {np.abs(centres).max():.3g} from the origin, which splat files cannot hold well"
    )
    on_event(Warned(STAGE, "capture.frame_moved", f"{detail}; it was moved and scaled by {scale:.4g}", {"scale": scale}))
    return Similarity(scale, np.eye(3), -scale * middle)


def as_model(reconstruction: Any) -> Model:
    """Return the reconstruction as the mapper returns one."""
    names = sorted(poses_of(reconstruction))
    error = float(reconstruction.compute_mean_reprojection_error()) if reconstruction.num_points3D() else 0.0
    return Model(reconstruction, names, [], reconstruction.num_points3D(), error)


def _half_view(camera: pycolmap.Camera) -> tuple[float, float]:
    """Return how far a camera sees to the side at depth 1, about."""
    return 0.5 * camera.width / camera.focal_length_x, 0.5 * camera.height / camera.focal_length_y
