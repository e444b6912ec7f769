"""Keeps a lease alive from a thread, and brings back whether the job should stop."""

import contextvars
import logging
import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from api.db import Database
from api.services import leases
from api.services.leases import Claim, LeaseLostError
from api.settings import Settings

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats while its block runs, whatever that block waits for. A database that is away counts as lost only when the lease is over."""

    def __init__(self, db: Database, settings: Settings, claim: Claim) -> None:
        self._db, self._settings, self._claim = db, settings, claim
        self._stop = threading.Event()
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._beat_on,), name="heartbeat", daemon=True)
        self.is_cancelled = False
        self.is_lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _beat_on(self) -> None:
        beaten_at = time.monotonic()
        while not self._stop.wait(self._settings.heartbeat_s):
            try:
                with self._db.writing() as session:
                    self.is_cancelled = leases.beat(session, self._settings, self._claim) == "cancelling"
                beaten_at = time.monotonic()
            except LeaseLostError:
                self.is_lost = True
                return
            except SQLAlchemyError as error:
                log.warning("no heartbeat for job %s: %s", self._claim.job_id, error)
                if time.monotonic() - beaten_at > self._settings.lease_s:
                    self.is_lost = True
                    return
