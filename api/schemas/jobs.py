"""Jobs, their stages, events and results."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schemas.common import ErrorOut, Id, Request, Text
from api.schemas.webhooks import EndpointWithSecret, JobWebhook
from engine.options import PRESETS

JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
StageState = Literal["pending", "running", "done", "skipped", "failed"]
Priority = Annotated[int, Field(ge=-10, le=10, description="the higher are taken first, among equals the oldest")]
TtlHours = Annotated[float, Field(gt=0, le=87_600, description="the job is deleted so many hours after its end")]


class Keeping(Request):
    """How urgent a job is, and how long it is kept."""

    priority: Priority = 0
    ttl_hours: TtlHours | None = None


class NewJob(Keeping):
    """A job to start. ``options`` overrides the preset: ``{"train": {"steps": 500}, "seed": 1}``; see ``/v1/options``."""

    capture_id: Id
    preset: Text = Field("draft", description=f"one of {', '.join(PRESETS)}")
    options: dict[str, Any] = Field({})
    webhook: JobWebhook | None = None


class RetryJob(Request):
    """A job to start again: the earlier one's options with these overrides. What it finished is taken over, up to ``from_stage``."""

    from_stage: Text | None = None
    options: dict[str, Any] = Field({})


class StageOut(BaseModel):
    """How far one stage is. ``progress`` runs from 0 to 1; ``data`` holds its latest figures, ``stats`` the final ones."""

    name: str
    state: StageState
    attempt: int
    progress: float
    message: str
    data: dict[str, Any] | None
    stats: dict[str, Any] | None
    seconds: float | None
    started_at: datetime | None
    finished_at: datetime | None


class EtaOut(BaseModel):
    """Seconds to the end: half of jobs like this one take less than ``p50_s``, nine tenths less than ``p90_s``.

    ``basis``: ``progress`` of a running job beside what its stages usually take here, ``queue`` with the jobs that wait before it.
    """

    p50_s: float
    p90_s: float
    basis: Literal["progress", "queue"]


class JobOut(BaseModel):
    """A job. ``result`` holds registered, photos, psnr_db, ssim, gaussians, devices (stage to what it ran on) once it has succeeded.

    In ``result`` too: ``left_out``, each file that the splat was made without, with the reason.
    ``queue`` is cpu or gpu: the workers that run its stage, or may take it. ``waits_for`` says what a queued job lacks (``disk``).
    A video counts in ``n_photos`` as the frames that may be taken of it, and once it is read as those that were.
    ``eta`` is null until stages like its own have been timed here. From ``expires_at`` on the ended job is deleted.
    """

    id: str
    capture_id: str
    parent_id: str | None
    preset: str
    options: dict[str, Any]
    n_photos: int
    state: JobState
    stage: str
    queue: str
    progress: float
    stages: list[StageOut]
    queue_position: int | None
    eta: EtaOut | None
    priority: int
    waits_for: str | None
    error_attempts: int
    lost_leases: int
    error: ErrorOut | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    expires_at: datetime | None
    links: dict[str, str]


class EventOut(BaseModel):
    """Something that happened to a job; ``seq`` counts from 1 without gaps."""

    seq: int
    at: datetime
    type: str
    data: dict[str, Any]


class AssetOut(BaseModel):
    """A finished file."""

    name: str
    size_bytes: int
    sha256: str
    media_type: str
    created_at: datetime
    url: str


class JobPage(BaseModel):
    """Jobs, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[JobOut]
    next_cursor: str | None


class EventList(BaseModel):
    """Events later than the number asked for, oldest first."""

    items: list[EventOut]


class AssetList(BaseModel):
    """All files of a job; empty until it has succeeded."""

    items: list[AssetOut]


class StartedJob(JobOut):
    """A job as the request that made it is answered: ``webhook`` holds the secret of the webhook that was asked for."""

    webhook: EndpointWithSecret | None = None
