"""What a job will take, before it is started: from what like ones took here, else by trying it for some seconds."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import DoesNotFit
from api.models import Photo, StageCache
from api.queue import CPU_QUEUE, GPU_QUEUE
from api.services import cache, jobs, photos, routing, system, timings, videos
from api.settings import Settings
from api.storage import Storage
from engine.containers import USUAL_SIZE
from engine.errors import CapacityError, InternalError, from_dict
from engine.options import STAGES, RunOptions

NO_ENGINE = "Is SPLATWORKS_ENGINE_COMMAND right?"
LENDERS = 3  # photos that lend their colours to a trial
NICE = 10
CPU_SHARE = 8  # processors that a trial may use for its whole time


@dataclass(frozen=True)
class Given:
    """The photos of a job that may be: sizes (width, height), some of them with their bytes' place, stages whose result is kept."""

    sizes: list[tuple[int, int]]
    lenders: list[tuple[str, str]]  # (file name, storage key)
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StageEstimate:
    """Seconds of a stage and most memory; a stage whose result is kept takes none."""

    name: str
    p50_s: float
    p90_s: float
    peak_memory_bytes: int
    is_kept: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a job takes. ``basis``: history (of jobs here) or trial (on this machine)."""

    basis: str
    n_photos: int
    stages: list[StageEstimate]
    disk_bytes: int

    @property
    def p50_s(self) -> float:
        """Seconds that half of jobs like this one take less than."""
        return sum(stage.p50_s for stage in self.stages)

    @property
    def p90_s(self) -> float:
        """Seconds that nine tenths of jobs like this one take less than."""
        return sum(stage.p90_s for stage in self.stages)

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory of any stage that runs."""
        return max((stage.peak_memory_bytes for stage in self.stages if not stage.is_kept), default=0)


