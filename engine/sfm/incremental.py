"""Place photos one after the other, with marks from which an attempt that was killed goes on, to the same bytes.

The steps are COLMAP's, in COLMAP's order (Schönberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016): without a mark the bytes
are those of ``pycolmap.incremental_mapping``. A model that was written and read is not the one in memory: its points lie in another order,
so sums come out otherwise. Therefore at a mark every attempt, killed or not, goes on with what it reads, and a new mapper. Marks are set by
work done, not by time: they fall on the same photos on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from engine.sfm.marks import Marks, Place

# Between two marks, in observations adjusted over all photos: some 15 s of one core. A mark costs 0.2 s with 40 photos, 0.9 s with 200.
WORK_BETWEEN_MARKS = 1_250_000
# What placing a photo among its neighbours costs, in the same unit.
WORK_OF_A_PHOTO = 40_000
# COLMAP gives up a model that has not grown to ``min_model_size`` after as many photos that could not be placed.
_FAILURES_AT_FIRST = 30
# Searches for first pairs: with the limits given, then with half the inliers and half the angle, in turns.
_N_SEARCHES = 5


@dataclass(frozen=True)
class Task:
    """What to map. ``start`` is the folder of a model to add to; ``on_placed`` hears how many photos were placed, also before a mark."""

    database: Path
    images: Path
    options: Any
    is_over: Callable[[], bool]
    on_placed: Callable[[int], None]
    start: Path | None = None


class Incremental:
    """One attempt at mapping."""

    def __init__(self, task: Task, marks: Marks) -> None:
        self.task = task
        self.marks = marks
        with pycolmap.Database.open(task.database) as database:
            self.pipeline = pycolmap.IncrementalPipeline(task.options, database, pycolmap.ReconstructionManager())
        self.cache = self.pipeline.database_cache
        self.options = task.options.get_mapper()
        self.triangulation = task.options.get_triangulation()
        self.work = 0
        self.place = Place()
        self.mapper: Any = None
        self.model: Any = None

    def run(self) -> list[Any]:
        """Return the models found, in order, as they are read from disk."""
        self._begin()
        n_photos = self.cache.num_images()
        while True:
            self._search()
            self.place.search += 1
            if self.place.search == _N_SEARCHES or self.mapper.num_total_reg_images() == n_photos or self.task.is_over():
                break
            self._relax(self.place.search)
            self.mapper.reset_initialization_stats()
        return [self.marks.model(name) for name in self.place.models]

    def _begin(self) -> None:
        """Take up what was marked, else the model to add to, else nothing."""
        said = self.marks.read()
        self.place = said or Place()
        for search in range(1, self.place.search + 1):
            self._relax(search)
        self.mapper = self._new_mapper()
        if self.place.current is not None:
            self._take_up(self.marks.model(self.place.current))
        elif said is None and self.task.start is not None:
            self._take_up(pycolmap.Reconstruction(self.task.start))
            self._note_size()

    def _relax(self, search: int) -> None:
        if search % 2:
            self.options.init_min_num_inliers //= 2
        else:
            self.options.init_min_tri_angle /= 2

    def _search(self) -> None:
        """Make models until no pair of photos is left to begin with."""
        while self.place.trial < self.task.options.init_num_trials and not self.task.is_over():
            goes_on = self._make_model()
            self.place.trial += 1
            if not goes_on:
                break
        self.place.trial = 0

    def _make_model(self) -> bool:
        """Make a model, or go on with the one in work; return whether there may be another."""
        if self.model is None:
            self._take_up(pycolmap.Reconstruction())
            status = self.pipeline.initialize_reconstruction(self.mapper, self.options, self.model)
            if status != pycolmap.IncrementalPipelineStatus.SUCCESS:
                self._leave(discard=True)
                return bool(status != pycolmap.IncrementalPipelineStatus.NO_INITIAL_PAIR)
            self._note_size()
        self._grow()
        return self._finish()

    def _grow(self) -> None:
        """Add photos until none can be added; the last try is after an adjustment of all."""
        while not self.task.is_over():
            image_id = self._place_one_of(self.mapper.find_next_images(self.options, structure_less=False))
            if image_id is not None:
                self._settle(image_id)
            if self.mapper.num_shared_reg_images() >= self.task.options.max_model_overlap or (image_id is None and self.place.is_stuck):
                break
            if image_id is None:
                self._adjust_all()
            self.place.is_stuck = image_id is None
            if self.work >= WORK_BETWEEN_MARKS:
                self._mark()
            if image_id is not None:
                self.task.on_placed(self.place.n_placed)
        is_adjusted = self.model.num_reg_frames() in (0, self.place.n_frames) or self.model.num_points3D() == self.place.n_points
        if not is_adjusted and not self.task.is_over():
            self._adjust_all()

    def _place_one_of(self, candidates: list[int]) -> int | None:
        for n_failed, image_id in enumerate(candidates):
            if self.mapper.register_next_image(self.options, image_id):
                return image_id
            if n_failed >= _FAILURES_AT_FIRST and self.model.num_reg_frames() < self.task.options.min_model_size:
                break
        return None

    def _settle(self, image_id: int) -> None:
        """Fit a photo just placed to the model, and the model to it."""
        options = self.task.options
        self.mapper.triangulate_image(self.triangulation, image_id)
        self.mapper.iterative_local_refinement(
            options.ba_local_max_refinements,
            options.ba_local_max_refinement_change,
            self.options,
            options.get_local_bundle_adjustment(),
            self.triangulation,
            image_id,
        )
        if self.pipeline.check_run_global_refinement(self.model, self.place.n_frames, self.place.n_points):
            self._adjust_all()
            self._note_size()
        self.model.extract_colors_for_image(image_id, self.task.images)
        self.work += WORK_OF_A_PHOTO
        self.place.n_placed += 1

    def _adjust_all(self) -> None:
        """Adjust all photos and points together until little changes (COLMAP's iterative global refinement)."""
        options = self.task.options
        adjustment = options.get_global_bundle_adjustment()
        self.mapper.complete_and_merge_tracks(self.triangulation)
        self.mapper.retriangulate(self.triangulation)
        for _ in range(options.ba_global_max_refinements):
            n_observations = self.model.compute_num_observations()
            self.work += n_observations
            self.mapper.adjust_global_bundle(self.options, adjustment)
            self.model.normalize()
            n_changed = self.mapper.complete_and_merge_tracks(self.triangulation) + self.mapper.filter_points(self.options)
            if n_changed / max(1, n_observations) < options.ba_global_max_refinement_change:
                break
        self.mapper.clear_modified_points3D()
        self.mapper.filter_frames(self.options)

    def _finish(self) -> bool:
        """Keep the model in work, unless it is too small to be one; return whether there may be another."""
        options, n_total = self.task.options, self.mapper.num_total_reg_images()
        n_frames, smallest = self.model.num_reg_frames(), min(int(0.8 * self.cache.num_images()), options.min_model_size)
        is_stopped = self.task.is_over()
        if not is_stopped and (n_frames == 0 or (options.multiple_models and self.place.models and n_frames < smallest)):
            self._leave(discard=True)
        else:
            self.model.update_point_3d_errors()
            model = self.model
            self._leave(discard=False)
            self.place.models.append(self.marks.add(self.place, model))
        return not is_stopped and options.multiple_models and len(self.place.models) < options.max_num_models and n_total < self._enough

    @property
    def _enough(self) -> int:
        return int(self.cache.num_images()) - 1

    def _mark(self) -> None:
        """Keep the model in work, and go on from what was kept."""
        model, is_stuck = self.model, self.place.is_stuck
        self._leave(discard=False)
        self.place.current, self.place.is_stuck = self.marks.add(self.place, model), is_stuck
        self.marks.write(self.place)
        self.work = 0
        self.mapper = self._new_mapper()
        self._take_up(self.marks.model(self.place.current))

    def _new_mapper(self) -> Any:
        """Return a mapper that knows which photos are in the models done, and nothing else."""
        mapper = pycolmap.IncrementalMapper(self.cache)
        for name in self.place.models:
            mapper.begin_reconstruction(self.marks.model(name))
            mapper.end_reconstruction(False)
        return mapper

    def _take_up(self, model: Any) -> None:
        self.model = model
        self.mapper.begin_reconstruction(model)

    def _leave(self, *, discard: bool) -> None:
        self.mapper.end_reconstruction(discard)
        self.model, self.place.current, self.place.is_stuck = None, None, False

    def _note_size(self) -> None:
        self.place.n_frames, self.place.n_points = self.model.num_reg_frames(), self.model.num_points3D()
