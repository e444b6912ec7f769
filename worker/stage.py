"""One doorbell answered: claim the job, run its stage in a child, report, publish, hand on. Everything a worker does is here."""

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from api.errors import StorageAway
from api.models import Job
from api.services import assets, jobs, leases, tallies, timings
from api.services import cache as kept
from api.services.leases import Claim, Finished, LeaseLostError
from api.services.timings import Measured
from api.settings import Settings
from engine.errors import Cancelled, CapacityError, InternalError, SplatError
from engine.options import STAGES
from engine.workspace import Workspace, read_stamp
from worker import cache, files, liveness
from worker.cache import Shelf
from worker.child import Child, kill_left_behind, log_tail, note_group
from worker.heartbeat import Heartbeat
from worker.listen import Listener, Source
from worker.runtime import Runtime
from worker.watch import watched

TICK_S = 0.25
GROUP = ".group"
log = logging.getLogger(__name__)


class WorkerStoppingError(Exception):
    """Raised when this worker shuts down; the job goes back uncounted."""


@dataclass(frozen=True)
class Work:
    """A claimed job with what watches over it."""

    runtime: Runtime
    claim: Claim
    beat: Heartbeat
    log: IO[bytes]

    def check(self) -> None:
        """Raise when the work should end: cancelled, taken away, worker stopping."""
        if self.beat.is_lost:
            raise LeaseLostError(self.claim.job_id)
        if self.beat.is_cancelled:
            raise Cancelled.by_request()
        if self.runtime.stop.is_set():
            raise WorkerStoppingError


def run(runtime: Runtime, job_id: str, queue: str) -> None:
    """Answer a doorbell: work on the job as long as its stages belong to this queue. An old or double message does nothing."""
    with runtime.db.writing() as session:
        # A holder on this machine that is dead need not be waited for.
        leases.release_dead(session, runtime.settings, liveness.host_name(), liveness.is_alive)
        if files.is_short_of_disk(runtime.settings):
            jobs.wait_for_disk(session, runtime.settings, job_id)
            return
        claim = leases.claim_next(session, runtime.settings, job_id, queue, liveness.holder())
    while claim is not None:
        with watched(runtime, claim):
            claim = run_claimed(runtime, claim)


def run_claimed(runtime: Runtime, claim: Claim) -> Claim | None:
    """Run the claimed stage and write how it ended; returns the claim on the next stage when this worker goes on with it."""
    log_path = runtime.settings.logs / f"{claim.job_id}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log_path.open("ab") as handle, Heartbeat(runtime.db, runtime.settings, claim) as beat:
            following = work_on(Work(runtime, claim, beat, handle))
    except LeaseLostError:
        # Taken away, or cancelled too late for the heartbeat to say so: then it ends here.
        settle(runtime, claim, Cancelled.by_request(), log_path)
        return None
    except Exception as error:
        settle(runtime, claim, error, log_path)
        return None
    if following is None:
        put_away(runtime, claim, log_path)
    return following


def settle(runtime: Runtime, claim: Claim, error: Exception, log_path: Path) -> None:
    """Write why an attempt ended without a result."""
    if not isinstance(error, SplatError | WorkerStoppingError):
        log.error("job %s: %s broke", claim.job_id, claim.stage, exc_info=error)
        error = as_splat_error(claim.stage, error)
    try:
        with runtime.db.writing() as session:
            if isinstance(error, WorkerStoppingError):
                state = leases.release(session, claim)
            elif isinstance(error, StorageAway):  # no fault of the job's: it waits as long as it takes
                state = leases.release(session, claim, "storage away", runtime.settings.retry_backoff_s)
            elif isinstance(error, Cancelled):
                state = leases.end_cancelled(session, claim)
            else:
                assert isinstance(error, SplatError)
                state = leases.end_attempt(session, runtime.settings, claim, {**error.to_dict(), "log_tail": log_tail(log_path)})
    except LeaseLostError:
        log.warning("job %s is no longer ours (fence %d); nothing of it was written", claim.job_id, claim.fence)
        with runtime.db.writing() as session:
            tallies.add(session, "fenced_writes_refused_total")
        return
    log.info("job %s: %s ended, now %s", claim.job_id, claim.stage, state)
    if state in jobs.TERMINAL:
        put_away(runtime, claim, log_path)


