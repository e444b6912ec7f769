"""COLMAP's options for each way of mapping (research/sfm.md B7)."""

from pathlib import Path
from typing import Literal

import pycolmap

from engine.sfm.context import Context
from engine.sfm.models import MIN_MODEL_SIZE

# Bundle adjustment adds in the order its threads come by: two threads give other last bits each time, and later other points.
_N_THREADS = 1
# Pairs tried to begin with, those with most matches first. COLMAP's 200 cost 19 s of CPU time on flower, and none was wide enough.
_INIT_TRIALS = 20
# Angle at which the first pair must see its points where photos were taken from nearly one direction, degrees.
NARROW_DEG = 4.0

How = Literal["strict", "narrow", "relaxed"]


def incremental_options(context: Context, how: How, opening_deg: float) -> pycolmap.IncrementalPipelineOptions:
    """Return the options of an attempt that begins with a pair of at least ``opening_deg`` degrees, unless ``how`` says narrower."""
    options = pycolmap.IncrementalPipelineOptions()
    options.image_path = context.images
    options.init_num_trials = _INIT_TRIALS
    options.min_model_size = MIN_MODEL_SIZE
    # It tries for minutes where photos show another scene (8 + 8 photos: over 150 s of CPU time instead of 1.2).
    options.structure_less_registration_fallback = False
    options.num_threads = options.mapper.num_threads = _N_THREADS
    for group in (options, options.mapper, options.triangulation):
        group.random_seed = context.seed
    options.mapper.init_min_tri_angle = opening_deg if how == "strict" else min(NARROW_DEG, opening_deg)
    if how == "narrow":
        # Photos from nearly one direction: adjusting to the last digit each time gains nothing.
        options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.5
        options.ba_global_max_refinements = 1
        options.ba_global_function_tolerance = options.ba_local_function_tolerance = 1e-4
        options.ba_global_max_num_iterations, options.ba_local_max_num_iterations = 15, 10
    if how == "relaxed":
        options.min_num_matches = 10
        options.mapper.init_max_forward_motion = 1.0
        options.mapper.init_min_num_inliers = 30
        options.mapper.abs_pose_min_num_inliers = 15
        options.mapper.abs_pose_min_inlier_ratio = 0.15
    return options


def global_options(seed: int) -> pycolmap.GlobalPipelineOptions:
    """Return the options of the global mapper."""
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = MIN_MODEL_SIZE
    options.num_threads = options.mapper.num_threads = options.mapper.bundle_adjustment.ceres.solver_options.num_threads = _N_THREADS
    for group in (
        options,
        options.mapper,
        options.mapper.rotation_averaging,
        options.mapper.global_positioning,
        options.mapper.retriangulation,
    ):
        group.random_seed = seed
    return options


def calibrate(database: Path, seed: int) -> None:
    """Rewrite focal lengths and pairs by what the pairs say of the cameras, in place."""
    options = pycolmap.ViewGraphCalibrationOptions()
    options.random_seed = seed
    pycolmap.calibrate_view_graph(database, options)
