"""The installation: presets, processes, health."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel


class PresetOut(BaseModel):
    """A preset and all its options."""

    name: str
    options: dict[str, Any]


class PresetList(BaseModel):
    """All presets."""

    items: list[PresetOut]


class ProcessOut(BaseModel):
    """A worker or dispatcher seen lately. ``device`` is what a worker's stages run on; a card with its name."""

    kind: str
    host: str
    pid: int
    queues: str
    device: str
    seen_at: datetime


class SystemOut(BaseModel):
    """How the installation is."""

    version: str
    database: str
    storage: str
    jobs: dict[str, int]
    processes: list[ProcessOut]
    disk_free_bytes: int
    limits: dict[str, float]


class Health(BaseModel):
    """The process answers; in ``checks`` what it depends on."""

    status: Literal["ok"]
    checks: dict[str, str] = {}
