"""From verified pairs to poses: attempts, each only if the ones before left too many photos out (research/sfm.md B7)."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pycolmap

from engine.errors import CapacityError
from engine.options import PosesOptions
from engine.sfm.context import Context, Report
from engine.sfm.matching import ViewGraph, forget_matches, match, read_view_graph
from engine.sfm.models import MIN_MODEL_SIZE, Model, best_model
from engine.sfm.opening import WIDEST_DEG, opening_angle_deg
from engine.sfm.pairs import Pairs

# Lowe's ratio of the last attempt: finds more matches between photos that look less alike, at the price of more false ones.
LOOSE_RATIO = 0.9
STRICT_RATIO = 0.8

# Pairs that may be compared to find a place for photos left out: a few minutes on two cores.
_PAIRS_TO_COMPLETE = 3000
# Bundle adjustment adds in the order its threads come by: two threads give other last bits each time, and later other points.
_N_THREADS = 1
# Pairs tried to begin with, those with most matches first. COLMAP's 200 cost 19 s of CPU time on flower, and none was wide enough.
_INIT_TRIALS = 20
# Angle at which the first pair must see its points where photos were taken from nearly one direction, degrees.
_NARROW_DEG = 4.0

How = Literal["strict", "narrow", "relaxed"]


@dataclass(frozen=True)
class Attempt:
    """One try: how many photos hang together, how many more than before, and what it cost. ``note`` says why it was left out."""

    mapper: str
    registered: int
    gain: int
    n_points: int
    error_px: float
    seconds: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


class Mapper:
    """Runs attempts, keeps the best model and the list of what was tried."""

    def __init__(self, context: Context, options: PosesOptions, report: Report) -> None:
        self.context = context
        self.options = options
        self.report = report
        self.best = Model()
        self.mapper = "none"
        self.attempts: list[Attempt] = []
        self.opening_deg = WIDEST_DEG

    def run(self, database: Path, pairs: Pairs, graph: ViewGraph) -> ViewGraph:
        """Run the chain until ``target_registered`` is met; return the view graph that the best model came from."""
        enough = self.options.target_registered * len(self.context.photos)
        started = time.monotonic()
        self.opening_deg = opening_angle_deg(database)
        measured_s = time.monotonic() - started
        if self.opening_deg < _NARROW_DEG:
            note = f"most photos see their points at less than {self.opening_deg:.1f} degrees"
            self.attempts.append(Attempt("incremental", 0, 0, 0, 0.0, round(measured_s, 3), note))
        else:
            self._attempt("incremental", graph, enough, lambda: self._incremental(database), measured_s)
        self._attempt("incremental narrow", graph, enough, lambda: self._incremental(database, "narrow"))
        self._attempt("global", graph, enough, lambda: self._global(database))
        self._attempt("incremental relaxed", graph, enough, lambda: self._incremental(database, "relaxed"))
        graph = self._complete(database, pairs, graph)
        if len(self.best) >= enough or len(self.context.photos) > self.options.exhaustive_below or graph.n_verified == 0:
            return graph
        loose = self.context.folder / "loose.db"
        shutil.copyfile(database, loose)
        return self._match_again(loose, pairs, graph)

    def _match_again(self, loose: Path, pairs: Pairs, graph: ViewGraph) -> ViewGraph:
        started, before = time.monotonic(), len(self.best)
        forget_matches(loose)
        if not self._match_more(loose, pairs, LOOSE_RATIO):
            return graph
        wider = read_view_graph(loose, len(pairs))
        enough = self.options.target_registered * len(self.context.photos)
        spent = time.monotonic() - started
        self._attempt("incremental relaxed, ratio 0.9", wider, enough, lambda: self._incremental(loose, "relaxed"), spent)
        return wider if len(self.best) > before else graph

    def _complete(self, database: Path, pairs: Pairs, graph: ViewGraph) -> ViewGraph:
        """Compare the photos left out with all others, where that was not done yet, and try to add them to the best model.

        Thresholds stay strict: relaxed ones added a photo of the lego set at the opposite side (166° off, 15 points shared).
        """
        names = [photo.name for photo in self.context.photos]
        left_out = [index for index, name in enumerate(names) if name not in set(self.best.names)]
        known = set(pairs)
        wanted = {(min(i, j), max(i, j)) for i in left_out for j in range(len(names)) if i != j}
        missing = sorted(pair for pair in wanted if pair not in known)
        missing = missing[:: 1 + len(missing) // _PAIRS_TO_COMPLETE]
        started = time.monotonic()
        if not missing or len(self.best) < len(names) / 2 or not self._match_more(database, missing, STRICT_RATIO):
            return graph
        wider = read_view_graph(database, len(pairs) + len(missing))
        spent = time.monotonic() - started
        self._attempt(f"{self.mapper}, completed", wider, len(names), lambda: self._continued(database), spent)
        return wider

    def _attempt(self, mapper: str, graph: ViewGraph, enough: float, work: Callable[[], list[Any]], spent_s: float = 0.0) -> None:
        """Run one attempt unless ``enough`` photos are in, none more can come in, or the time is over."""
        if len(self.best) >= enough:
            return
        reachable = len(graph.groups[0]) if graph.groups else 0
        if len(self.best) >= max(reachable, MIN_MODEL_SIZE) or reachable < MIN_MODEL_SIZE:
            # No mapper can join photos that share no verified pair.
            note = f"matches join at most {reachable} photos"
            self.attempts.append(Attempt(mapper, 0, 0, 0, 0.0, round(spent_s, 3), note))
            return
        if self._is_out_of_time():
            self.attempts.append(Attempt(mapper, 0, 0, 0, 0.0, round(spent_s, 3), "no time left"))
            return
        self.report(0.2 * len(self.attempts), f"placing the cameras ({mapper})")
        started = time.monotonic()
        model = best_model(work())
        seconds = time.monotonic() - started + spent_s
        gain = max(0, len(model) - len(self.best))
        self.attempts.append(Attempt(mapper, len(model), gain, model.n_points, round(model.error_px, 4), round(seconds, 3)))
        if gain:
            self.best, self.mapper = model, mapper

    def _match_more(self, database: Path, pairs: Pairs, max_ratio: float) -> bool:
        """Compare further pairs; False when the time ran out, which only ends the search for something better."""
        try:
            match(self.context, database, pairs, max_ratio, lambda _share, words: self.report(0.8, words))
        except CapacityError:
            if not self._is_usable():
                raise
            return False
        return True

    def _is_usable(self) -> bool:
        return len(self.best) >= max(MIN_MODEL_SIZE, self.options.min_registered * len(self.context.photos))

    def _is_out_of_time(self) -> bool:
        """With a usable model in hand the end of time ends the search, without one the stage."""
        if not self._is_usable():
            self.context.deadline.check("placing the cameras")
        return self.context.deadline.remaining_s() <= 0

    def _incremental(self, database: Path, how: How = "strict") -> list[Any]:
        found = pycolmap.incremental_mapping(
            database, self.context.images, self._empty_folder(), self._options(how), next_image_callback=self._on_image()
        )
        return [found[key] for key in sorted(found)]

    def _on_image(self) -> Callable[[], None]:
        """Count photos as they are placed: progress for the user, and a moment at which a stop request gets through."""
        placed, n_photos, start = itertools.count(1), len(self.context.photos), 0.2 * len(self.attempts)

        def on_image() -> None:
            count = min(next(placed), n_photos)
            self.report(start + 0.2 * count / n_photos, f"placing the cameras, step {count}")

        return on_image

    def _continued(self, database: Path) -> list[Any]:
        folder = self._empty_folder()
        self.best.reconstruction.write(folder)
        options = self._options("strict")
        options.multiple_models = False
        found = pycolmap.incremental_mapping(
            database, self.context.images, self._empty_folder(), options, input_path=folder, next_image_callback=self._on_image()
        )
        return [found[key] for key in sorted(found)]

    def _options(self, how: How) -> pycolmap.IncrementalPipelineOptions:
        options = pycolmap.IncrementalPipelineOptions()
        options.init_num_trials = _INIT_TRIALS
        options.min_model_size = MIN_MODEL_SIZE
        # It tries for minutes where photos show another scene (8 + 8 photos: over 150 s of CPU time instead of 1.2).
        options.structure_less_registration_fallback = False
        options.max_runtime_seconds = max(1, int(self.context.deadline.remaining_s()))
        options.num_threads = options.mapper.num_threads = _N_THREADS
        for group in (options, options.mapper, options.triangulation):
            group.random_seed = self.context.seed
        options.mapper.init_min_tri_angle = self.opening_deg if how == "strict" else min(_NARROW_DEG, self.opening_deg)
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

    def _global(self, database: Path) -> list[Any]:
        # Calibration rewrites focal lengths and pairs, so it works on a copy.
        calibrated = self.context.folder / "calibrated.db"
        shutil.copyfile(database, calibrated)
        calibration = pycolmap.ViewGraphCalibrationOptions()
        calibration.random_seed = self.context.seed
        pycolmap.calibrate_view_graph(calibrated, calibration)
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
            group.random_seed = self.context.seed
        found = pycolmap.global_mapping(calibrated, self.context.images, self._empty_folder(), options)
        return [found[key] for key in sorted(found)]

    def _empty_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.context.folder))
