"""API keys and browser sessions."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas.common import Request

Scope = Literal["captures:read", "captures:write", "jobs:read", "jobs:write", "webhooks:write", "admin"]


class QuotasBody(Request):
    """What a key may use; null is without limit."""

    jobs_per_day: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    active_jobs: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    storage_bytes: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


class NewKey(Request):
    """A key to make; without ``expires_in_s`` it holds until it is revoked."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]
    scopes: list[Scope] = Field(
        ["captures:read", "captures:write", "jobs:read", "jobs:write", "webhooks:write"], min_length=1, max_length=20
    )
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
