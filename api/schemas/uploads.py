"""Files on their way."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas.captures import PhotoOut
from api.schemas.common import ErrorOut, Id, Request, Text


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

    parts: list[SentPart] = Field([], max_length=1000)


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
