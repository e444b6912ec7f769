"""What can be asked for, and how the installation is: presets, options, processes, health."""

import shutil
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args, get_origin, get_type_hints

from fastapi import APIRouter
from redis.exceptions import RedisError

from api import schemas
from api.deps import App, Reading, State, needs
from api.problems import RESPONSES
from api.queue import CPU_QUEUE, GPU_QUEUE, broker_client
from api.services import jobs, routing, system
from engine.errors import CapacityError
from engine.options import PRESETS, RunOptions

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
        limits={
            name: getattr(settings, name) for name in ("max_file_bytes", "max_request_bytes", "max_photos", "min_side_px", "max_megapixels")
        },
    )


@cache
def installed_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("splatworks")
    except PackageNotFoundError:
        return "0+source"


@router.get("/healthz", tags=["system"], operation_id="get_health")
def get_health() -> schemas.Health:
    """Answer that the process lives."""
    return schemas.Health(status="ok")


@router.get("/readyz", tags=["system"], operation_id="get_readiness")
def get_readiness(app: App, session: Reading) -> schemas.Health:
    """Answer 200 when jobs can run: database, broker, dispatcher, worker and disk are there; else 503 that says what is missing."""
    seen = system.processes(session)
    n_gpu_workers = sum(routing.listens(row, GPU_QUEUE) for row in seen)
    checks = {
        "database": "ok",
        "broker": broker_state(app),
        "dispatcher": "ok" if any(row.kind == "dispatcher" for row in seen) else "no dispatcher has been seen for 30 s",
        "worker": "ok" if any(routing.listens(row, CPU_QUEUE) for row in seen) else "no worker for the cpu queue has been seen for 30 s",
        "disk": disk_state(app),
    }
    missing = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
    if missing:
        raise CapacityError("capacity.not_ready", "Not ready", "; ".join(missing), "Jobs are accepted and run later.", {"checks": checks})
    return schemas.Health(status="ok", checks={**checks, "gpu_workers": str(n_gpu_workers)})


def broker_state(app: State) -> str:
    """Return ``ok`` when the broker answers within a second."""
    if not app.settings.broker_url:
        return "no broker is set"
    try:
        with broker_client(app.settings) as client:
            client.ping()
    except (RedisError, OSError) as error:
        return f"the broker does not answer: {error}"
    return "ok"


def disk_state(app: State) -> str:
    """Return ``ok`` when uploads have room."""
    free = shutil.disk_usage(app.settings.data_dir).free
    return "ok" if free >= app.settings.min_free_bytes else f"{free >> 20} MiB are free"
