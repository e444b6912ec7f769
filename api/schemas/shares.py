"""Links to finished splats."""

from datetime import datetime

from pydantic import BaseModel, Field

from api.schemas.common import Request


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
