"""What a stage made, as one file in storage, and back: another job, or another machine, need not make it again."""

import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from api.db import Database
from api.errors import StorageAway
from api.models import Job, StageCache
from api.services import cache
from api.services.cache import Packed
from api.storage import Storage
from engine.workspace import ARTEFACTS, Stamp, Workspace, flush, hash_file, read_stamp
from worker.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelf:
    """A job at work in its folder; ``check`` raises when it should stop."""

    runtime: Runtime
    job: Job
    workspace: Workspace
    keys: dict[str, str]
    check: Callable[[], None]


class DamagedError(Exception):
    """What lies in storage is not what was put there."""


def is_whole(shelf: Shelf, stage: str) -> bool:
    """Tell whether the folder holds the stage's result for this job."""
    stamp = read_stamp(shelf.workspace, stage)
    return stamp is not None and stamp.key == shelf.keys[stage]


def take(shelf: Shelf, stage: str) -> Stamp | None:
    """Bring a stage's result from storage into the folder; None when there is none, or none that is whole: then it has to run."""
    if stage not in ARTEFACTS:
        return None
    with shelf.runtime.db.reading() as session:
        entry = cache.find(session, shelf.job, stage, shelf.keys[stage])
    if entry is None:
        return None
    try:
        unpack(shelf, stage, entry)
    except (DamagedError, tarfile.TarError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        log.warning("job %s: what was kept of %s is of no use (%s); it runs again", shelf.job.id, stage, error)
        drop(shelf.runtime.db, shelf.runtime.storage, entry)
        return None
    with shelf.runtime.db.writing() as session:
        cache.note_use(session, entry)
    return read_stamp(shelf.workspace, stage)


def unpack(shelf: Shelf, stage: str, entry: StageCache) -> None:
    """Put a kept result in its place, the stamp last, so that a result that has one is whole."""
    root = shelf.workspace.root
    packed, aside = root / f".{stage}.tar", root / f".{stage}.taken"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shelf.runtime.storage.fetch(entry.storage_key, packed)
        shelf.check()
        if hash_file(packed) != entry.sha256:
            raise DamagedError("its checksum is another")
        open_tar(packed, aside, stage, shelf.check)
        if (stamp := read_stamp(Workspace(aside, aside), stage)) is None or stamp.key != shelf.keys[stage]:
            raise DamagedError("its stamp is another")
        put_in_place(shelf.workspace, aside, stage)
    finally:
        packed.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)


def put_in_place(workspace: Workspace, aside: Path, stage: str) -> None:
    """Replace what the folder has of a stage by what lies aside."""
    workspace.stamp(stage).unlink(missing_ok=True)
    for name in ARTEFACTS[stage]:
        remove(workspace.root / name)
        if (aside / name).exists():
            (aside / name).replace(workspace.root / name)
    flush(workspace.root)
    workspace.stamp(stage).unlink(missing_ok=True)
    (aside / f"{stage}.json").replace(workspace.stamp(stage))
    flush(workspace.root)


def open_tar(packed: Path, aside: Path, stage: str, check: Callable[[], None]) -> None:
    """Unpack regular files and folders with the names that the stage's results have; ``DamagedError`` at anything else."""
    with tarfile.open(packed, "r:") as archive:
        for member in archive:
            check()
            target = aside / checked_name(member.name, stage)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            source = archive.extractfile(member) if member.isreg() else None
            if source is None:
                raise DamagedError(f"{member.name!r} is neither a file nor a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("xb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())


def checked_name(name: str, stage: str) -> PurePosixPath:
    """Return a member's path; ``DamagedError`` when it could lead elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0] not in (*ARTEFACTS[stage], f"{stage}.json"):
        raise DamagedError(f"{name!r} does not belong to {stage}")
    return path


def keep(shelf: Shelf, stage: str) -> Packed | None:
    """Store what a stage has just made; None where that is not wanted, there already or does not fit: the job goes on without."""
    settings, key = shelf.runtime.settings, shelf.keys[stage]
    if stage not in ARTEFACTS or settings.cache_bytes == 0 or not is_whole(shelf, stage):
        return None
    with shelf.runtime.db.reading() as session:
        if cache.find(session, shelf.job, stage, key) is not None:
            return None
    packed = shelf.workspace.root / f".{stage}.tar"
    try:
        pack(shelf.workspace, stage, packed, shelf.check)
        size_bytes = packed.stat().st_size
        if size_bytes > settings.cache_bytes:
            return None
        stored = Packed(cache.new_place(key), hash_file(packed), size_bytes)
        shelf.check()
        shelf.runtime.storage.put(stored.storage_key, packed, move=True)
        return stored
    except (OSError, StorageAway) as error:
        log.warning("job %s: the result of %s is not kept for later: %s", shelf.job.id, stage, error)
        return None
    finally:
        packed.unlink(missing_ok=True)


def pack(workspace: Workspace, stage: str, packed: Path, check: Callable[[], None]) -> None:
    """Write a stage's files and folders into one file: photos do not shrink further, so nothing is compressed."""
    with tarfile.open(packed, "w:") as archive:
        for name in (*ARTEFACTS[stage], f"{stage}.json"):
            root = workspace.root / name
            for path in [root, *sorted(root.rglob("*"))] if root.exists() else []:
                check()
                add(archive, path, path.relative_to(workspace.root).as_posix())


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file or folder, and of its properties only the size: times and owners are nobody's business."""
    member = tarfile.TarInfo(name)
    if path.is_dir():
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
        return
    with path.open("rb") as handle:
        member.size = os.fstat(handle.fileno()).st_size
        archive.addfile(member, handle)


def drop(db: Database, storage: Storage, entry: StageCache) -> None:
    """Remove an entry, the row first: whoever reads a row whose bytes are gone finds that out and makes them again."""
    with db.writing() as session:
        is_ours = cache.forget(session, entry)
    if is_ours:
        clear_place(storage, entry.storage_key)


def clear_place(storage: Storage, storage_key: str) -> None:
    """Remove the bytes of an entry that is no more; what stays because the storage is away is found by a later sweep."""
    try:
        storage.delete_prefix(storage_key.rpartition("/")[0])
    except (OSError, StorageAway) as error:
        log.warning("%s stays until the next sweep: %s", storage_key, error)


def remove(path: Path) -> None:
    """Remove a file, a folder or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
