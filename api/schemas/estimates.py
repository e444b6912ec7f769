"""What a job would take."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.schemas.common import Id, Request, Text
from engine.options import PRESETS


class PhotoCount(Request):
    """So many photos of so many pixels."""

    count: int = Field(ge=2, le=5000)
    width: int = Field(ge=64, le=30_000)
    height: int = Field(ge=64, le=30_000)


class NewEstimate(Request):
    """A job that may be: over a capture, or over ``photos`` that are still to be taken (one of the two)."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["capture_id"], "properties": {"photos": {"type": "null"}, "capture_id": {"type": "string"}}},
                {"required": ["photos"], "properties": {"capture_id": {"type": "null"}, "photos": {"type": "object"}}},
            ]
        }
    )

    capture_id: Id | None = None
    photos: PhotoCount | None = None
    preset: Text = Field("draft", description=f"one of {', '.join(PRESETS)}")
    options: dict[str, Any] = Field({})

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
