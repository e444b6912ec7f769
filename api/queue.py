"""The doorbell: messages that say "look at the table", sent after the commit and never waited for."""

import logging
import queue
import threading
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from sqlalchemy.orm import Session

from api.settings import Settings

RUN_STAGE = "worker.tasks.run_stage"
CPU_QUEUE, GPU_QUEUE = "cpu", "gpu"
DAY_S = 86_400
SOCKET_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 1

log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """Return the Celery application that workers and senders share; each setting has a reason (research/service.md 4.5)."""
    app = Celery("splatworks", broker=settings.broker_url or None, include=["worker.tasks"])
    app.conf.update(
        task_acks_late=True,  # a message outlives the process that took it
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # no hoarding: one job at a time
        # True loses the running message when the broker restarts (research/service.md 3.3); Celery 6 makes it the default.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_ignore_result=True,  # the database knows the state
        task_default_queue=CPU_QUEUE,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever; the default gives up after 100
        broker_connection_timeout=CONNECT_TIMEOUT_S,
        broker_transport_options={
            "visibility_timeout": DAY_S,  # longer than any stage: the lease, not the broker, notices lost workers
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": SOCKET_TIMEOUT_S,
        },
        visibility_timeout=DAY_S,
        worker_send_task_events=False,
        enable_utc=True,
    )
    return app


def publisher(settings: Settings) -> Celery:
    """Return the application for sending: it gives up at once where a worker would try again."""
    app = celery_app(settings)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "max_retries": 0, "interval_start": 0}
    return app


def broker_url_for_redis(settings: Settings) -> str:
    """Return the broker's URL as redis-py wants it: it names a socket and its database otherwise than kombu."""
    url = settings.broker_url
    if url.startswith("redis+socket://"):
        url = url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    return url


def broker_client(settings: Settings) -> Redis:
    """Return a connection that gives up within seconds."""
    return Redis.from_url(broker_url_for_redis(settings), socket_timeout=CONNECT_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S)


def n_messages(settings: Settings, queue_name: str) -> int:
    """Count the messages that wait in a queue; raises ``RedisError`` or ``OSError`` when the broker does not answer."""
    with broker_client(settings) as client:
        return int(client.llen(queue_name))


def send_after_commit(session: Session, job_id: str, queue_name: str) -> None:
    """Ring for a job once ``session`` has committed; when that fails the dispatcher rings again."""
    session.info.setdefault("doorbells", []).append((job_id, queue_name))


def send_collected(session: Session, doorbell: "Doorbell") -> None:
    """Hand over what ``send_after_commit`` collected."""
    for job_id, queue_name in session.info.pop("doorbells", []):
        doorbell.ring(job_id, queue_name)


class Doorbell:
    """Sends messages from a thread of its own, so that no request ever waits for the broker. Unsent messages are dropped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(maxsize=10_000)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self, job_id: str, queue_name: str) -> None:
        """Send soon; returns at once."""
        if not self._settings.broker_url:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="doorbell", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((job_id, queue_name))
        except queue.Full:
            log.warning("too many doorbells wait; the dispatcher will ring for job %s", job_id)

    def close(self) -> None:
        """Send what waits and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout=2 * SOCKET_TIMEOUT_S)

    def _send_all(self) -> None:
        app = publisher(self._settings)
        try:
            while (message := self._waiting.get()) is not None:
                send(app, *message)
        finally:
            app.close()


def send(app: Celery, job_id: str, queue_name: str) -> bool:
    """Send one message now; False, with a line in the log, when the broker cannot be reached."""
    try:
        options: dict[str, Any] = {"retry": False, "ignore_result": True}
        app.send_task(RUN_STAGE, args=[job_id], queue=queue_name, **options)
    except (OperationalError, OSError) as error:
        log.warning("the broker does not answer (%s); job %s waits in the table", error, job_id)
        return False
    return True
