"""What outlives a compression that is killed: the tally of the views, and each try at a file that was written and checked."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.compress.prune import Contribution, Tally
from engine.gaussians import Gaussians
from engine.unfinished import Pieces
from kernels.step import Device

TALLY = "tally"


def read_tally(pieces: Pieces, n: int, device: Device) -> Tally:
    """Return the tally of ``n`` gaussians that an attempt left, or an empty one."""
    said = pieces.get(TALLY)
    if said is None:
        return Tally.begun(n, device)
    sums, peaks = np.load(_tally_file(pieces, said["views"]), allow_pickle=False)
    return Tally.of(Contribution(sums, peaks), said["views"], device)


def write_tally(pieces: Pieces, tally: Tally) -> None:
    """Keep a tally in place of the one before it, which stays until this one is whole."""
    path, given = _tally_file(pieces, tally.n_views), tally.contribution
    np.save(path, np.stack([given.sums, given.peaks]))
    pieces.put(TALLY, {"views": tally.n_views}, [path])
    for old in pieces.folder.glob(f"{TALLY}-*.npy"):
        if old != path:
            old.unlink()


def _tally_file(pieces: Pieces, n_views: int) -> Path:
    return pieces.folder / f"{TALLY}-{n_views}.npy"


@dataclass(frozen=True)
class Tries:
    """Files written and checked. ``made_from`` names the gaussians in them; ``tell`` hears a file's name before it is written."""

    pieces: Pieces
    made_from: str
    tell: Callable[[str], None]

    def of(self, name: str, file: str, write: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
        """Return a file and its figures: those that an attempt left under the try's ``name``, else what ``write`` makes and returns."""
        path = self.pieces.folder / name / file
        figures = self.pieces.get(name, self.made_from)
        if figures is None:
            self.tell(file)
            path.parent.mkdir(exist_ok=True)
            figures = write(path)
            self.pieces.put(name, figures, [path], self.made_from)
        return path, figures


def hash_scene(gaussians: Gaussians, contribution: Contribution) -> str:
    """Return a key that is equal when files of these gaussians would be: the same bits, which on a card may differ from run to run."""
    digest = hashlib.sha256()
    for array in (*vars(gaussians).values(), contribution.sums):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