def given_by(session: Session, settings: Settings, capture_id: str, options: RunOptions) -> Given:
    """Return what is known of a capture's photos, and of its videos as so many photos; raises what starting a job over them would."""
    usable = jobs.usable_photos(session, settings, capture_id, options)
    stills = [photo for photo in usable if videos.kind_of(photo) == "photo"]
    sizes = [size for photo in usable for size in videos.count_photos([photo], options) * [size_of(photo)]]
    keys = cache.keys(photos.given(session, capture_id), options)
    found = set(session.scalars(select(StageCache.key).where(StageCache.key.in_(keys.values()))))
    shown = [stills[index * len(stills) // LENDERS] for index in range(min(LENDERS, len(stills)))]
    kept = frozenset(stage for stage, key in keys.items() if key in found)
    return Given(sizes, [(file_name(n, photo), photo.storage_key or "") for n, photo in enumerate(shown)], kept)


def size_of(photo: Photo) -> tuple[int, int]:
    """Return the width and height of a photo, or of a video's frames; most videos that do not say theirs are of this size."""
    return photo.width or USUAL_SIZE[0], photo.height or USUAL_SIZE[1]


def file_name(number: int, photo: Photo) -> str:
    """Return a name under which a photo lends its colours."""
    return f"{number}{PurePosixPath(photo.name).suffix}"


def from_history(session: Session, options: RunOptions, given: Given) -> Estimate | None:
    """Return what like jobs took here; None until every stage has been timed often enough."""
    workers = [row for row in system.processes(session) if row.kind == "worker"]
    has_card = any(routing.listens(row, GPU_QUEUE) for row in workers)
    stages, disk = [], 0
    for name in STAGES:
        queue = GPU_QUEUE if has_card and name in routing.GPU_STAGES else CPU_QUEUE
        work = timings.work_of(name, options, len(given.sizes))
        found = timings.spread(session, name, queue, timings.Like(options.preset, work))
        if found is None:
            return None
        disk = max(disk, found.disk_bytes)
        stages.append(StageEstimate(name, found.p50_s, found.p90_s, found.peak_memory_bytes))
    return Estimate("history", len(given.sizes), with_kept(stages, given), disk)


def with_kept(stages: list[StageEstimate], given: Given) -> list[StageEstimate]:
    """Return the stages, those whose result is kept without time."""
    return [StageEstimate(stage.name, 0.0, 0.0, 0, is_kept=True) if stage.name in given.kept else stage for stage in stages]


def works_here(session: Session) -> bool:
    """Tell whether this machine is one that jobs run on, so that its memory and disk are what counts."""
    hosts = {row.host.partition("/")[0] for row in system.processes(session) if row.kind == "worker"}
    return not hosts or socket.gethostname() in hosts


def by_trial(settings: Settings, storage: Storage, options: RunOptions, given: Given) -> Estimate:
    """Return what the engine says after trying some steps on this machine; one at a time.

    Raises ``CapacityError`` when another trial runs or it takes too long, and what the engine raises for these photos and options.
    """
    with only_one(settings), tempfile.TemporaryDirectory(prefix="splatworks-estimate-") as scratch:
        root = Path(scratch)
        (root / "photos").mkdir()
        for name, key in given.lenders:
            storage.fetch(key, root / "photos" / name)
        (root / "sizes.json").write_text(json.dumps(given.sizes))
        (root / "options.json").write_text(json.dumps(jobs.as_json(options)))
        figures = asked_of_engine(settings, root)
    stages = [
        StageEstimate(name, figure["seconds"], figure["high"], figure["peak_memory_bytes"]) for name, figure in figures["stages"].items()
    ]
    return Estimate("trial", len(given.sizes), with_kept(stages, given), figures["disk_bytes"])


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the right to try; ``CapacityError`` when somebody else does. It ends with the process."""
    with (settings.data_dir / "estimate.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CapacityError(
                "capacity.busy", "Busy", "another estimate is being made on this machine", "Ask again in half a minute."
            ) from error
        yield


def asked_of_engine(settings: Settings, root: Path) -> dict[str, Any]:
    """Return the engine's figures for the photos and options in a folder."""
    arguments = ["estimate", str(root / "photos"), "--json", "--sizes", str(root / "sizes.json"), "--options", str(root / "options.json")]
    try:
        child = subprocess.Popen(
            [*settings.engine_command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise CapacityError("capacity.cannot_start", "Engine missing", f"the engine does not start: {error}", NO_ENGINE) from error
    try:
        hold_back(child.pid, settings.estimate_s)
        said, _ = child.communicate(timeout=settings.estimate_s)
    except subprocess.TimeoutExpired as error:
        detail = f"trying it out took longer than {settings.estimate_s:g} s"
        raise CapacityError("capacity.slow_estimate", "Too slow", detail, "Ask again when the machine is less busy.") from error
    finally:
        end(child)
    return understood(said, child.returncode)


def hold_back(pid: int, seconds: float) -> None:
    """Let jobs and requests go first: a low priority, the first to go when memory runs out, an end even when nobody waits any more."""
    with contextlib.suppress(OSError):  # it may have ended already
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError):
            limit = int(seconds * CPU_SHARE) + 1
            resource.prlimit(pid, resource.RLIMIT_CPU, (limit, limit))


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a trial."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def understood(said: bytes, code: int) -> dict[str, Any]:
    """Return the figures that the engine wrote; raises the error that it wrote instead."""
    try:
        figures = json.loads(said)
    except ValueError:
        figures = None
    if not isinstance(figures, dict):
        if code == -signal.SIGKILL:
            raise CapacityError(
                "capacity.killed",
                "Out of memory",
                "trying it out was killed, as the kernel does when memory runs out",
                "Take a smaller preset.",
            )
        raise InternalError(
            "internal.estimate_failed",
            "No estimate",
            f"the engine ended with {code} and gave no figures",
            "Run `splatworks estimate FOLDER` on that machine; it says more.",
        )
    if "error" in figures:
        error = from_dict(figures["error"])
        if isinstance(error, CapacityError):  # it was asked what this machine can do, and this it cannot
            raise DoesNotFit(error.code, error.title, error.detail, error.hint, error.data)
        raise error
    return figures


def check_fits(settings: Settings, found: Estimate) -> None:
    """Raise ``DoesNotFit`` when this machine has too little memory, or too little free disk, for a job."""
    memory = machine_memory_bytes()
    if found.peak_memory_bytes > memory:
        raise DoesNotFit(
            "capacity.does_not_fit",
            "Too large for this machine",
            f"the job needs {gigabytes(found.peak_memory_bytes)} of memory and this machine has {gigabytes(memory)}",
            "Take a smaller preset, fewer photos or a smaller max_side.",
            {"what": "memory", "needed_bytes": found.peak_memory_bytes, "has_bytes": memory},
        )
    free = shutil.disk_usage(settings.data_dir).free - settings.min_free_bytes
    if found.disk_bytes > free:
        raise DoesNotFit(
            "capacity.does_not_fit",
            "Too large for this disk",
            f"the job needs {gigabytes(found.disk_bytes)} of disk and {gigabytes(max(0, free))} may be used",
            "Free some space, or take a smaller preset or fewer photos.",
            {"what": "disk", "needed_bytes": found.disk_bytes, "has_bytes": max(0, free)},
        )


def machine_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this machine, or the container around this process, has."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        group = (root / "proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        total = min(total, int((root / "sys/fs/cgroup" / group / "memory.max").read_text()))
    return total


def gigabytes(size_bytes: int) -> str:
    """Return bytes as people read them."""
    return f"{size_bytes / 1e9:.1f} GB"
