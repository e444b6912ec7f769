"""The second stage: where each photo was taken from, and the sparse points they share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from engine.events import OnEvent, Progress
from engine.geometry import Array, Similarity
from engine.options import PosesOptions, RunOptions
from engine.sfm.context import Context, Deadline, Photo, Report, read_photos
from engine.sfm.features import count_keypoints, create_database, extract, read_descriptors
from engine.sfm.frame import normalising_similarity
from engine.sfm.given import (
    ENOUGH_POINTS,
    as_model,
    create_given_database,
    kept_frame,
    pairs_by_pose,
    read_posed,
    scatter,
    triangulate,
    with_given_points,
)
from engine.sfm.health import STAGE, Findings, camera_spread, require_sound, warn_of_features, warn_of_left_out, warn_of_watermark
from engine.sfm.mapping import STRICT_RATIO, Mapper
from engine.sfm.masks import write_feature_masks
from engine.sfm.matching import ViewGraph, match, read_view_graph
from engine.sfm.models import Model, poses_of, write_model
from engine.sfm.pairs import Pairs, all_pairs, local_metres, neighbour_pairs
from engine.sfm.undistort import Straightener, apply_similarity, point_positions, undistort
from engine.sfm.unfinished import DATABASE, STRAIGHT, is_begun, unfinished
from engine.unfinished import Headway, Pieces
from engine.workspace import Workspace, read_json, replacing_folder


@dataclass
class _Clock:
    """Emits progress that never goes back, says from time to time what is safe, and keeps the wall and CPU seconds of each step."""

    on_event: OnEvent
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    fraction: float = 0.0
    headway: Headway = field(init=False)

    def __post_init__(self) -> None:
        self.headway = Headway(STAGE, self.on_event)

    @contextmanager
    def step(self, name: str, start: float, end: float, keeps: bool = False) -> Iterator[Report]:
        began, cpu_began = time.monotonic(), time.process_time()

        def report(share: float, words: str) -> None:
            self.fraction = max(self.fraction, start + (end - start) * min(1.0, share))
            self.on_event(Progress(STAGE, round(self.fraction, 4), words))
            if keeps:
                self.headway.keep()  # a photo, or a batch of pairs, whose result is in the database

        try:
            yield report
        finally:
            self.seconds[name] = round(time.monotonic() - began, 3)
            self.cpu_seconds[name] = round(time.process_time() - cpu_began, 3)


def run(workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, Any]:
    """Write ``workspace.sparse`` and ``workspace.undistorted`` from the upright photos; return the figures.

    Photos left out are named in ``Warned`` events. Raises ``CaptureError`` (capture.no_overlap, capture.too_few_registered,
    capture.pure_rotation) when the photos make no scene, ``CapacityError`` capacity.time_limit.
    """
    # pycolmap tells everything it does; only its errors are worth a line of the log.
    pycolmap.logging.minloglevel = 2
    photos = read_photos(read_json(workspace.images_index))
    clock = _Clock(on_event)
    with unfinished(workspace, options) as folder:
        deadline = Deadline.after(options.poses.time_limit_s)
        masks = write_feature_masks(photos, workspace.masks, workspace.alpha, folder / "masks")
        context = Context(workspace.images, folder, photos, options.seed, options.threads or cpu_count() or 1, deadline, masks)
        is_given = workspace.given.is_dir()
        if is_given:
            findings, how = _take_given(context, workspace.given, options.poses, clock)
            similarity = kept_frame(findings.model.reconstruction, on_event)
        else:
            findings, how = _reconstruct(context, options.poses, clock)
            require_sound(findings, _spread(findings.model), options.poses)
            warn_of_left_out(findings, on_event)
            similarity = _own_frame(context, findings.model)
        spread = _spread(findings.model)
        with clock.step("undistort", 0.92, 1.0) as report:
            report(0.0, "removing lens distortion")
            _write_sparse(workspace, findings.model, similarity)
            with replacing_folder(workspace.undistorted) as aside:
                straightener = Straightener(workspace, options.poses.max_train_side, folder / STRAIGHT)
                undistort(context, straightener, aside, Pieces(folder, clock.headway), report)
            report(1.0, f"{len(findings.model)} of {len(photos)} photos placed, {findings.model.n_points} points")
    source = {"source": "given" if is_given else "estimated", "camera_spread": round(spread, 4)}
    return _stats(findings, similarity, clock) | how | source


def _reconstruct(context: Context, options: PosesOptions, clock: _Clock) -> tuple[Findings, dict[str, Any]]:
    database = context.folder / DATABASE
    with clock.step("features", 0.0, 0.3, keeps=True) as report:
        if not is_begun(database):
            create_database(context, database)
        extract(context, database, report)
        keypoints = count_keypoints(database)
        warn_of_features(context.photos, keypoints, clock.on_event)
    with clock.step("matching", 0.3, 0.65, keeps=True) as report:
        pairs = _choose_pairs(context, database, options)
        match(context, database, pairs, STRICT_RATIO, report)
        graph = read_view_graph(database, len(pairs))
        warn_of_watermark(graph, clock.on_event)
    with clock.step("mapping", 0.65, 0.92) as report:
        mapper = Mapper(context, options, report, Pieces(context.folder, clock.headway))
        graph = mapper.run(database, pairs, graph)
    how = {"mapper": mapper.mapper, "attempts": [attempt.to_dict() for attempt in mapper.attempts]}
    return Findings(context.photos, keypoints, graph, mapper.best), how


def _take_given(context: Context, given: Path, options: PosesOptions, clock: _Clock) -> tuple[Findings, dict[str, Any]]:
    """Take the poses that came with the photos as they are, and find the points: given ones, or by matching, or scattered."""
    posed = read_posed(given, context.photos)
    keypoints: dict[str, int] = {photo.name: 0 for photo in context.photos}
    graph = ViewGraph(0, 0, {})
    if len(posed.model.points.xyz) >= ENOUGH_POINTS:
        reconstruction, points = with_given_points(posed), "given"
    else:
        database, points = context.folder / DATABASE, "triangulated"
        with clock.step("features", 0.0, 0.4, keeps=True) as report:
            if not is_begun(database):
                create_given_database(context, posed, database)
            extract(context, database, report)
            keypoints = count_keypoints(database)
        with clock.step("matching", 0.4, 0.8, keeps=True) as report:
            pairs = pairs_by_pose(context, posed, options.neighbours)
            match(context, database, pairs, STRICT_RATIO, report)
            graph = read_view_graph(database, len(pairs))
        with clock.step("mapping", 0.8, 0.92) as report:
            report(0.0, "placing points")
            reconstruction = triangulate(context, posed, database, Pieces(context.folder, clock.headway))
    n_scattered = scatter(reconstruction, posed, context.seed, clock.on_event)
    how = {"mapper": "none", "attempts": [], "points": points, "n_scattered": n_scattered}
    return Findings(context.photos, keypoints, graph, as_model(reconstruction)), how


def _choose_pairs(context: Context, database: Path, options: PosesOptions) -> Pairs:
    if len(context.photos) <= options.exhaustive_below:
        return all_pairs(len(context.photos))
    descriptors = read_descriptors(database)
    return neighbour_pairs(context.photos, [descriptors[photo.name] for photo in context.photos], options.neighbours, context.seed)


def _spread(model: Model) -> float:
    if not model.n_points:
        return 0.0
    return camera_spread(np.stack(list(poses_of(model.reconstruction).values())), point_positions(model.reconstruction))


def _own_frame(context: Context, model: Model) -> Similarity:
    poses = poses_of(model.reconstruction)
    metres = _metres_by_gps([photo for photo in context.photos if photo.name in poses], list(poses))
    return normalising_similarity(np.stack(list(poses.values())), point_positions(model.reconstruction), metres)


def _write_sparse(workspace: Workspace, model: Model, similarity: Similarity) -> None:
    apply_similarity(model.reconstruction, similarity)
    with replacing_folder(workspace.sparse) as aside:
        write_model(model.reconstruction, aside)


def _metres_by_gps(photos: list[Photo], order: list[str]) -> Array | None:
    by_name = {photo.name: photo.gps for photo in photos if photo.gps is not None}
    if not by_name:
        return None
    unknown = (np.nan, np.nan, np.nan)
    gps = np.array([by_name.get(name, unknown) for name in order])
    first = int(np.flatnonzero(np.isfinite(gps).all(axis=1))[0])
    return local_metres(gps, gps[first])


def _stats(findings: Findings, similarity: Similarity, clock: _Clock) -> dict[str, Any]:
    model, graph = findings.model, findings.graph
    cameras = model.reconstruction.cameras
    used = sorted({model.reconstruction.image(key).camera_id for key in model.reconstruction.reg_image_ids()})
    return {
        "n_photos": len(findings.photos),
        "n_registered": len(model),
        "registered": model.names,
        "unregistered": {photo.name: findings.keypoints.get(photo.name, 0) for photo in findings.left_out()},
        "n_points": model.n_points,
        "reprojection_error_px": round(model.error_px, 4),
        "pairs": {"compared": graph.n_pairs, "verified": graph.n_verified, "kinds": graph.kinds},
        "median_keypoints": int(np.median(list(findings.keypoints.values()))),
        "cameras": [
            {
                "model": cameras[key].model_name,
                "width": cameras[key].width,
                "height": cameras[key].height,
                "focal_px": round(float(cameras[key].mean_focal_length()), 3),
                "params": [round(float(value), 6) for value in cameras[key].params],
            }
            for key in used
        ],
        "similarity": {
            "scale": similarity.scale,
            "rotation": similarity.rotation.tolist(),
            "translation": similarity.translation.tolist(),
        },
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
    }
