"""What a stage has done outlives the attempt that did it: whoever comes after a killed one goes on from there, to the same bytes.

The folder ``.unfinished-STAGE-KEY/`` of a workspace holds it. KEY names all that it depends on, so what belongs to other photos or options
is never used. Most stages keep it piece by piece: ``NAME.json``, written last, says what is known of a piece and which files it has. The
folder goes once the stage is stamped (``clear``).
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import Cancelled, CapacityError
from engine.events import Checkpointed, OnEvent
from engine.workspace import ENGINE_VERSION, Workspace, flush, hash_file, hash_json, write_json

TELL_EVERY_S = 10.0
_PREFIX = ".unfinished"
# Checkpoints of training lie beside what it makes, under a key of their own (engine.train.checkpoint).
_ELSEWHERE = {"train": "train/checkpoint-*.pt"}
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@contextlib.contextmanager
def unfinished(root: Path, stage: str, made_from: Any) -> Iterator[Path]:
    """Yield the folder of an attempt, in the workspace at ``root``, with what the one before it left there.

    ``made_from`` (JSON) is all that the work depends on; what was made from anything else goes. The folder stays when the attempt ends
    well, is killed, stopped (``Cancelled``) or starved (``CapacityError``). It goes when anything else breaks it: what did may lie in it.
    """
    key = hash_json({"version": ENGINE_VERSION, "stage": stage, "made_from": made_from})
    folder = root / f"{_PREFIX}-{stage}-{key[:16]}"
    for leftover in root.glob(f"{_PREFIX}-{stage}-*"):
        if leftover != folder:
            shutil.rmtree(leftover, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    except (Cancelled, CapacityError):
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def clear(workspace: Workspace, stage: str) -> None:
    """Remove what attempts at a stage left: its stamp is on the disk, so that nobody goes on from there any more."""
    for folder in workspace.root.glob(f"{_PREFIX}-{stage}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in workspace.root.glob(_ELSEWHERE[stage]) if stage in _ELSEWHERE else ():
        path.unlink(missing_ok=True)


@dataclass
class Headway:
    """Counts what is safe on disk and says so every ``TELL_EVERY_S``: workers lost since then are lost in vain (api.services.headway)."""

    stage: str
    on_event: OnEvent
    n_kept: int = 0
    told_at: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        """Whether it is time to say something."""
        return time.monotonic() - self.told_at >= TELL_EVERY_S

    def keep(self) -> None:
        """Count one more. The listener may raise ``Cancelled``; what is kept is whole then."""
        self.n_kept += 1
        if self.is_due:
            self.told_at = time.monotonic()
            self.on_event(Checkpointed(self.stage, self.n_kept))


@dataclass(frozen=True)
class Pieces:
    """The finished pieces in an attempt's folder, by name."""

    folder: Path
    headway: Headway

    def has(self, name: str) -> bool:
        """Return whether anything is kept under this name, whole or not."""
        return self._said(name).exists()

    def get(self, name: str, made_from: Any = None) -> dict[str, Any] | None:
        """Return what is known of a piece; None unless it was made from the same (JSON) and all its files are whole."""
        # Whatever a power cut made of the file: then the piece is made again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            said = json.loads(self._said(name).read_text())
            files = {self.folder.parent / path: sha256 for path, sha256 in said["files"].items()}
            if said["made_from"] == hash_json(made_from) and all(hash_file(path) == sha256 for path, sha256 in files.items()):
                self.headway.n_kept += 1
                value: dict[str, Any] = said["value"]
                return value
        return None

    def put(self, name: str, value: dict[str, Any], files: Iterable[Path] = (), made_from: Any = None) -> None:
        """Keep a piece: what is known of it (JSON), its files, anywhere in the workspace, and what it was made from (JSON)."""
        sums = {}
        for path in files:
            flush(path)
            sums[str(path.relative_to(self.folder.parent))] = hash_file(path)
        write_json(self._said(name), {"value": value, "files": sums, "made_from": hash_json(made_from)})
        self.headway.keep()

    def drop(self, name: str) -> None:
        """Forget a piece; its files are the caller's."""
        self._said(name).unlink(missing_ok=True)

    def _said(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def place(files: Iterable[Path], folder: Path) -> None:
    """Give files a second name in a folder: their first is for whoever must go on when this attempt is killed before the stage is whole."""
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(path, folder / path.name)
