"""Poses that came with the photos: found, matched to photos by name, and written for the next stage as a COLMAP model."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from engine.errors import InputError
from engine.events import OnEvent, Warned
from engine.formats.colmap import write_reconstruction
from engine.formats.colmap_text import has_model, read_model
from engine.formats.transforms import MAX_COORDINATE, MAX_FRAMES, Lens, cam_from_world, read_transforms, rigid
from engine.photos.record import PhotoRecord
from engine.photos.sources import Source, named
from engine.scene import Array, Camera, Image, Points3D, Reconstruction
from engine.workspace import MODEL, POSES, Workspace

STAGE = "ingest"
# Intrinsics for another size serve when the shape is the same to this share.
_SHAPE_TOLERANCE = 0.01
_MIN_POSED = 3
# Focal length over the longer side: 0.01 is a fisheye beyond use, 1000 a telescope.
_FOCAL_RANGE = (0.01, 1000.0)
_TWO_FOCALS = ("PINHOLE", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV", "THIN_PRISM_FISHEYE")
_MAX_PARAM = 1e7


@dataclass(frozen=True)
class Given:
    """One pose and its camera, as the file says; ``lens`` where the size may come from the photo, else ``camera``."""

    path: str
    cam_from_world: Array  # [3, 4] float64
    lens: Lens | None = None
    camera: Camera | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height that the intrinsics are for; None when they go by the photo."""
        if self.camera is not None:
            return self.camera.width, self.camera.height
        return self.lens.size if self.lens else None


@dataclass(frozen=True)
class GivenPoses:
    """All that came: the file's name, the pose of each photo by shown name, the sparse points, and poses that fit no photo."""

    source: str
    by_photo: dict[str, Given]
    points: Points3D
    spare: list[str]


NO_POINTS = Points3D(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), np.zeros(0, np.int64))


def find_poses(workspace: Workspace, sources: list[Source], wanted: str) -> GivenPoses | None:
    """Return the poses that came with the photos; None when ``wanted`` is "estimate", or "auto" and there are none.

    Raises ``InputError`` input.no_poses, input.bad_poses, input.colmap_invalid, input.poses_unmatched.
    """
    if wanted == "estimate":
        return None
    found = next((path for name in POSES if (path := workspace.companion(name)) and path.is_file()), None)
    model = next((folder for name in (f"{MODEL}/0", MODEL) if (folder := workspace.companion(name)) and has_model(folder)), None)
    if found is not None:
        frames = [Given(frame.path, frame.cam_from_world, lens=frame.lens) for frame in read_transforms(found)]
        return _matched(found.name, frames, NO_POINTS, sources)
    if model is not None:
        reconstruction = read_model(model)
        return _matched(MODEL, _checked(model, reconstruction), reconstruction.points, sources)
    if wanted == "given":
        raise InputError(
            "input.no_poses",
            "No poses",
            f"poses.source is given, but neither {', '.join(POSES)} nor a COLMAP model in {MODEL}/ came with the photos",
            "Add the file, or set poses.source=auto.",
        )
    return None


def _checked(folder: Path, reconstruction: Reconstruction) -> list[Given]:
    """Return the poses of a COLMAP model, held to the same limits as those of a transforms.json."""
    file = folder / "images"
    if len(reconstruction.images) > MAX_FRAMES:
        raise _unusable(f"the model has {len(reconstruction.images)} images; at most {MAX_FRAMES} are read")
    if len(reconstruction.points.xyz) and float(np.abs(reconstruction.points.xyz).max()) > MAX_COORDINATE:
        raise _unusable(f"the model has a point more than {MAX_COORDINATE:g} units from the origin")
    for camera in reconstruction.cameras.values():
        focals = camera.params[: 2 if camera.model in _TWO_FOCALS else 1]
        low, high = (share * max(camera.width, camera.height) for share in _FOCAL_RANGE)
        if not all(low <= focal <= high for focal in focals) or max(map(abs, camera.params)) > _MAX_PARAM:
            size = f"{camera.model}, {camera.width}×{camera.height}"
            raise _unusable(f"camera {camera.camera_id} ({size}) has the parameters {', '.join(f'{each:g}' for each in camera.params)}")
    poses = []
    for image in reconstruction.images:
        rotation = rigid(file, ascii(image.name), image.cam_from_world[:, :3])
        pose = cam_from_world(file, ascii(image.name), rotation.T, image.centre_in_world)
        poses.append(Given(image.name, pose, camera=reconstruction.cameras[image.camera_id]))
    return poses


