"""The COLMAP database: cameras by group, photos, SIFT features."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from engine.sfm.context import Context, Photo, Report, extraction_threads

# research/sfm.md B4: above 1600 px features gain little; below 1400 px skipping the doubled octave loses registrations.
MAX_SIDE = 1600
FULL_OCTAVE_BELOW = 1400
# Enough photos of one camera to carry the eight parameters of OPENCV.
OPENCV_FROM = 30
# Guess of the focal length over the longer side without EXIF, COLMAP's own.
FOCAL_GUESS = 1.2
# Photos a thread searches between two looks at the deadline.
_PHOTOS_PER_THREAD = 4


def create_database(context: Context, path: Path) -> None:
    """Make the database with one camera per group, its focal length from EXIF where known, and all photos in order."""
    pycolmap.Database.open(path).close()
    groups: dict[int, list[Photo]] = defaultdict(list)
    for photo in context.photos:
        groups[photo.camera_group].append(photo)
    for photos in groups.values():
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "OPENCV" if len(photos) >= OPENCV_FROM else "SIMPLE_RADIAL"
        pycolmap.import_images(path, context.images, pycolmap.CameraMode.SINGLE, [photo.name for photo in photos], reader)
    _set_focal_priors(context, path)


def extract(context: Context, database: Path, report: Report) -> None:
    """Find SIFT features in all photos, a batch at a time so that progress and the deadline are looked at in between."""
    n_threads = extraction_threads(context.n_threads)
    reader = pycolmap.ImageReaderOptions()
    if context.masks is not None:
        reader.mask_path = context.masks
    done = 0
    for octave in (0, -1):
        names = [photo.name for photo in context.photos if _first_octave(photo) == octave]
        size = _PHOTOS_PER_THREAD * n_threads
        for start in range(0, len(names), size):
            context.deadline.check("searching for features")
            batch = names[start : start + size]
            pycolmap.extract_features(
                database, context.images, image_names=batch, reader_options=reader, extraction_options=_extraction(octave, n_threads)
            )
            done += len(batch)
            report(done / len(context.photos), f"{done} of {len(context.photos)} photos searched for features")


def count_keypoints(database: Path) -> dict[str, int]:
    """Return the number of features by photo name."""
    with pycolmap.Database.open(database) as opened:
        return {image.name: int(opened.num_keypoints_for_image(image.image_id)) for image in opened.read_all_images()}


def read_descriptors(database: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the SIFT descriptors, [F, 128] uint8, by photo name."""
    with pycolmap.Database.open(database) as opened:
        return {image.name: np.asarray(opened.read_descriptors(image.image_id).data, np.uint8) for image in opened.read_all_images()}


def _first_octave(photo: Photo) -> int:
    return 0 if min(MAX_SIDE, max(photo.width, photo.height)) >= FULL_OCTAVE_BELOW else -1


def _extraction(octave: int, n_threads: int) -> pycolmap.FeatureExtractionOptions:
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = MAX_SIDE
    options.num_threads = n_threads
    options.use_gpu = False
    options.sift.first_octave = octave
    return options


def _set_focal_priors(context: Context, path: Path) -> None:
    by_name = {photo.name: photo for photo in context.photos}
    with pycolmap.Database.open(path) as opened:
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        members: dict[int, list[Photo]] = defaultdict(list)
        for image in opened.read_all_images():
            members[image.camera_id].append(by_name[image.name])
        for camera_id, photos in members.items():
            camera = cameras[camera_id]
            known = [photo.focal_px for photo in photos if photo.focal_px is not None]
            focal = float(np.median(known)) if known else FOCAL_GUESS * max(camera.width, camera.height)
            params = np.zeros(len(camera.params))
            n_focals = 2 if camera.model_name == "OPENCV" else 1
            params[:n_focals] = focal
            params[n_focals : n_focals + 2] = camera.width / 2, camera.height / 2
            camera.params = params
            camera.has_prior_focal_length = bool(known)
            opened.update_camera(camera)
