"""The COLMAP database: cameras by group, photos, SIFT features."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pycolmap
from PIL import Image

from engine.sfm.context import Context, Photo, Report, extraction_threads
from engine.workspace import replacing

# research/sfm.md B4: above 1600 px features gain little; below 1400 px skipping the doubled octave loses registrations.
MAX_SIDE = 1600
FULL_OCTAVE_BELOW = 1400
# Contrast that COLMAP asks for, in OpenCV's unit. Features beyond the limit are the weakest; banana loses a photo at 12,000.
CONTRAST = 0.02
MAX_FEATURES = 16_384
# Enough photos of one camera to carry the eight parameters of OPENCV.
OPENCV_FROM = 30
# Guess of the focal length over the longer side without EXIF, COLMAP's own.
FOCAL_GUESS = 1.2


@dataclass(frozen=True)
class Features:
    """SIFT features of a photo, strongest first: x, y, scale in pixels and angle, [F, 4] float32, and descriptors, [F, 128] uint8."""

    keypoints: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]


def create_database(context: Context, path: Path) -> None:
    """Make the database with one camera per group, its focal length from EXIF where known, and all photos in order."""
    with replacing(path) as aside:
        _fill(context, aside)


def _fill(context: Context, path: Path) -> None:
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
    """Find SIFT features in all photos that have none yet, several at a time, and keep them in the database."""
    # Each photo is one thread's work: so the numbers do not depend on how many there are.
    cv2.setNumThreads(1)
    with _ids(database) as (opened, ids), ThreadPoolExecutor(extraction_threads(context.n_threads)) as pool:
        photos = [photo for photo in context.photos if not opened.exists_descriptors(ids[photo.name])]
        searches = [pool.submit(search, context, photo) for photo in photos]
        begin = 1 + len(context.photos) - len(photos)
        try:
            for done, (photo, each) in enumerate(zip(photos, searches, strict=True), start=begin):
                _keep(opened, ids[photo.name], each.result())
                context.deadline.check("searching for features")
                report(done / len(context.photos), f"{done} of {len(context.photos)} photos searched for features")
        finally:
            for each in searches:
                each.cancel()


def _keep(opened: Any, image_id: int, features: Features) -> None:
    """Write a photo's features, the descriptors last: an attempt that was killed in between may have left keypoints."""
    write = opened.update_keypoints if opened.exists_keypoints(image_id) else opened.write_keypoints
    write(image_id, features.keypoints)
    opened.write_descriptors(image_id, pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, features.descriptors))


def search(context: Context, photo: Photo) -> Features:
    """Return the features of one photo, outside its mask left out."""
    with Image.open(context.images / photo.name) as opened:
        grey = np.asarray(opened.convert("L"))
    scale = _scale(photo)
    mask = None if context.masks is None else _mask(context.masks / f"{photo.name}.png", scale, grey.shape)
    if scale != 1.0:
        grey = _shrunk(grey, scale, cv2.INTER_AREA)
    finder = cv2.SIFT.create(nfeatures=0, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    points, found = finder.detectAndCompute(grey, mask)
    # COLMAP's pixel centres are at .5, OpenCV's at whole numbers.
    rows = np.array([((p.pt[0] + 0.5) / scale, (p.pt[1] + 0.5) / scale, p.size / scale, np.radians(p.angle)) for p in points], np.float32)
    strongest = np.argsort([-point.response for point in points], kind="stable")[:MAX_FEATURES]
    if not len(points):
        return Features(np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8))
    return Features(np.ascontiguousarray(rows[strongest]), rooted(np.asarray(found, np.float32)[strongest]))


def rooted(
    descriptors: npt.NDArray[np.float32],  # [F, 128] float32, not negative
) -> npt.NDArray[np.uint8]:
    """Return the roots of descriptors of sum 1, length 512, as COLMAP keeps them, [F, 128].

    Source: Arandjelović and Zisserman, CVPR 2012.
    """
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-12)
    rounded: npt.NDArray[np.uint8] = np.rint(np.minimum(255.0, 512.0 * np.sqrt(shares))).astype(np.uint8)
    return rounded


def count_keypoints(database: Path) -> dict[str, int]:
    """Return the number of features by photo name."""
    with pycolmap.Database.open(database) as opened:
        return {image.name: int(opened.num_keypoints_for_image(image.image_id)) for image in opened.read_all_images()}


def read_descriptors(database: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the SIFT descriptors, [F, 128] uint8, by photo name."""
    with pycolmap.Database.open(database) as opened:
        return {image.name: np.asarray(opened.read_descriptors(image.image_id).data, np.uint8) for image in opened.read_all_images()}


@contextmanager
def _ids(database: Path) -> Iterator[tuple[Any, dict[str, int]]]:
    with pycolmap.Database.open(database) as opened:
        yield opened, {image.name: image.image_id for image in opened.read_all_images()}


def _scale(photo: Photo) -> float:
    """Return how much smaller to search: OpenCV always doubles first, so large photos are halved to begin at their own size."""
    side = max(photo.width, photo.height)
    used = min(MAX_SIDE, side)
    return used / side / (2 if used >= FULL_OCTAVE_BELOW else 1)


def _shrunk(pixels: npt.NDArray[np.uint8], scale: float, how: int) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape
    return np.asarray(cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=how), np.uint8)


def _mask(path: Path, scale: float, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        mask = np.asarray(opened.convert("L").resize((shape[1], shape[0]), Image.Resampling.NEAREST))
    return mask if scale == 1.0 else _shrunk(mask, scale, cv2.INTER_NEAREST)


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
