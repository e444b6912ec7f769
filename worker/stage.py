"""One doorbell answered: claim the job, run its stage in a child, report, publish, hand on. Everything a worker does is here."""

import contextlib
import errno
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import OperationalError

from api.errors import StorageAway
from api.models import Job
from api.services import assets, jobs, leases, tallies
from api.services.leases import Claim, Finished, LeaseLostError
from engine.errors import Cancelled, CapacityError, InternalError, SplatError, from_dict
from engine.options import STAGES
from engine.workspace import Workspace, read_stamp
from worker import files, liveness
from worker.child import Child, kill_left_behind, log_tail, note_group
from worker.heartbeat import Heartbeat
from worker.runtime import Runtime

TICK_S = 0.25
GROUP = ".group"
REPORT_EVERY_S = 0.5
REPORTED = ("progress", "warning", "checkpoint")
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

    def check(self, child: Child | None = None) -> None:
        """Raise when the work should end: cancelled, taken away, worker stopping, or nothing heard for too long."""
        if self.beat.is_lost:
            raise LeaseLostError(self.claim.job_id)
        if self.beat.is_cancelled:
            raise Cancelled.by_request()
        if self.runtime.stop.is_set():
            raise WorkerStoppingError
        stall_s = self.runtime.settings.stall_s
        if child is not None and time.monotonic() - child.spoke_at > stall_s:
            stage = self.claim.stage
            raise InternalError("internal.stage_stalled", "A stage hangs", f"{stage} said nothing for {stall_s:g} s and was stopped")


def run(runtime: Runtime, job_id: str, queue: str) -> None:
    """Answer a doorbell: work on the job as long as its stages belong to this queue. An old or double message does nothing."""
    with runtime.db.writing() as session:
        # A holder on this machine that is dead need not be waited for.
        leases.release_dead(session, runtime.settings, liveness.host_name(), liveness.is_alive)
        claim = leases.claim(session, runtime.settings, job_id, queue, liveness.holder())
    while claim is not None:
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
    workspace = files.prepare(runtime, job)
    finished = run_up_to(work, workspace)
    work.check()
    if claim.stage != STAGES[-1]:
        with runtime.db.writing() as session:
            return leases.finish_stage(session, runtime.settings, claim, finished)
    stored = files.publish(runtime.storage, claim, workspace, runtime.settings.logs / f"{claim.job_id}.log")
    with withdrawn_on_error(work), runtime.db.writing() as session:
        assets.record(session, claim.job_id, stored)
        return leases.finish_stage(session, runtime.settings, claim, finished, files.summary(workspace))


@contextlib.contextmanager
def withdrawn_on_error(work: Work) -> Iterator[None]:
    """Remove stored results again when their rows could not be written."""
    try:
        yield
    except LeaseLostError:
        files.withdraw(work.runtime.storage, work.claim)
        raise


def run_up_to(work: Work, workspace: Workspace) -> Finished:
    """Run the claimed stage, and before it those that this machine has not finished (another may have): a stamp makes a stage skip."""
    for stage in STAGES[: STAGES.index(work.claim.stage)]:
        if read_stamp(workspace, stage) is None:
            run_child(work, workspace, stage)
    return run_child(work, workspace, work.claim.stage)


def run_child(work: Work, workspace: Workspace, stage: str) -> Finished:
    """Run one stage in a child to its end; raises what it reported, or what its death looks like."""
    settings = work.runtime.settings
    work.log.write(f"--- {stage}, attempt under fence {work.claim.fence}\n".encode())
    work.log.flush()
    options = ["--options", str(files.options_file(workspace))]
    child = Child([*settings.engine_command, "stage", stage, str(workspace.root), *options], work.log)
    group = workspace.root / GROUP
    note_group(group, child.pid)
    listener = Listener(work, stage)
    try:
        for line in child.lines(TICK_S):
            work.check(child)
            if line is not None:
                listener.hear(line)
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


class Listener:
    """Takes the JSON lines of a stage: reports them, and keeps the last word."""

    def __init__(self, work: Work, stage: str) -> None:
        self._work, self._stage = work, stage
        self._reported_at = 0.0
        self.error: SplatError | None = None
        self.finished: Finished | None = None

    def hear(self, line: str) -> None:
        """Take one line; a line that is no event goes to the log."""
        event = parse(line)
        if event is None:
            self._work.log.write(line.encode() + b"\n")
            self._work.log.flush()
            return
        kind = event.pop("type")
        if kind == "error":
            self.error = from_dict(event["error"])
        elif kind == "stage_done":
            self.finished = Finished(float(event["seconds"]), bool(event["skipped"]), dict(event["stats"]))
        elif kind in REPORTED and self._stage == self._work.claim.stage:
            self._report(kind, event)

    def _report(self, kind: str, event: dict[str, Any]) -> None:
        moment = time.monotonic()
        if kind == "progress" and moment - self._reported_at < REPORT_EVERY_S:
            return  # the next one says more
        self._reported_at = moment
        event.pop("stage", None)
        try:
            with self._work.runtime.db.writing() as session:
                leases.report(session, self._work.runtime.settings, self._work.claim, kind, event)
        except OperationalError as error:  # the work goes on without the database as long as the lease lasts
            log.warning("an event of job %s was not written: %s", self._work.claim.job_id, error)


def parse(line: str) -> dict[str, Any] | None:
    """Return the event in a line; None when it is none."""
    try:
        event = json.loads(line, parse_constant=_no_constant)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
