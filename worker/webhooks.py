"""Delivers the outbox of webhooks, in threads of its own: a receiver that hangs holds up neither leases nor doorbells nor others."""

import logging
import threading

import httpx
from sqlalchemy.exc import SQLAlchemyError

from api.db import Database
from api.services import deliveries
from api.services.deliveries import Parcel
from api.settings import Settings
from worker import post

log = logging.getLogger(__name__)


class Sender:
    """Takes messages that are due and sends them, several at a time but never two to one endpoint."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._rules = post.Rules(settings.webhook_timeout_s, settings.webhook_allow, httpx.create_ssl_context())
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._news = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; a database that is away is waited for. What is under way then is sent again by the next dispatcher."""
        while not stop.is_set():
            self._news.clear()
            try:
                for parcel in self.take():
                    threading.Thread(target=self._carry, args=(parcel,), name=f"webhook-{parcel.delivery_id}", daemon=True).start()
            except (SQLAlchemyError, OSError) as error:
                log.warning("webhooks wait: %s", error)
            self._news.wait(self._settings.poll_s)

    def take(self) -> list[Parcel]:
        """Take as many messages as there is room for; each endpoint is busy from here on."""
        with self._lock:
            busy = set(self._busy)
        room = self._settings.webhook_parallel - len(busy)
        if room <= 0:
            return []
        with self._db.reading() as session:  # a writing transaction keeps others waiting: it begins only when there is work
            found = deliveries.due(session, busy, room)
        if not found:
            return []
        with self._db.writing() as session:
            taken = deliveries.take(session, self._settings, found)
        with self._lock:
            self._busy.update(each.endpoint_id for each in taken)
        return taken

    def _carry(self, parcel: Parcel) -> None:
        """Send one message and write how it went; when that cannot be written it is sent again after the lease."""
        try:
            outcome = post.send(parcel, self._rules)
            with self._db.writing() as session:
                is_mine = deliveries.record(session, self._settings, parcel, outcome)
            fields = (parcel.delivery_id, parcel.attempt, outcome.word, f"{outcome.seconds:.2f}", outcome.error or "")
            log.info("webhook %s attempt %s: %s in %s s %s%s", *fields, "" if is_mine else " (another sender has it by now)")
        except (SQLAlchemyError, OSError) as error:
            log.warning("webhook %s was sent, but that could not be written: %s", parcel.delivery_id, error)
        finally:
            with self._lock:
                self._busy.discard(parcel.endpoint_id)
            self._news.set()
