"""Where incremental mapping was last: the model in work and those done, as they lie on disk, for whoever goes on from there."""

import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pycolmap

from engine.sfm.models import write_model
from engine.unfinished import Pieces


@dataclass
class Place:
    """How far mapping is.

    Which search for a first pair and which try of it; the names of the models done and of the one in work, how large that was when all of
    it was last adjusted, and whether no photo could be added since; how many photos were placed and models written so far.
    """

    search: int = 0
    trial: int = 0
    models: list[str] = field(default_factory=list)
    current: str | None = None
    n_frames: int = 0
    n_points: int = 0
    is_stuck: bool = False
    n_placed: int = 0
    n_written: int = 0


@dataclass(frozen=True)
class Marks:
    """The mark of one way of mapping among the pieces; ``made_from`` (JSON) is all that the models depend on beside photos and options."""

    pieces: Pieces
    mapper: str
    made_from: Any = None

    @property
    def name(self) -> str:
        """Name of the piece; the folders of models begin with it."""
        return "mark-" + re.sub(r"[^a-z0-9]+", "-", self.mapper)

    def read(self) -> Place | None:
        """Return the place that was marked, None where there is none or it is not whole; models that it does not name are removed."""
        said = self.pieces.get(self.name, self.made_from)
        place = None if said is None else Place(**said)
        self._remove(place or Place())
        return place

    def write(self, place: Place) -> None:
        """Mark a place instead of the one before, whose models go unless this one has them too."""
        self.pieces.put(self.name, asdict(place), [path for name in _names(place) for path in self._files(name)], self.made_from)
        self._remove(place)

    def forget(self) -> None:
        """Remove the mark and its models: the outcome is kept elsewhere."""
        self.pieces.drop(self.name)
        self._remove(Place())

    def add(self, place: Place, model: Any) -> str:
        """Write a model; return its name."""
        place.n_written += 1
        name = f"{self.name}-m{place.n_written}"
        self._folder(name).mkdir()
        write_model(model, self._folder(name))
        return name

    def model(self, name: str) -> Any:
        """Read a model."""
        return pycolmap.Reconstruction(self._folder(name))

    def _files(self, name: str) -> list[Path]:
        return sorted(self._folder(name).iterdir())

    def _folder(self, name: str) -> Path:
        return self.pieces.folder / name

    def _remove(self, place: Place) -> None:
        for path in self.pieces.folder.glob(f"{self.name}-m[0-9]*"):
            if path.name not in _names(place):
                shutil.rmtree(path)


def _names(place: Place) -> list[str]:
    return [*place.models, *([] if place.current is None else [place.current])]
