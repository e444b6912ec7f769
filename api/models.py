"""The tables. The moves between job states are in ``api.services.jobs``."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, String, TypeDecorator, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from uuid6 import uuid7


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, aware on both sides; SQLite keeps it as sortable text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return the value in UTC; naive values are a mistake."""
        if value is None:
            return None
        assert value.tzinfo is not None, "a moment needs its time zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return the value as UTC, which SQLite does not store."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def new_id() -> str:
    """Return an id that sorts by time (UUID version 7)."""
    return str(uuid7())


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON(none_as_null=True), list[str]: JSON(none_as_null=True), str: String}  # noqa: RUF012 (SQLAlchemy reads it so)


class Capture(Base):
    """A set of photos."""

    __tablename__ = "capture"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str]
    key_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    swept_at: Mapped[datetime | None]
    photos: Mapped[list["Photo"]] = relationship(order_by="Photo.seq", viewonly=True)


class Photo(Base):
    """One file of a capture, accepted or rejected with a reason. ``seq`` counts within the capture."""

    __tablename__ = "photo"
    __table_args__ = (
        Index("photo_seq", "capture_id", "seq", unique=True),
        Index(
            "photo_once",
            "capture_id",
            "sha256",
            unique=True,
            sqlite_where=text("state = 'accepted'"),
            postgresql_where=text("state = 'accepted'"),
        ),
    )
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    capture_id: Mapped[str] = mapped_column(ForeignKey("capture.id"))
    seq: Mapped[int]
    name: Mapped[str]
    state: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    storage_key: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Job(Base):
    """One run over the photos that its capture held when it was made."""

    __tablename__ = "job"
    __table_args__ = (Index("job_waiting", "state", "created_at"), Index("job_lease", "lease_until"), Index("job_capture", "capture_id"))
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    capture_id: Mapped[str] = mapped_column(ForeignKey("capture.id"))
    parent_id: Mapped[str | None]
    from_stage: Mapped[str | None]
    preset: Mapped[str]
    options: Mapped[dict[str, Any]]
    n_photos: Mapped[int]
    photos_until: Mapped[int]
    state: Mapped[str]
    stage: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    key_id: Mapped[str | None] = mapped_column(String(36))
    expires_at: Mapped[datetime | None]
    waits_for: Mapped[str | None]
    traceparent: Mapped[str | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    error_attempts: Mapped[int] = mapped_column(default=0)
    lost_leases: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    holder_host: Mapped[str | None]
    holder_pid: Mapped[int | None]
    holder_start: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    swept_at: Mapped[datetime | None]
    stages: Mapped[list["JobStage"]] = relationship(order_by="JobStage.ordinal", viewonly=True)


class JobStage(Base):
    """How far one stage of a job is."""

    __tablename__ = "job_stage"
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ordinal: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=0)
    cache_key: Mapped[str | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(default="")
    data: Mapped[dict[str, Any] | None]
    stats: Mapped[dict[str, Any] | None]
    seconds: Mapped[float | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEvent(Base):
    """Something that happened to a job; ``seq`` counts from 1 without gaps."""

    __tablename__ = "event"
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class Asset(Base):
    """A published file of a job."""

    __tablename__ = "asset"
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    storage_key: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[datetime]


class Idempotency(Base):
    """A request that made something, so that asking again makes nothing."""

    __tablename__ = "idempotency"
    key: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[datetime]


class Process(Base):
    """A worker or dispatcher that was alive at ``seen_at``."""

    __tablename__ = "process"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    kind: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[str]
    device: Mapped[str] = mapped_column(default="", server_default="")
    seen_at: Mapped[datetime]


class Upload(Base):
    """A file that arrives in pieces (tus): ``offset`` bytes are durable, ``fence`` rises with each request that takes it over."""

    __tablename__ = "upload"
    __table_args__ = (Index("upload_open", "state", "expires_at"), Index("upload_capture", "capture_id"))
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    capture_id: Mapped[str] = mapped_column(ForeignKey("capture.id"))
    key_id: Mapped[str | None] = mapped_column(String(36))
    name: Mapped[str]
    given: Mapped[str]  # Upload-Metadata as it came, to be said again
    state: Mapped[str]  # open, done, refused, terminated, expired
    length: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    fence: Mapped[int] = mapped_column(default=0)
    parts: Mapped[dict[str, Any] | None]  # where storage takes the parts itself: its upload id, what has arrived
    sha256: Mapped[str | None]  # what the client says of its content
    photo_id: Mapped[str | None] = mapped_column(String(36))
    is_duplicate: Mapped[bool] = mapped_column(default=False)
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class StageCache(Base):
    """What a stage made, kept in storage under what it was made from, for later jobs."""

    __tablename__ = "stage_cache"
    __table_args__ = (Index("stage_cache_capture", "capture_id"), Index("stage_cache_used", "used_at"))
    key: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    capture_id: Mapped[str] = mapped_column(ForeignKey("capture.id"))
    storage_key: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime]


class StageTiming(Base):
    """How long a stage once took here: what estimates of the time left are made from. ``work`` is in the stage's own unit."""

    __tablename__ = "stage_timing"
    __table_args__ = (Index("stage_timing_like", "stage", "device", "created_at"),)
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    stage: Mapped[str]
    device: Mapped[str]
    preset: Mapped[str]
    n_photos: Mapped[int]
    work: Mapped[float]
    seconds: Mapped[float]
    peak_memory_bytes: Mapped[int] = mapped_column(BigInteger)
    disk_bytes: Mapped[int] = mapped_column(BigInteger)  # what the workspace held then, the photos as given not counted
    created_at: Mapped[datetime]


class WebhookEndpoint(Base):
    """An address that wants to hear of jobs; of one job only when ``job_id`` is set."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (Index("webhook_endpoint_job", "job_id"),)
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    key_id: Mapped[str | None] = mapped_column(String(36))
    url: Mapped[str]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]  # signs beside the new one until previous_until
    previous_until: Mapped[datetime | None]
    types: Mapped[list[str]]
    disabled_at: Mapped[datetime | None]
    disabled_why: Mapped[str | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """A message to an endpoint: written with what it tells of, in one transaction, sent by the dispatchers until it arrives."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (Index("webhook_delivery_due", "state", "next_at"), Index("webhook_delivery_endpoint", "endpoint_id", "id"))
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoint.id"))
    job_id: Mapped[str | None] = mapped_column(String(36))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str]  # pending, delivered, failed
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    last_seconds: Mapped[float | None]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class ApiKey(Base):
    """Who may ask. Of the key itself only its hash is kept; the prefix is what people recognise it by."""

    __tablename__ = "api_key"
    __table_args__ = (Index("api_key_hash", "sha256", unique=True),)
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str]
    scopes: Mapped[list[str]]
    quotas: Mapped[dict[str, Any] | None]  # jobs_per_day, active_jobs, storage_bytes, requests_per_minute
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class KeySession(Base):
    """A browser that was let in with a key for a while. Of the cookie only its hash is kept."""

    __tablename__ = "key_session"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Share(Base):
    """A link by which anybody may see one finished splat until it expires. Of the token only its hash is kept."""

    __tablename__ = "share"
    __table_args__ = (Index("share_hash", "sha256", unique=True), Index("share_job", "job_id"))
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    key_id: Mapped[str | None] = mapped_column(String(36))
    sha256: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Tally(Base):
    """A count over all processes and restarts, for ``/metrics``."""

    __tablename__ = "tally"
    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[str] = mapped_column(primary_key=True, default="")  # key="value",… as Prometheus writes them
    value: Mapped[float] = mapped_column(default=0.0)
