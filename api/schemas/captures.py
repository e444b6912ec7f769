"""Captures and their photos."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from api.schemas.common import ErrorOut, Request, Text


class NewCapture(Request):
    """A capture to make."""

    name: Text = ""


class PhotoOut(BaseModel):
    """One file of a capture. ``width`` and ``height`` are pixels as stored, before EXIF orientation; not every video says them.

    A ``companion`` is no photo but came with them: masks/NAME, transforms.json, a COLMAP model in sparse/.
    """

    id: str
    name: str
    kind: Literal["photo", "video", "companion"]
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


class CapturePage(BaseModel):
    """Captures, newest first; pass ``next_cursor`` as ``cursor`` for more."""

    items: list[CaptureOut]
    next_cursor: str | None
