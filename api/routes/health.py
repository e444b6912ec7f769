"""Whether the service lives, whether jobs can run, and its figures for Prometheus."""

import shutil

from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError

from api import metrics, schemas
from api.deps import App, State, needs
from api.errors import StorageAway
from api.models import Process
from api.problems import RESPONSES
from api.queue import CPU_QUEUE, GPU_QUEUE, broker_client
from api.services import backlog, routing, system
from api.services.keys import ADMIN
from engine.errors import CapacityError

router = APIRouter(tags=["system"], responses=RESPONSES)


@router.get("/healthz", operation_id="get_health")
def get_health() -> schemas.Health:
    """Answer that the process lives."""
    return schemas.Health(status="ok")


@router.get("/readyz", operation_id="get_readiness")
def get_readiness(app: App) -> schemas.Health:
    """Answer 200 when jobs can run, else 503 that says what is missing: database, broker, storage, dispatcher, worker or disk."""
    with app.db.reading() as session:
        seen = system.processes(session)
        outbox = backlog.outbox(session)
    checks = {
        "database": "ok",
        "broker": broker_state(app),
        "storage": storage_state(app),
        **processes_state(seen),
        "disk": disk_state(app),
    }
    missing = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
    # Told, but no reason to send jobs elsewhere: an endpoint of somebody's that is slow makes this grow.
    checks |= {"gpu_workers": str(sum(routing.listens(row, GPU_QUEUE) for row in seen)), "outbox_late_s": f"{outbox.oldest_s:.0f}"}
    if missing:
        raise CapacityError("capacity.not_ready", "Not ready", "; ".join(missing), "Jobs are accepted and run later.", {"checks": checks})
    return schemas.Health(status="ok", checks=checks)


@router.get(
    "/metrics",
    dependencies=[needs(ADMIN)],
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def get_metrics(request: Request, app: App) -> Response:
    """Return figures in Prometheus's text format; where keys are needed, other machines need one for this too."""
    body, content_type = metrics.render(app, request.app.state.requests, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def processes_state(seen: list[Process]) -> dict[str, str]:
    """Return ``ok`` for dispatcher and worker when one of each has shown itself lately."""
    has = {
        "dispatcher": any(row.kind == "dispatcher" for row in seen),
        "worker": any(routing.listens(row, CPU_QUEUE) for row in seen),
    }
    words = {"dispatcher": "no dispatcher", "worker": "no worker for the cpu queue"}
    return {kind: "ok" if there else f"{words[kind]} has been seen for {system.SEEN_S:g} s" for kind, there in has.items()}


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


def storage_state(app: State) -> str:
    """Return ``ok`` when the storage answers and its bucket is there."""
    try:
        app.storage.check()
    except (StorageAway, OSError) as error:
        return str(error)
    return "ok"


def disk_state(app: State) -> str:
    """Return ``ok`` when uploads have room."""
    free = shutil.disk_usage(app.settings.data_dir).free
    return "ok" if free >= app.settings.min_free_bytes else f"{free >> 20} MiB are free"
