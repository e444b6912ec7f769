"""Webhooks: endpoints and what is sent to them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schemas.common import Request

DeliveryState = Literal["pending", "delivered", "failed"]
WebhookType = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
WebhookUrl = Annotated[str, Field(min_length=1, max_length=2000, description="http or https, leading to no address inside")]
WebhookSecret = Annotated[str, Field(max_length=200, description="whsec_ and base64 of 24 to 64 bytes")]


class JobWebhook(Request):
    """Where to tell of this one job; without ``secret`` one is made, which the answer shows once. ``types`` empty: all."""

    url: WebhookUrl
    secret: WebhookSecret | None = None
    types: list[WebhookType] = Field([], max_length=10)


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
