"""What ``/metrics`` shows: the requests of this process, and what all processes together wrote into the database."""

import math
import re
import shutil
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.deps import State
from api.queue import CPU_QUEUE, GPU_QUEUE, n_messages
from api.services import backlog, system, tallies

LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
# Shown as 0 before the first of them is counted: an alert on what has never been is silent.
COUNTED = {
    "fenced_writes_refused_total": "writes of workers that no longer held their job",
    "jobs_ended_total": "jobs that ended, by state",
    "leases_expired_total": "jobs taken away from workers that were dead or silent",
    "stage_cache_hits_total": "stages whose result was taken from an earlier job's, by stage",
    "upload_bytes_total": "bytes of photos received",
    "webhook_attempts_total": "messages sent to webhook endpoints, by outcome",
}
LABEL = re.compile(r'(\w+)="([^"]*)"')


class Requests:
    """Counts of this process alone: several api processes are scraped one by one, and Prometheus adds them up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        named = ("method", "route", "status")
        self._count = Counter("splatworks_http_requests", "answers, by route", named, registry=self.registry)
        words = "time until an answer began, by route"
        self._seconds = Histogram("splatworks_http_request_seconds", words, named[:2], buckets=LATENCIES_S, registry=self.registry)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; ``route`` is the template, such as ``/v1/jobs/{job_id}``: ids would make a row each."""
        self._count.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class Shared(Collector):
    """What the database, the broker and the disk say at the moment."""

    def __init__(self, app: State) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        """Yield the figures. What does not answer is said, and hides nothing else."""
        try:
            with self._app.db.reading() as session:
                found = [*tables(session), gauge("database_up", "whether the database answers", 1)]
        except SQLAlchemyError:
            found = [gauge("database_up", "whether the database answers", 0)]
        yield from found
        yield from broker(self._app)
        yield gauge("disk_free_bytes", "free space where uploads and work folders lie", shutil.disk_usage(self._app.settings.data_dir).free)


def render(app: State, requests: Requests, accept: str) -> tuple[bytes, str]:
    """Return the text of all figures and its content type, Prometheus's own or OpenMetrics as asked for."""
    encode, content_type = choose_encoder(accept)
    shared = CollectorRegistry(auto_describe=False)
    shared.register(_Both(requests.registry, Shared(app)))
    return encode(shared), content_type


class _Both(Collector):
    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()


def gauge(name: str, words: str, value: float) -> Metric:
    """Return a figure without labels."""
    return GaugeMetricFamily(f"splatworks_{name}", words, value=value)


def gauges(name: str, words: str, label: str, values: dict[str, float]) -> Metric:
    """Return a figure for each value of a label."""
    family = GaugeMetricFamily(f"splatworks_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def tables(session: Session) -> Iterator[Metric]:
    """Yield what the tables say; every query reads a bounded number of rows by an index, none reads events."""
    at_most = f"jobs by state; {backlog.COUNT_AT_MOST} stands for as many or more"
    yield gauges("jobs", at_most, "state", backlog.jobs_by_state(session))
    queues = {name: backlog.Waiting(0, 0.0) for name in (CPU_QUEUE, GPU_QUEUE)} | backlog.queues(session)
    yield gauges("queue_jobs", "jobs that wait, by queue", "queue", {name: each.n for name, each in queues.items()})
    ages = {name: each.oldest_s for name, each in queues.items()}
    yield gauges("queue_oldest_seconds", "age of the oldest job that waits, by queue", "queue", ages)
    kinds = dict.fromkeys(("worker", "dispatcher"), 0.0)
    for row in system.processes(session):
        kinds[row.kind] = kinds.get(row.kind, 0.0) + 1
    yield gauges("processes", "processes seen in the last half minute, by kind", "kind", kinds)
    outbox = backlog.outbox(session)
    yield gauge("webhooks_due", "messages to webhook endpoints that should have been sent by now", outbox.n)
    yield gauge("webhooks_late_seconds", "how late the latest of them is", outbox.oldest_s)
    yield from counted(tallies.read(session))


def counted(found: dict[str, dict[str, float]]) -> Iterator[Metric]:
    """Yield the counts that all processes share."""
    for name in sorted(COUNTED.keys() | {name for name in found if name.endswith("_total")}):
        rows = [(dict(LABEL.findall(written)), value) for written, value in (found.get(name) or {"": 0.0}).items()]
        labels = sorted({label for words, _ in rows for label in words})
        family = CounterMetricFamily(f"splatworks_{name}", COUNTED.get(name, name), labels=labels)
        for words, value in rows:
            family.add_metric([words.get(label, "") for label in labels], value)
        yield family
    yield durations("stage_seconds", "time that stages took, by stage", "stage", found)


def durations(name: str, words: str, label: str, found: dict[str, dict[str, float]]) -> Metric:
    """Return what ``tallies.observe`` counted as a histogram."""
    family = HistogramMetricFamily(f"splatworks_{name}", words, labels=[label])
    buckets = [(dict(LABEL.findall(written)), value) for written, value in found.get(f"{name}_bucket", {}).items()]
    for written, total in found.get(f"{name}_sum", {}).items():
        ((_, word),) = LABEL.findall(written)
        own = {labels["le"]: value for labels, value in buckets if labels[label] == word}
        cumulative, so_far = [], 0.0
        for bound in (*tallies.SECONDS, math.inf):
            so_far += own.get(tallies.word_of(bound), 0.0)
            cumulative.append((floatToGoString(bound), so_far))  # type: ignore[no-untyped-call]
        family.add_metric([word], cumulative, total)
    return family


def broker(app: State) -> Iterator[Metric]:
    """Yield what the broker says: messages are doorbells, so their number tells of waiting workers, not of lost jobs."""
    try:
        waiting = {name: float(n_messages(app.settings, name)) for name in (CPU_QUEUE, GPU_QUEUE)} if app.settings.broker_url else {}
    except (RedisError, OSError):
        waiting = {}
    yield gauge("broker_up", "whether the broker answers", float(bool(waiting)))
    yield gauges("broker_messages", "doorbells that wait, by queue", "queue", waiting)
