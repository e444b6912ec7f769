"""Bodies of requests and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.options import PRESETS

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")]
Scope = Literal["captures:read", "captures:write", "jobs:read", "jobs:write", "webhooks:write", "admin"]
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
DeliveryState = Literal["pending", "delivered", "failed"]
WebhookType = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
WebhookUrl = Annotated[str, Field(min_length=1, max_length=2000, description="http or https, leading to no address inside")]
WebhookSecret = Annotated[str, Field(max_length=200, description="whsec_ and base64 of 24 to 64 bytes")]
StageState = Literal["pending", "running", "done", "skipped", "failed"]


Priority = Annotated[int, Field(ge=-10, le=10, description="the higher are taken first, among equals the oldest")]
TtlHours = Annotated[float, Field(gt=0, le=87_600, description="the job is deleted so many hours after its end")]


class Request(BaseModel):
    """Root of request bodies: an unknown member is a mistake."""

    model_config = ConfigDict(extra="forbid")


class NewCapture(Request):
    """A capture to make."""

    name: Text = ""


class JobWebhook(Request):
    """Where to tell of this one job; without ``secret`` one is made, which the answer shows once. ``types`` empty: all."""

    url: WebhookUrl
    secret: WebhookSecret | None = None
    types: list[WebhookType] = Field([], max_length=10)


class Keeping(Request):
    """How urgent a job is, and how long it is kept."""

    priority: Priority = 0
    ttl_hours: TtlHours | None = None


class NewJob(Keeping):
    """A job to start. ``options`` overrides the preset: ``{"train": {"steps": 500}, "seed": 1}``; see ``/v1/options``."""

    capture_id: Id
    preset: Text = Field("draft", description=f"one of {', '.join(PRESETS)}")
    options: dict[str, Any] = {}
    webhook: JobWebhook | None = None


class RetryJob(Request):
    """A job to start again: the earlier one's options with these overrides. What it finished is taken over, up to ``from_stage``."""

    from_stage: Text | None = None
    options: dict[str, Any] = {}


class PhotoCount(Request):
    """So many photos of so many pixels."""

    count: int = Field(ge=2, le=5000)
    width: int = Field(ge=64, le=30_000)
    height: int = Field(ge=64, le=30_000)


class NewEstimate(Request):
    """A job that may be: over a capture, or over ``photos`` that are still to be taken (one of the two)."""

    capture_id: Id | None = None
    photos: PhotoCount | None = None
    preset: Text = Field("draft", description=f"one of {', '.join(PRESETS)}")
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.capture_id is None) == (self.photos is None):
            raise ValueError("give either capture_id or photos")
        return self


class StageEstimateOut(BaseModel):
    """What a stage takes; nothing where ``is_kept``: its result is there already."""

    name: str
    p50_s: float
    p90_s: float
    peak_memory_bytes: int
    is_kept: bool


class EstimateOut(BaseModel):
    """What a job takes: half of such jobs take less than ``p50_s`` seconds (``minutes`` says it again), nine tenths less than ``p90_s``.

    ``basis``: ``history`` of like jobs here, or a ``trial`` of some seconds. The photos as given are not counted in ``disk_bytes``.
    """

    basis: Literal["history", "trial"]
    preset: str
    n_photos: int
    stages: list[StageEstimateOut]
    p50_s: float
    p90_s: float
    minutes: float
    peak_memory_bytes: int
    disk_bytes: int


class ErrorOut(BaseModel):
    """Why a photo was rejected or a job failed."""

    model_config = ConfigDict(extra="allow")

    code: str
    title: str
    detail: str
    hint: str = ""
    retryable: bool = False


class PhotoOut(BaseModel):
    """One file of a capture. ``width`` and ``height`` are pixels as stored, before EXIF orientation.

    A ``companion`` is no photo but came with them: masks/NAME, transforms.json, a COLMAP model in sparse/.
    """

    id: str
    name: str
    state: Literal["accepted", "rejected", "companion"]
    size_bytes: int
    sha256: str
    format: str | None
    width: int | None
    height: int | None
    reject_reason: str | None
    error: ErrorOut | None
    created_at: datetime


class UploadedPhoto(PhotoOut):
    """What became of one uploaded file. ``is_duplicate``: the capture had these very bytes already."""

    is_duplicate: bool


class Uploaded(BaseModel):
    """What became of every file of one upload, in their order."""

    capture_id: str
    accepted: int
    rejected: int
    duplicates: int
    photos: list[UploadedPhoto]


class NewUpload(Request):
    """A file to come, by tus or, where files lie in an object store, in parts. ``sha256`` is checked when all of it is there."""

    capture_id: Id | None = None
    name: Text = ""
    size_bytes: int = Field(ge=0, lt=1 << 62)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    mode: Literal["tus", "parts"] = "tus"


class SentPart(Request):
    """A part that a client has sent, and the etag that the object store answered."""

    number: int = Field(ge=1, le=1000)
    etag: Annotated[str, Field(max_length=200)]


class CompleteUpload(Request):
    """The parts of an upload as they were sent; those that are not named are taken as they lie there."""

    parts: Annotated[list[SentPart], Field(max_length=1000)] = []


class PartOut(BaseModel):
    """A part of an upload: PUT so many bytes to ``url``; it holds as long as the upload is open, ask again for a fresh one."""

    number: int
    size_bytes: int
    has_arrived: bool
    etag: str | None
    url: str


