"""Features and matches outlive the attempt that made them: the database, and how many pairs have been compared.

The mapper works on a copy, because it may add pairs of its own: a stage that was killed gives the bytes of one that was left alone.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import engine.unfinished
from engine.options import RunOptions
from engine.workspace import Workspace, hash_file, write_json

STAGE = "poses"
DATABASE = "database.db"
MAPPED = "mapped.db"
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


def copy_to_map(database: Path) -> Path:
    """Return a copy of the database for the mapper to add to."""
    copy = database.with_name(MAPPED)
    shutil.copyfile(database, copy)
    return copy


def _made_from(workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    poses = {name: value for name, value in asdict(options.poses).items() if name not in _WITHOUT_EFFECT}
    given = sorted((path.name, hash_file(path)) for path in workspace.given.rglob("*") if path.is_file())
    return {"photos": hash_file(workspace.images_index), "poses": poses, "given": given, "seed": options.seed}


def _clean(folder: Path) -> None:
    """Remove scratch, and the database as well when it is damaged: COLMAP does not wait for the disk, so a power cut may tear it."""
    database = folder / DATABASE
    names = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", _compared(database).name} if _is_whole(database) else set()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in names:
            path.unlink()


def _is_whole(database: Path) -> bool:
    if not database.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            return bool(opened.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
