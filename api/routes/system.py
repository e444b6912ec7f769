"""What can be asked for, and how the installation is: presets, options, processes, health."""

import shutil
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args, get_origin, get_type_hints

from fastapi import APIRouter

from api import schemas
from api.deps import App, Reading, needs
from api.problems import RESPONSES
from api.services import jobs, system
from engine.options import PRESETS, RunOptions

LIMITS = ("max_file_bytes", "max_video_bytes", "max_request_bytes", "max_photos", "min_side_px", "max_megapixels")

router = APIRouter(responses=RESPONSES)
JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


@router.get("/v1/presets", tags=["system"], dependencies=[needs()], operation_id="list_presets")
def list_presets() -> schemas.PresetList:
    """List the presets with all their options."""
    return schemas.PresetList(items=[schemas.PresetOut(name=name, options=jobs.as_json(options)) for name, options in PRESETS.items()])


@router.get("/v1/options", tags=["system"], dependencies=[needs()], operation_id="describe_options")
def describe_options() -> dict[str, Any]:
    """Return a JSON Schema of the options: type, default, range and meaning of each."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Options", **options_schema()}


@cache
def options_schema() -> dict[str, Any]:
    """Return the schema of all options; ``preset`` is chosen beside them."""
    schema = group_schema(RunOptions, asdict(RunOptions()))
    del schema["properties"]["preset"]
    return schema


def group_schema(group: type[Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one dataclass of options."""
    hints = get_type_hints(group)
    properties: dict[str, Any] = {}
    for spec in fields(group):
        kind, default = hints[spec.name], defaults[spec.name]
        is_group = isinstance(kind, type) and is_dataclass(kind)
        properties[spec.name] = group_schema(kind, default) if is_group else option_schema(kind, default, dict(spec.metadata))
    return {"type": "object", "description": (group.__doc__ or "").strip(), "properties": properties, "additionalProperties": False}


def option_schema(kind: Any, default: Any, rule: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one option."""
    choices = list(rule.get("choices") or ())
    if get_origin(kind) is tuple:
        items: dict[str, Any] = {"type": JSON_TYPES[get_args(kind)[0]], **({"enum": choices} if choices else {})}
        schema: dict[str, Any] = {"type": "array", "items": items, "default": list(default)}
    else:
        schema = {"type": JSON_TYPES.get(kind, "string"), "default": default, **({"enum": choices} if choices else {})}
    bounds = {"minimum": rule.get("low"), "maximum": rule.get("high"), "description": rule.get("help")}
    return schema | {name: value for name, value in bounds.items() if value is not None}


@router.get("/v1/system", tags=["system"], dependencies=[needs()], operation_id="get_system")
def get_system(app: App, session: Reading) -> schemas.SystemOut:
    """Return what runs here: processes seen lately, jobs by state, free disk, limits."""
    names = ("kind", "host", "pid", "queues", "device", "seen_at")
    settings = app.settings
    return schemas.SystemOut(
        version=installed_version(),
        database=app.db.engine.dialect.name,
        storage="local" if app.storage.root is not None else "object store",
        jobs=system.jobs_by_state(session),
        processes=[schemas.ProcessOut(**{name: getattr(row, name) for name in names}) for row in system.processes(session)],
        disk_free_bytes=shutil.disk_usage(settings.data_dir).free,
        limits={name: getattr(settings, name) for name in LIMITS},
    )


@cache
def installed_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("splatworks")
    except PackageNotFoundError:
        return "0+source"
