"""``python -m worker.dispatcher``: rings for waiting jobs, takes jobs from lost workers, sends webhooks, collects garbage.

Any number may run.
"""

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

from celery import Celery
from redis.exceptions import RedisError
from sqlalchemy import or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api import logs
from api.db import Database, check_schema, now, open_database
from api.errors import StorageAway
from api.models import Job, new_id
from api.queue import n_messages, publisher, send
from api.services import leases, routing, system
from api.services.standing import in_turn
from api.settings import Settings
from api.storage import Storage, open_storage
from engine.errors import InputError, InternalError
from worker import liveness, orphans, sweep, webhooks

SEEN_EVERY_S = 5.0
RING_AT_MOST = 200
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dispatcher:
    """What the loop works with."""

    settings: Settings
    db: Database
    storage: Storage
    celery: Celery
    process_id: str


def open_dispatcher(settings: Settings) -> Dispatcher:
    """Open database, storage and broker."""
    return Dispatcher(settings, open_database(settings), open_storage(settings), publisher(settings), new_id())


def run(dispatcher: Dispatcher, stop: threading.Event) -> None:
    """Look at the table again and again until told to stop; a database or disk that is away is waited for."""
    seen_at = swept_at = searched_at = -float("inf")
    sender = threading.Thread(target=webhooks.Sender(dispatcher.settings, dispatcher.db).run, args=(stop,), name="webhooks", daemon=True)
    sender.start()
    while not stop.is_set():
        if not sender.is_alive():  # what it died of is in the log; half a dispatcher would go unnoticed
            raise InternalError("internal.webhooks", "Webhooks stopped", "the thread that sends webhooks has ended", "Start it again.")
        try:
            if time.monotonic() - seen_at >= SEEN_EVERY_S:
                seen_at = time.monotonic()
                show_alive(dispatcher)
            recover(dispatcher)
            redirect(dispatcher)
            ring(dispatcher)
            if time.monotonic() - swept_at >= dispatcher.settings.sweep_s:
                swept_at = time.monotonic()
                sweep.sweep(sweep.Ground(dispatcher.settings, dispatcher.db, dispatcher.storage))
            if time.monotonic() - searched_at >= dispatcher.settings.orphans_s:
                searched_at = time.monotonic()
                orphans.sweep_results(dispatcher.db, dispatcher.storage)
        except (SQLAlchemyError, RedisError, OSError, StorageAway) as error:
            log.warning("the dispatcher waits: %s", error)
        stop.wait(dispatcher.settings.poll_s)


def close(dispatcher: Dispatcher) -> None:
    """Say that this dispatcher is gone and close what it opened."""
    try:
        with dispatcher.db.writing() as session:
            system.forget_process(session, dispatcher.process_id)
    except SQLAlchemyError as error:
        log.warning("the database does not answer: %s", error)
    dispatcher.celery.close()
    dispatcher.db.close()


def show_alive(dispatcher: Dispatcher) -> None:
    """Write that this dispatcher lives."""
    with dispatcher.db.writing() as session:
        system.see_process(session, dispatcher.process_id, system.Alive("dispatcher", liveness.host_name(), os.getpid()))


def recover(dispatcher: Dispatcher) -> None:
    """Take jobs away from holders that are dead or silent."""
    with dispatcher.db.reading() as session:
        held = session.scalars(select(Job.id).where(Job.state.in_(leases.HELD)).limit(1)).first()
    if held is None:
        return
    with dispatcher.db.writing() as session:
        lost = leases.release_dead(session, dispatcher.settings, liveness.host_name(), liveness.is_alive)
        lost += leases.expire(session, dispatcher.settings)
    for job_id in lost:
        log.warning("the worker of job %s is gone", job_id)


def redirect(dispatcher: Dispatcher) -> None:
    """Send waiting jobs where they belong now that GPU workers have come or gone."""
    with dispatcher.db.reading() as session:
        if not routing.misrouted(session, dispatcher.settings):
            return
    with dispatcher.db.writing() as session:
        moved = routing.redirect(session, dispatcher.settings)
    for job_id in moved:
        log.info("job %s waits in another queue now", job_id)


def ring(dispatcher: Dispatcher) -> None:
    """Ring for every job that waits and has not been rung for; what the broker does not take is tried again at once."""
    with dispatcher.db.reading() as session:
        waiting = due(session, dispatcher.settings)
    for job_id, queue in waiting:
        if not send(dispatcher.celery, job_id, queue):
            return
        with dispatcher.db.writing() as session:
            session.execute(update(Job).where(Job.id == job_id, Job.state == "queued").values(dispatched_at=now(session)))


def due(session: Session, settings: Settings) -> list[tuple[str, str]]:
    """Return (id, queue) of jobs to ring for, the most urgent first, then the oldest.

    A job rung for long ago is rung for again only when its queue holds fewer messages than jobs: then some were lost. Otherwise
    messages would pile up behind a long job.
    """
    moment = now(session)
    query = (
        select(Job.id, Job.queue, Job.dispatched_at)
        .where(Job.state == "queued", Job.deleted_at.is_(None))
        .where(or_(Job.not_before.is_(None), Job.not_before <= moment))
        .order_by(*in_turn())
        .limit(RING_AT_MOST)
    )
    rows = session.execute(query).all()
    oldest = moment - timedelta(seconds=settings.resend_s)
    late = {row.queue for row in rows if row.dispatched_at is not None and row.dispatched_at <= oldest}
    lossy = {queue for queue in late if n_messages(settings, queue) < sum(row.queue == queue for row in rows)}
    return [(row.id, row.queue) for row in rows if row.dispatched_at is None or (row.dispatched_at <= oldest and row.queue in lossy)]


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    logs.configure(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    dispatcher = open_dispatcher(settings)
    try:
        check_schema(dispatcher.db)
        run(dispatcher, stop)
    except InputError as error:
        sys.exit(f"{error.title}: {error.detail}. {error.hint}")
    finally:
        close(dispatcher)


if __name__ == "__main__":
    main()