def as_splat_error(stage: str, error: Exception) -> SplatError:
    """Return what a user should read of an error that the worker itself met."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(
            "capacity.disk", "Disk full", f"{stage}: the worker's disk is full", "Free some space; the job goes on from there."
        )
    return InternalError("internal.worker_error", "The worker broke", f"{stage}: {type(error).__name__}: {error}")


def put_away(runtime: Runtime, claim: Claim, log_path: Path) -> None:
    """Keep the log where every api finds it, and remove the workspace of a job that has succeeded."""
    with runtime.db.reading() as session:
        job = session.get_one(Job, claim.job_id)
    if log_path.exists() and job.deleted_at is None:
        try:
            runtime.storage.put(f"jobs/{claim.job_id}/log.txt", log_path)
        except StorageAway:
            log.warning("the log of job %s stays on this machine: %s", claim.job_id, log_path)
    if job.state == "succeeded":
        files.discard(runtime.settings, claim.job_id)


def work_on(work: Work) -> Claim | None:
    """Bring the stage's result about, publish it if it is the last, and hand the job on in one transaction."""
    runtime, claim = work.runtime, work.claim
    with runtime.db.reading() as session:
        job = session.get_one(Job, claim.job_id)
    kill_left_behind(files.folder_of(runtime.settings, job.id) / GROUP)
    shelf = Shelf(runtime, job, *files.prepare(runtime, job), work.check)
    finished = run_up_to(work, shelf)
    work.check()
    if claim.stage != STAGES[-1]:
        return hand_on(work, shelf, finished)
    result, measured = files.summary(runtime, job, shelf.workspace), measure(shelf, claim, finished)
    stored = files.publish(runtime.storage, claim, shelf.workspace, runtime.settings.logs / f"{claim.job_id}.log")
    with withdrawn_on_error(work), runtime.db.writing() as session:
        assets.record(session, claim.job_id, stored)
        timings.record(session, job, claim.stage, measured)
        return leases.finish_stage(session, runtime.settings, claim, finished, result)


def hand_on(work: Work, shelf: Shelf, finished: Finished) -> Claim | None:
    """Keep what the stage made for other jobs, and open the next one."""
    runtime, stage = work.runtime, work.claim.stage
    packed = None if finished.is_skipped else cache.keep(shelf, stage)
    measured, replaced = measure(shelf, work.claim, finished), None
    try:
        with runtime.db.writing() as session:
            if packed is not None:
                replaced = kept.record(session, shelf.job, stage, shelf.keys[stage], packed)
            timings.record(session, shelf.job, stage, measured)
            following = leases.finish_stage(session, runtime.settings, work.claim, finished)
    except LeaseLostError:
        if packed is not None:
            cache.clear_place(runtime.storage, packed.storage_key)
        raise
    if replaced is not None:
        cache.clear_place(runtime.storage, replaced)
    return following


def measure(shelf: Shelf, claim: Claim, finished: Finished) -> Measured | None:
    """Return how the stage went where it ran; None where it was skipped."""
    if finished.is_skipped:
        return None
    stamp = read_stamp(shelf.workspace, claim.stage)
    memory = stamp.peak_memory_bytes if stamp is not None else 0
    machine = " ".join(filter(None, (liveness.machine(), finished.stats.get("kernel"))))
    return Measured(f"{claim.queue}: {machine}", finished.seconds, memory, files.held_bytes(shelf.workspace))


@contextlib.contextmanager
def withdrawn_on_error(work: Work) -> Iterator[None]:
    """Remove stored results again when their rows could not be written."""
    try:
        yield
    except LeaseLostError:
        files.withdraw(work.runtime.storage, work.claim)
        raise


def run_up_to(work: Work, shelf: Shelf) -> Finished:
    """Bring about the claimed stage, and before it those that this machine has not (another may have): what is kept need not run."""
    stage = work.claim.stage
    for earlier in STAGES[: STAGES.index(stage)]:
        if not cache.is_whole(shelf, earlier) and cache.take(shelf, earlier) is None:
            run_child(work, shelf.workspace, earlier)
    stamp = None if cache.is_whole(shelf, stage) else cache.take(shelf, stage)
    if stamp is not None:
        return Finished(stamp.seconds, True, stamp.stats, "cache")
    return run_child(work, shelf.workspace, stage)


def niced(settings: Settings) -> tuple[str, ...]:
    """Return what to put before a command so that it leaves the processors to the api and the rest of the machine when they want them."""
    return ("nice", "-n", str(settings.stage_nice)) if settings.stage_nice and shutil.which("nice") else ()


def run_child(work: Work, workspace: Workspace, stage: str) -> Finished:
    """Run one stage in a child to its end; raises what it reported, or what its death looks like."""
    settings = work.runtime.settings
    work.log.write(f"--- {stage}, attempt under fence {work.claim.fence}\n".encode())
    work.log.flush()
    options = ["--options", str(files.options_file(workspace))]
    child = Child([*niced(settings), *settings.engine_command, "stage", stage, str(workspace.root), *options], work.log)
    group = workspace.root / GROUP
    note_group(group, child.pid)
    listener = Listener(Source(work.runtime, work.claim, workspace, stage), work.log)
    try:
        for line in child.lines(TICK_S):
            work.check()
            if line is not None:
                listener.hear(line)
            listener.check()
    except BaseException:
        # Whatever ends the work: nothing of it may run on. A stalled or cancelled stage may still write a checkpoint.
        child.stop(settings.term_grace_s)
        raise
    finally:
        code = child.close()
        group.unlink(missing_ok=True)
    if listener.error is not None:
        raise listener.error
    if code != 0 or listener.finished is None:
        raise child.explain(stage, code)
    return listener.finished
