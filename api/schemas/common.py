"""What many bodies share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")]


class Request(BaseModel):
    """Root of request bodies: an unknown member is a mistake, and so is text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorOut(BaseModel):
    """Why a photo was rejected or a job failed."""

    model_config = ConfigDict(extra="allow")

    code: str
    title: str
    detail: str
    hint: str = ""
    retryable: bool = False


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
