"""What outlives an attempt at poses: features and matches in databases, with how many pairs have been compared; models; straight photos.

No database that has been mapped from is changed: whoever compares more pairs does it in a copy. So a stage that was killed gives the bytes
of one that was left alone.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import engine.unfinished
from engine.options import RunOptions
from engine.workspace import Workspace, hash_file, replacing, write_json

STAGE = "poses"
DATABASE = "database.db"
DATABASES = ("database.", "completed-", "loose.")
# Pieces (engine.unfinished) and the folders of their files begin with one of these.
STRAIGHT = "straight"
TRIANGULATED = "triangulated"
PIECES = ("attempt-", "mark-", STRAIGHT, TRIANGULATED)
# Neither changes features or matches: a run that was given too little time goes on when it is given more.
_WITHOUT_EFFECT = ("time_limit_s", "min_registered", "target_registered", "max_train_side")


@contextlib.contextmanager
def unfinished(workspace: Workspace, options: RunOptions) -> Iterator[Path]:
    """Yield the scratch folder of an attempt, with the database of the one before it (see ``engine.unfinished``)."""
    with engine.unfinished.unfinished(workspace.root, STAGE, _made_from(workspace, options)) as folder:
        _clean(folder)
        yield folder


def is_begun(database: Path) -> bool:
    """Tell whether a database with all photos is there."""
    return database.is_file()


def read_compared(database: Path, n_pairs: int) -> int:
    """Return how many of ``n_pairs`` pairs, in their order, need no further look."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(_compared(database).read_text())
        return int(said["compared"]) if said["pairs"] == n_pairs else 0
    return 0


def write_compared(database: Path, n_compared: int, n_pairs: int) -> None:
    """Note that the first pairs need no further look."""
    write_json(_compared(database), {"compared": n_compared, "pairs": n_pairs})


def _compared(database: Path) -> Path:
    return database.with_suffix(".compared.json")


def copied(database: Path, name: str, prepare: Callable[[Path], None] = lambda _copy: None) -> Path:
    """Return the copy of a database that goes by this name, for more pairs to be compared in; made and prepared if it is not there."""
    copy = database.with_name(f"{name}.db")
    if not copy.is_file():
        with replacing(copy) as aside:
            shutil.copyfile(database, aside)
            prepare(aside)
    return copy


def _made_from(workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    poses = {name: value for name, value in asdict(options.poses).items() if name not in _WITHOUT_EFFECT}
    given = sorted((path.name, hash_file(path)) for path in workspace.given.rglob("*") if path.is_file())
    return {"photos": hash_file(workspace.images_index), "poses": poses, "given": given, "seed": options.seed}


def _clean(folder: Path) -> None:
    """Remove scratch, and databases that are damaged: COLMAP does not wait for the disk, so a power cut may tear them."""
    databases = [path for path in folder.glob("[!.]*.db") if path.name.startswith(DATABASES)]
    kept = {name for path in databases if _is_whole(path) for name in _names_of(path)}
    for path in folder.iterdir():
        if path.name in kept or path.name.startswith(PIECES):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _names_of(database: Path) -> set[str]:
    return {database.name, f"{database.name}-wal", f"{database.name}-shm", _compared(database).name}


def _is_whole(database: Path) -> bool:
    if not database.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            return bool(opened.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
