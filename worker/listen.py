"""What a stage says while it works: its JSON lines become rows and events; and whether it still gets anywhere."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import OperationalError

from api.errors import StorageAway
from api.services import leases, previews
from api.services.leases import Claim, Finished
from engine.errors import InternalError, SplatError, from_dict
from engine.workspace import Workspace
from worker.runtime import Runtime

REPORT_EVERY_S = 0.5
REPORTED = ("progress", "warning", "checkpoint")
MAX_PREVIEW_BYTES = 4 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Who speaks: a stage at work in a folder, for a claim (on this stage or on a later one)."""

    runtime: Runtime
    claim: Claim
    workspace: Workspace
    stage: str


class Listener:
    """Takes the JSON lines of a stage: reports them, and keeps the last word."""

    def __init__(self, source: Source, out: IO[bytes]) -> None:
        self._source, self._log = source, out
        self._reported_at = 0.0
        self._mark: tuple[Any, ...] = ()
        self._moved_at = time.monotonic()
        self.error: SplatError | None = None
        self.finished: Finished | None = None

    def hear(self, line: str) -> None:
        """Take one line; a line that is no event goes to the log."""
        event = parse(line)
        if event is None:
            self._log.write(line.encode() + b"\n")
            self._log.flush()
            return
        kind = event.pop("type")
        self._note_move(kind, event)
        if kind == "error":
            self.error = from_dict(event["error"])
        elif kind == "stage_done":
            is_skipped = bool(event["skipped"])
            self.finished = Finished(float(event["seconds"]), is_skipped, dict(event["stats"]), "workspace" if is_skipped else None)
        elif kind in REPORTED and self._source.stage == self._source.claim.stage:
            event.pop("stage", None)
            self._hear_of_work(kind, event)

    def check(self) -> None:
        """Raise when the stage has got nowhere for too long: silent, or saying the same thing again and again."""
        stall_s = self._source.runtime.settings.stall_s
        if time.monotonic() - self._moved_at > stall_s:
            raise InternalError(
                "internal.stage_stalled",
                "A stage hangs",
                f"{self._source.stage} made no progress for {stall_s:g} s and was stopped",
                "The job's log has more.",
            )

    def _note_move(self, kind: str, event: dict[str, Any]) -> None:
        data = event.get("data")
        step = data.get("step") if isinstance(data, dict) else event.get("step")
        mark = (kind, event.get("fraction"), event.get("message"), step, event.get("detail"))
        if mark != self._mark:
            self._mark, self._moved_at = mark, time.monotonic()

    def _hear_of_work(self, kind: str, event: dict[str, Any]) -> None:
        data = event.get("data")
        picture = data.pop("preview", None) if isinstance(data, dict) else None
        moment = time.monotonic()
        if kind != "progress":
            self._report(kind, event)
        elif moment - self._reported_at >= REPORT_EVERY_S:  # else the next one says more
            self._reported_at = moment
            self._report(kind, event)
        if isinstance(picture, str):
            self._show(picture, event)

    def _report(self, kind: str, event: dict[str, Any]) -> None:
        source = self._source
        try:
            with source.runtime.db.writing() as session:
                leases.report(session, source.runtime.settings, source.claim, kind, event)
        except OperationalError as error:  # the work goes on without the database as long as the lease lasts
            log.warning("an event of job %s was not written: %s", source.claim.job_id, error)

    def _show(self, picture: str, event: dict[str, Any]) -> None:
        """Put a preview where every api finds it, and say so; the job does not depend on it."""
        source = self._source
        path = preview_in(source.workspace, picture)
        if path is None:
            return
        try:
            source.runtime.storage.put(previews.key_of(source.claim.job_id), path)
        except (StorageAway, OSError) as error:
            log.warning("a preview of job %s was not stored: %s", source.claim.job_id, error)
            return
        step = event.get("data", {}).get("step")
        self._report("preview", {"url": previews.url_of(source.claim.job_id), **({"step": step} if isinstance(step, int) else {})})


def preview_in(workspace: Workspace, name: str) -> Path | None:
    """Return the picture that a stage names, if it is a small WebP file inside the folder."""
    path = (workspace.root / name).resolve()
    if path.suffix != ".webp" or not path.is_relative_to(workspace.root) or not path.is_file():
        return None
    return path if path.stat().st_size <= MAX_PREVIEW_BYTES else None


def parse(line: str) -> dict[str, Any] | None:
    """Return the event in a line; None when it is none."""
    try:
        event = json.loads(line, parse_constant=_no_constant)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
