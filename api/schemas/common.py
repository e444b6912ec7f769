"""What many bodies share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")]


class Request(BaseModel):
    """Root of request bodies: an unknown member is a mistake, and so is text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        # JSON has one kind of numbers: 3.0 is whole, and JSON Schema takes it for an integer.
        if not isinstance(data, dict):
            return data
        return {name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in data.items()}


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