class UploadOut(BaseModel):
    """A file on its way: ``offset`` of its ``size_bytes`` are safe. When it is done it is a photo; when refused, ``error`` says why."""

    id: str
    capture_id: str
    name: str
    state: Literal["open", "done", "refused"]
    size_bytes: int
    offset: int
    photo: PhotoOut | None
    is_duplicate: bool
    error: ErrorOut | None
    parts: list[PartOut] | None
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class CaptureOut(BaseModel):
    """A capture in short."""

    id: str
    name: str
    created_at: datetime
    accepted: int
    rejected: int
    size_bytes: int
    links: dict[str, str]


class CaptureDetail(CaptureOut):
    """A capture with all its photos."""

    photos: list[PhotoOut]


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


class CapturePage(BaseModel):
    """Captures, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[CaptureOut]
    next_cursor: str | None


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


class NewEndpoint(JobWebhook):
    """Where to tell of all jobs; without ``secret`` one is made, which the answer shows once. ``types`` empty: all."""


class EndpointChanges(Request):
    """What is to be different; what is left out stays. ``enabled`` false fails all that waits to be sent there."""

    url: WebhookUrl | None = None
    types: list[WebhookType] | None = Field(None, max_length=10)
    enabled: bool | None = None


class EndpointOut(BaseModel):
    """An address that hears of jobs, of one only when ``job_id`` is set. ``disabled_why``: why nothing is sent there."""

    id: str
    job_id: str | None
    url: str
    types: list[WebhookType]
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None
    previous_secret_until: datetime | None
    created_at: datetime


class EndpointWithSecret(EndpointOut):
    """An endpoint and the secret that messages to it are signed with (Standard Webhooks); it is not shown again."""

    secret: str


class DeliveryOut(BaseModel):
    """A message to an endpoint; ``id`` is its webhook-id, the same at each attempt. ``last_…``: how the latest attempt went."""

    id: str
    endpoint_id: str
    job_id: str | None
    type: str
    state: DeliveryState
    attempts: int
    next_at: datetime | None
    last_status: int | None
    last_error: str | None
    last_seconds: float | None
    payload: dict[str, Any]
    created_at: datetime
    delivered_at: datetime | None


class EndpointPage(BaseModel):
    """Endpoints, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[EndpointOut]
    next_cursor: str | None


class DeliveryPage(BaseModel):
    """Messages, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[DeliveryOut]
    next_cursor: str | None


class StartedJob(JobOut):
    """A job as the request that made it is answered: ``webhook`` holds the secret of the webhook that was asked for."""

    webhook: EndpointWithSecret | None = None


class NewShare(Request):
    """A link to make; it holds for ``expires_in_s`` seconds, by default a week, at most a year."""

    expires_in_s: int | None = Field(None, ge=60, le=31_536_000)


class ShareOut(BaseModel):
    """A link to a finished splat; over once ``expires_at`` has passed or ``revoked_at`` is set."""

    id: str
    job_id: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class ShareWithLink(ShareOut):
    """A link as it was made: ``url`` lets anybody see the splat, and is not shown again."""

    url: str
    token: str


class ShareList(BaseModel):
    """All links of a job, newest first."""

    items: list[ShareOut]


class PresetOut(BaseModel):
    """A preset and all its options."""

    name: str
    options: dict[str, Any]


class PresetList(BaseModel):
    """All presets."""

    items: list[PresetOut]


class ProcessOut(BaseModel):
    """A worker or dispatcher seen lately. ``device`` is what a worker's stages run on; a card with its name."""

    kind: str
    host: str
    pid: int
    queues: str
    device: str
    seen_at: datetime


class SystemOut(BaseModel):
    """How the installation is."""

    version: str
    database: str
    storage: str
    jobs: dict[str, int]
    processes: list[ProcessOut]
    disk_free_bytes: int
    limits: dict[str, float]


class Health(BaseModel):
    """The process answers; in ``checks`` what it depends on."""

    status: Literal["ok"]
    checks: dict[str, str] = {}


class QuotasBody(Request):
    """What a key may use; null is without limit."""

    jobs_per_day: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    active_jobs: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    storage_bytes: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


class NewKey(Request):
    """A key to make; without ``expires_in_s`` it holds until it is revoked."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=20)] = [
        "captures:read",
        "captures:write",
        "jobs:read",
        "jobs:write",
        "webhooks:write",
    ]
    quotas: QuotasBody = QuotasBody()
    expires_in_s: Annotated[float, Field(gt=0, le=3_162_240_000, allow_inf_nan=False)] | None = None


class KeyOut(BaseModel):
    """A key, without the key: ``prefix`` is what people recognise it by."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    quotas: QuotasBody
    is_active: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None


class CreatedKey(KeyOut):
    """A key that was just made; ``key`` is shown this once."""

    key: str


class KeyPage(BaseModel):
    """Keys, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[KeyOut]
    next_cursor: str | None


class SessionOut(BaseModel):
    """Who asks, and whether a key is needed; ``key_id`` is null without one, ``expires_at`` is a browser session's end."""

    key_required: bool
    key_id: str | None
    name: str
    scopes: list[str]
    expires_at: datetime | None


class Problem(BaseModel):
    """RFC 9457 problem details; ``code`` is for machines, ``hint`` says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str
    retryable: bool
    errors: list[dict[str, Any]]
