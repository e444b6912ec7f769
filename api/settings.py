"""What may be configured: the only reader of environment variables, all named SPLATWORKS_<NAME>."""

import ipaddress
import sys
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.options import IngestOptions


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """All settings, each read from SPLATWORKS_<NAME> and checked when created."""

    model_config = SettingsConfigDict(env_prefix="SPLATWORKS_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path.home() / ".splatworks", description="database, photos, assets, logs and work folders live here")
    database_url: str = Field("", description="sqlite:///… or postgresql://…; empty: SQLite in data_dir")
    broker_url: str = Field("", description="redis://… or redis+socket:///…; serve fills in its embedded one")
    storage_url: str = Field("", description="file:///… or s3://bucket/prefix; empty: a folder in data_dir")
    storage_options: dict[str, str] = Field({}, description="options of the object store, as JSON: aws_endpoint, aws_region, …")

    host: str = Field("127.0.0.1", description="address the api listens on")
    port: int = Field(8000, description="port the api listens on", ge=0, le=65535)
    allow_remote: bool = Field(False, description="other machines may ask without a key: something in front keeps strangers out")
    require_key: bool = Field(False, description="every request needs a key, on loopback too: behind a proxy that serves others")
    session_s: float = Field(43_200.0, description="a browser that was let in with a key may stay this long", ge=60, le=2_592_000)
    requests_per_minute: int = Field(6000, description="of one key without a quota of its own, or of one remote address", ge=1)
    refusals_per_minute: int = Field(60, description="wrong keys that one address may try", ge=1)

    max_file_bytes: int = Field(256 << 20, description="a larger photo is refused", ge=1)
    max_video_bytes: int = Field(4 << 30, description="a larger video is refused", ge=1)
    max_request_bytes: int = Field(64 << 30, description="a larger upload request is refused", ge=1)
    max_json_bytes: int = Field(1 << 20, description="a larger request body that is no upload is refused", ge=1)
    max_photos: int = Field(5000, description="a capture holds at most so many files, a job so many photos and frames of videos", ge=1)
    min_side_px: int = Field(IngestOptions().min_side, description="photos whose longer side is shorter are refused", ge=1)
    max_megapixels: float = Field(IngestOptions().max_megapixels, description="photos with more pixels are refused, 10^6", gt=0)
    min_free_bytes: int = Field(512 << 20, description="with less free disk uploads are refused", ge=0)

    max_capture_bytes: int = Field(256 << 30, description="a capture holds at most so many bytes, open uploads among them", ge=1)
    upload_ttl_s: float = Field(86_400.0, description="a resumable upload that gets no byte for so long is removed", gt=0)
    upload_idle_s: float = Field(60.0, description="a request that sends nothing for so long is ended; what came is kept", gt=0)
    upload_wait_s: float = Field(10.0, description="time the request that an upload is taken from has to let go", gt=0)
    part_bytes: int = Field(16 << 20, description="size of the parts that clients bring to the object store themselves", ge=1)

    lease_s: float = Field(60.0, description="a worker that is silent this long has lost its job", gt=0)
    heartbeat_s: float = Field(2.0, description="a worker reports this often, and learns of a cancel", gt=0)
    term_grace_s: float = Field(10.0, description="time a stage has to write a checkpoint before it is killed", ge=0)
    stall_s: float = Field(3600.0, description="a stage that says nothing for this long is stopped", gt=0)
    poll_s: float = Field(1.0, description="the dispatcher looks at the table this often", gt=0)
    resend_s: float = Field(60.0, description="a doorbell unanswered for this long is rung again", gt=0)
    sweep_s: float = Field(60.0, description="the dispatcher collects garbage this often", gt=0)
    orphans_s: float = Field(3600.0, description="the dispatcher looks this often for results in storage that no job shows", gt=0)
    retry_backoff_s: float = Field(5.0, description="wait before the second attempt; doubled for each further one", ge=0)
    max_error_attempts: int = Field(3, description="a job whose stage broke so often fails", ge=1)
    max_lost_leases: int = Field(5, description="a job that lost its worker so often, and kept nothing of the work in between, fails", ge=1)

    engine_command: tuple[str, ...] = Field((sys.executable, "-m", "engine"), description="how the worker starts the engine")
    device: str = Field("auto", description="what a worker's stages run on; the engine reads it too", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    gpu_wait_s: float = Field(60.0, description="training goes on on a CPU when no GPU worker was seen for this long", ge=1, le=1800)

    # Jobs: how long they and what their stages made are kept, what an estimate may take.
    job_ttl_hours: float = Field(0.0, description="ended jobs are deleted after so many hours, unless asked otherwise; 0 keeps them", ge=0)
    cache_bytes: int = Field(20 << 30, description="results of stages are kept for later jobs up to so many bytes; 0 keeps none", ge=0)
    cache_days: float = Field(30.0, description="results of stages that no job has used for so long are removed", ge=0, le=36_500)
    estimate_s: float = Field(120.0, description="trying out what a job will take must not take longer than this", gt=0, le=3600)

    # Webhooks and shares.
    public_url: str = Field("", description="what links to this service begin with; empty: what the request was sent to", max_length=500)
    webhook_allow: tuple[str, ...] = Field((), description='inside networks that webhooks may go to all the same, JSON: ["10.1.0.0/16"]')
    webhook_timeout_s: float = Field(15.0, description="a receiver of webhooks must have answered within this time", gt=0, le=300)
    webhook_waits_s: tuple[float, ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="pauses between attempts to deliver a webhook, JSON; after the last it has failed, by default after three days",
    )
    webhook_parallel: int = Field(16, description="a dispatcher sends so many webhooks at a time", ge=1, le=256)
    webhook_kept_s: float = Field(2_592_000.0, description="deliveries of webhooks can be looked at for so long", ge=0)
    max_webhook_endpoints: int = Field(
        100, description="so many endpoints of webhooks may there be, those of single jobs not counted", ge=1
    )
    share_days: int = Field(7, description="a link to a shared splat holds so long unless asked otherwise", ge=1, le=365)
    share_embedded_in: str = Field(
        "'self'", description="web pages that may show shared splats in a frame, as frame-ancestors says it", pattern=r"^[!-+\--:<-~ ]+$"
    )

    @field_validator("webhook_allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(each)) for each in value)

    stage_nice: int = Field(5, description="how much stages stand back when others want the processors (nice); 0: not at all", ge=0, le=19)
    # What is seen of it.
    log_format: Literal["text", "json"] = Field("text", description="lines of log for people or, a JSON object a line, for a collector")
    otlp_endpoint: str = Field("", description="OpenTelemetry collector (OTLP over HTTP) that takes traces, such as http://127.0.0.1:4318")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("SPLATWORKS_HEARTBEAT_S must be at most half of SPLATWORKS_LEASE_S")
        return self

    @property
    def keys_required(self) -> bool:
        """Whether requests need a key: wherever other machines can reach the service and nothing else keeps strangers out."""
        return self.require_key or not (self.allow_remote or is_loopback(self.host))

    @property
    def database(self) -> str:
        """URL of the database in SQLAlchemy's form."""
        url = self.database_url or f"sqlite:///{self.data_dir.resolve()}/splatworks.db"
        for prefix in ("postgres://", "postgresql://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url

    @property
    def incoming(self) -> Path:
        """Folder of uploads under way."""
        return self.data_dir / "incoming"

    @property
    def work(self) -> Path:
        """Folder of the jobs' workspaces."""
        return self.data_dir / "work"

    @property
    def logs(self) -> Path:
        """Folder of the jobs' logs while and after they run on this machine."""
        return self.data_dir / "logs"
