"""From verified pairs to poses: attempts, each only if the ones before left too many photos out (research/sfm.md B7).

What an attempt found is kept when it is done, and where it is in the middle (``engine.sfm.incremental``): one killed costs no more.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pycolmap

from engine.errors import CapacityError
from engine.options import PosesOptions
from engine.sfm.context import Context, Report
from engine.sfm.incremental import Incremental, Task
from engine.sfm.mapper_options import NARROW_DEG, How, calibrate, global_options, incremental_options
from engine.sfm.marks import Marks
from engine.sfm.matching import ViewGraph, forget_matches, match, read_view_graph
from engine.sfm.models import MIN_MODEL_SIZE, Model, best_model, write_model
from engine.sfm.opening import WIDEST_DEG, opening_angle_deg
from engine.sfm.pairs import Pairs
from engine.sfm.unfinished import copied
from engine.unfinished import Pieces
from engine.workspace import hash_json

# Lowe's ratio of the last attempt: finds more matches between photos that look less alike, at the price of more false ones.
LOOSE_RATIO = 0.9
STRICT_RATIO = 0.8

# Pairs that may be compared to find a place for photos left out: a few minutes on two cores.
_PAIRS_TO_COMPLETE = 3000

# Maps anew, told what it is called; returns reconstructions of pycolmap.
Work = Callable[[str], list[Any]]


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
    """Runs attempts, keeps the best model and the list of what was tried; ``pieces`` holds what outlives this process."""

    def __init__(self, context: Context, options: PosesOptions, report: Report, pieces: Pieces) -> None:
        self.context = context
        self.options = options
        self.report = report
        self.pieces = pieces
        self.best = Model()
        self.mapper = "none"
        self.attempts: list[Attempt] = []
        self.opening_deg = WIDEST_DEG
        self._best_name = ""

    def run(self, database: Path, pairs: Pairs, graph: ViewGraph) -> ViewGraph:
        """Run the chain until ``target_registered`` is met; return the view graph that the best model came from."""
        enough = self.options.target_registered * len(self.context.photos)
        started = time.monotonic()
        self.opening_deg = opening_angle_deg(database)
        measured_s = time.monotonic() - started
        if self.opening_deg < NARROW_DEG:
            note = f"most photos see their points at less than {self.opening_deg:.1f} degrees"
            self.attempts.append(Attempt("incremental", 0, 0, 0, 0.0, round(measured_s, 3), note))
        else:
            self._attempt("incremental", graph, enough, lambda mapper: self._incremental(database, "strict", mapper), measured_s)
        self._attempt("incremental narrow", graph, enough, lambda mapper: self._incremental(database, "narrow", mapper))
        self._attempt("global", graph, enough, lambda _mapper: self._global(database))
        self._attempt("incremental relaxed", graph, enough, lambda mapper: self._incremental(database, "relaxed", mapper))
        graph = self._complete(database, pairs, graph)
        if len(self.best) >= enough or len(self.context.photos) > self.options.exhaustive_below or graph.n_verified == 0:
            return graph
        return self._match_again(copied(database, "loose", forget_matches), pairs, graph)

    def _match_again(self, loose: Path, pairs: Pairs, graph: ViewGraph) -> ViewGraph:
        started, before = time.monotonic(), len(self.best)
        if not self._match_more(loose, pairs, LOOSE_RATIO):
            return graph
        wider = read_view_graph(loose, len(pairs))
        enough = self.options.target_registered * len(self.context.photos)
        spent = time.monotonic() - started
        self._attempt("incremental relaxed, ratio 0.9", wider, enough, lambda mapper: self._incremental(loose, "relaxed", mapper), spent)
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
        if not missing or len(self.best) < len(names) / 2:
            return graph
        more = copied(database, f"completed-{hash_json(missing)[:8]}")
        if not self._match_more(more, missing, STRICT_RATIO):
            return graph
        wider = read_view_graph(more, len(pairs) + len(missing))
        spent, start = time.monotonic() - started, self._folder(self._best_name)
        self._attempt(
            f"{self.mapper}, completed", wider, len(names), lambda mapper: self._incremental(more, "strict", mapper, start), spent
        )
        return wider

    def _attempt(self, mapper: str, graph: ViewGraph, enough: float, work: Work, spent_s: float = 0.0) -> None:
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
        name = f"attempt-{len(self.attempts)}"
        model, seconds = self._outcome(mapper, name, work)
        gain = max(0, len(model) - len(self.best))
        seconds = round(seconds + spent_s, 3)
        self.attempts.append(Attempt(mapper, len(model), gain, model.n_points, round(model.error_px, 4), seconds))
        if gain:
            self.best, self.mapper, self._best_name = model, mapper, name

    def _outcome(self, mapper: str, name: str, work: Work) -> tuple[Model, float]:
        """Return what an attempt finds, as it is read from disk, and its seconds. One that was cut short by the end of time is not kept."""
        said = self.pieces.get(name, self._made_from(mapper))
        if said is None:
            self.report(0.2 * len(self.attempts), f"placing the cameras ({mapper})")
            started = time.monotonic()
            model, folder = best_model(work(mapper)), self._folder(name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if len(model) > len(self.best):
                write_model(model.reconstruction, folder)
            said = asdict(replace(model, reconstruction=None)) | {"seconds": time.monotonic() - started}
            if not self._has_no_time_left():
                self.pieces.put(name, said, sorted(folder.iterdir()), self._made_from(mapper))
                self._marks(mapper).forget()
        seconds = float(said.pop("seconds"))
        reconstruction = pycolmap.Reconstruction(self._folder(name)) if len(said["names"]) > len(self.best) else None
        return Model(**(said | {"reconstruction": reconstruction})), seconds

    def _made_from(self, mapper: str) -> dict[str, Any]:
        return {"mapper": mapper, "after": [attempt.mapper for attempt in self.attempts]}

    def _folder(self, name: str) -> Path:
        return self.pieces.folder / name

    def _match_more(self, database: Path, pairs: Pairs, max_ratio: float) -> bool:
        """Compare further pairs; False when the time ran out, which only ends the search for something better."""
        try:
            match(self.context, database, pairs, max_ratio, self._on_compared)
        except CapacityError:
            if not self._is_usable():
                raise
            return False
        return True

    def _on_compared(self, _share: float, words: str) -> None:
        self.report(0.8, words)
        self.pieces.headway.keep()

    def _is_usable(self) -> bool:
        return len(self.best) >= max(MIN_MODEL_SIZE, self.options.min_registered * len(self.context.photos))

    def _is_out_of_time(self) -> bool:
        """With a usable model in hand the end of time ends the search, without one the stage."""
        if not self._is_usable():
            self.context.deadline.check("placing the cameras")
        return self._has_no_time_left()

    def _has_no_time_left(self) -> bool:
        return self.context.deadline.remaining_s() <= 0

    def _incremental(self, database: Path, how: How, mapper: str, start: Path | None = None) -> list[Any]:
        options = incremental_options(self.context, how, self.opening_deg)
        options.multiple_models = start is None
        task = Task(database, self.context.images, options, self._has_no_time_left, self._on_placed, start)
        return Incremental(task, self._marks(mapper)).run()

    def _marks(self, mapper: str) -> Marks:
        return Marks(self.pieces, mapper, self._made_from(mapper))

    def _on_placed(self, count: int) -> None:
        """Tell of a photo that was placed: progress for the user, and a moment at which a stop request gets through."""
        share = min(count, len(self.context.photos)) / len(self.context.photos)
        self.report(0.2 * (len(self.attempts) + share), f"placing the cameras, step {count}")

    def _global(self, database: Path) -> list[Any]:
        # Calibration rewrites focal lengths and pairs, so it works on a copy.
        calibrated = self.context.folder / "calibrated.db"
        shutil.copyfile(database, calibrated)
        calibrate(calibrated, self.context.seed)
        output = Path(tempfile.mkdtemp(dir=self.context.folder))
        found = pycolmap.global_mapping(calibrated, self.context.images, output, global_options(self.context.seed))
        return [found[key] for key in sorted(found)]
