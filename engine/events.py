"""What a stage says while it works: typed events, and their form as JSON lines."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from engine.errors import SplatError


@dataclass(frozen=True)
class Event:
    """Root of all events; ``type`` is the word that JSON carries."""

    type: ClassVar[str] = "event"


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage began to work."""

    stage: str
    type: ClassVar[str] = "stage_started"


@dataclass(frozen=True)
class Progress(Event):
    """A stage is ``fraction`` (0..1) through; ``data`` may carry figures such as ``{"step": 400, "psnr_db": 25.1}``."""

    stage: str
    fraction: float
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    type: ClassVar[str] = "progress"


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know that does not stop the job, such as a photo left out."""

    stage: str
    code: str
    detail: str
    data: dict[str, Any] = field(default_factory=dict)
    type: ClassVar[str] = "warning"


@dataclass(frozen=True)
class Checkpointed(Event):
    """Work up to ``step`` is safe on disk."""

    stage: str
    step: int
    type: ClassVar[str] = "checkpoint"


@dataclass(frozen=True)
class StageDone(Event):
    """A stage finished; ``skipped`` when its stamp matched and nothing was done."""

    stage: str
    seconds: float
    skipped: bool
    stats: dict[str, Any]
    type: ClassVar[str] = "stage_done"


@dataclass(frozen=True)
class Failed(Event):
    """The stage ended with this error; always the last event."""

    stage: str
    error: dict[str, Any]
    type: ClassVar[str] = "error"


OnEvent = Callable[[Event], None]


def to_json_line(event: Event) -> str:
    """Return one line of JSON, without the newline."""
    return json.dumps({"type": event.type, **asdict(event)}, ensure_ascii=True, allow_nan=False)


def from_json_line(line: str) -> Event:
    """Return the event of a line that ``to_json_line`` made; ``ValueError`` when it is none."""
    values = json.loads(line)
    kind = _TYPES.get(values.pop("type", ""))
    if kind is None:
        raise ValueError(f"not an event: {line[:200]}")
    event: Event = kind(**values)
    return event


def failed(stage: str, error: SplatError) -> Failed:
    """Return the event for an error."""
    return Failed(stage, error.to_dict())


_TYPES: dict[str, Any] = {each.type: each for each in (StageStarted, Progress, Warned, Checkpointed, StageDone, Failed)}
