"""The Celery application: ``celery -A worker.app worker -Q cpu -c 1``."""

import contextlib
import logging
import os
import sys
import threading
from functools import cache

from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from api import logs
from api.db import check_schema, open_database
from api.models import new_id
from api.queue import celery_app
from api.services import system
from api.settings import Settings
from engine.errors import CapacityError, InputError
from worker import card, launch, liveness
from worker.runtime import StopFlag

SEEN_EVERY_S = 5.0
log = logging.getLogger(__name__)

settings = Settings()
app = celery_app(settings)
# Made before the pool forks, so that the main process can tell its children to stop.
stop_flag = StopFlag()


@signals.setup_logging.connect
def _set_up_logs(**_: object) -> None:
    """Write lines of log as the settings say; that somebody listens here keeps Celery from doing it its own way."""
    logs.configure(settings)


@signals.celeryd_after_setup.connect
def _try_start(**_: object) -> None:
    """End before the first message when the tables are not there, or this worker is for cards and cannot open one.

    It would spoil the jobs of those that can.
    """
    try:
        with contextlib.closing(open_database(settings, pooled=False)) as db:
            check_schema(db)
        _device()
    except (CapacityError, InputError) as error:
        sys.exit(f"{error.title}: {error.detail}. {error.hint}")


@cache
def _device() -> str:
    return card.device_of(settings, app.amqp.queues.consume_from)


@signals.worker_process_init.connect
def _die_with_main(**_: object) -> None:
    """Without this, a killed worker leaves a child that goes on beside the next worker."""
    launch.die_with_parent(os.getppid())


@signals.worker_shutting_down.connect
def _stop_stages(**_: object) -> None:
    """Celery waits for running tasks; the flag makes them checkpoint, give their job back and return."""
    stop_flag.set()


@signals.worker_ready.connect
def _show_alive(**_: object) -> None:
    """Write from now on that this worker lives."""
    queues = ",".join(sorted(app.amqp.queues.consume_from))
    threading.Thread(target=_see, args=(queues,), name="alive", daemon=True).start()


def _see(queues: str) -> None:
    # No connection is kept: this process forks, and children must not inherit one.
    db = open_database(settings, pooled=False)
    process_id, pause = new_id(), threading.Event()
    shown = system.Alive("worker", liveness.host_name(), os.getpid(), queues, _device())
    every_s = min(SEEN_EVERY_S, settings.gpu_wait_s / 4)  # a beat or two may fail without the work going elsewhere
    while not stop_flag.is_set():
        try:
            with db.writing() as session:
                system.see_process(session, process_id, shown)
        except SQLAlchemyError as error:
            log.warning("the database does not answer: %s", error)
        pause.wait(every_s)
    db.close()
