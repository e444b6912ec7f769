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

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON(none_as_null=True), str: String}  # noqa: RUF012 (SQLAlchemy reads it so)


class Capture(Base):
    """A set of photos."""

    __tablename__ = "capture"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str]
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