def _unusable(what: str) -> InputError:
    advice = "Export the model again, or set poses.source=estimate."
    return InputError("input.bad_poses", "Poses that cannot be used", what, advice)


def _matched(source: str, poses: list[Given], points: Points3D, sources: list[Source]) -> GivenPoses:
    """Give each photo the pose with its name: with folders or without, with extension or without, whichever fits one photo alone."""
    by_photo: dict[str, Given] = {}
    left = {pose.path: pose for pose in poses}
    for photo_key, pose_key in _LEVELS:
        photos = _unique([(photo_key(each.shown), each.shown) for each in sources if each.shown not in by_photo])
        names = _unique([(pose_key(path), path) for path in left])
        for key in photos.keys() & names.keys():
            by_photo[photos[key]] = left.pop(names[key])
    if len(by_photo) < min(_MIN_POSED, len(sources)):
        raise InputError(
            "input.poses_unmatched",
            "Poses of other photos",
            f"{len(by_photo)} of {len(sources)} photos have a pose in {source}, which names {named(list(left) or ['none'])}",
            "Keep the photos' file names, or remove the poses to have them found from the photos.",
        )
    return GivenPoses(source, by_photo, points, sorted(left))


def _whole(path: str) -> str:
    return path.casefold()


def _whole_stem(path: str) -> str:
    return str(PurePosixPath(path.casefold()).with_suffix(""))


def _last(path: str) -> str:
    return PurePosixPath(path.casefold()).name


def _last_stem(path: str) -> str:
    return PurePosixPath(path.casefold()).stem


# What must agree, of the photo's path and the pose's: strict first. A pose may lack the extension, or name another folder or format.
_LEVELS = ((_whole, _whole), (_whole_stem, _whole), (_last, _last), (_last_stem, _last), (_last_stem, _last_stem))


def _unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a dict, without keys that come more than once."""
    counts = Counter(key for key, _ in pairs)
    return {key: value for key, value in pairs if counts[key] == 1}


def warn_of_partners(given: GivenPoses, on_event: OnEvent) -> None:
    """Say which poses have no photo."""
    if given.spare:
        detail = f"{len(given.spare)} poses of {given.source} belong to no photo: {named(given.spare)}"
        on_event(Warned(STAGE, "capture.pose_without_photo", detail, {"poses": given.spare[:100]}))


def refuse_unposed(given: GivenPoses, records: list[PhotoRecord]) -> list[PhotoRecord]:
    """Leave out, by name, photos without a pose, and those of another shape than their camera."""
    return [_judged(given, record) if record.accepted else record for record in records]


def _judged(given: GivenPoses, record: PhotoRecord) -> PhotoRecord:
    pose = given.by_photo.get(record.source_name)
    if pose is None:
        detail = f"{record.source_name} has no pose in {given.source}, where others have"
        return replace(record, accepted=False, reason="photo.no_pose", detail=detail)
    size = pose.size
    if size is not None and abs(size[0] * record.height / (size[1] * record.width) - 1.0) > _SHAPE_TOLERANCE:
        detail = (
            f"{record.source_name} is {record.source_width}×{record.source_height} px, its camera in {given.source} {size[0]}×{size[1]}"
        )
        return replace(record, accepted=False, reason="photo.pose_size", detail=detail)
    return record


def write_given(folder: Path, given: GivenPoses, records: list[PhotoRecord]) -> None:
    """Write poses, cameras and points of the accepted photos, called as they are in images/; cameras keep the size of the file."""
    cameras: dict[tuple[str, int, int, tuple[float, ...]], Camera] = {}
    images = []
    for number, record in enumerate((each for each in records if each.accepted), start=1):
        pose = given.by_photo[record.source_name]
        # Without a size in the file the intrinsics are of the photo as it came.
        size = (record.source_width, record.source_height)
        camera = pose.camera or (pose.lens.camera(0, size) if pose.lens else None)
        assert camera is not None
        key = (camera.model, camera.width, camera.height, camera.params)
        camera = cameras.setdefault(key, Camera(len(cameras) + 1, *key))
        images.append(Image(number, camera.camera_id, record.name, pose.cam_from_world))
    write_reconstruction(folder, Reconstruction({each.camera_id: each for each in cameras.values()}, images, given.points))
