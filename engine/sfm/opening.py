"""How wide the first pair of a model can be: the angle at which the matched photos see their points, before anything is placed."""

from pathlib import Path

import numpy as np
import pycolmap

# COLMAP begins with no pair that has fewer inliers, and asks for 16°.
_MIN_INLIERS = 100
WIDEST_DEG = 16.0
# Below, depth is noise.
LEAST_DEG = 2.0
# Of the pairs so many are wide enough: among the few widest are the false ones, among the many narrow ones lego stuck at 6 photos.
_SHARE = 0.25


def opening_angle_deg(database: Path) -> float:
    """Return the angle that a quarter of the well matched pairs reach, degrees in 2..16; 16 where no pair is well matched."""
    angles = _pair_angles_deg(database)
    return float(np.clip(np.quantile(angles, 1.0 - _SHARE), LEAST_DEG, WIDEST_DEG)) if angles else WIDEST_DEG


def _pair_angles_deg(database: Path) -> list[float]:
    """Return the median angle between the rays of each pair with inliers enough; focal lengths are as the database guesses them."""
    with pycolmap.Database.open(database) as opened:
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        seen_by = {image.image_id: cameras[image.camera_id] for image in opened.read_all_images()}
        points = {image_id: np.asarray(opened.read_keypoints(image_id), np.float64)[:, :2] for image_id in seen_by}
        pair_ids, geometries = opened.read_two_view_geometries()
    angles = []
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        if len(geometry.inlier_matches) < _MIN_INLIERS:
            continue
        one, other = pycolmap.pair_id_to_image_pair(pair_id)
        if pycolmap.estimate_two_view_geometry_pose(seen_by[one], points[one], seen_by[other], points[other], geometry):
            angles.append(float(np.degrees(geometry.tri_angle)))
    return angles
