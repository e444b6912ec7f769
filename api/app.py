"""The web application: ``uvicorn --factory api.app:create_app``."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from api import logs, problems
from api.db import check_schema, open_database
from api.deps import State
from api.metrics import Requests
from api.middleware import Surround
from api.observed import Observed
from api.routes import assets, captures, estimates, events, health, jobs, keys, shares, system, uploads, viewer, webhooks
from api.schemas import NewJob
from api.services.keys import check_guarded
from api.settings import Settings
from api.storage import open_storage
from api.tracing import open_tracer
from api.tus import Tus

DESCRIPTION = "Photos in, 3D Gaussian splats out. Every answer of 400 and above is an RFC 9457 problem with a code and a hint."
API_VERSION = "1"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; database and storage open when it starts and close when it ends."""
    chosen = settings or Settings()
    if settings is None:  # uvicorn's own call: the process is this application's, and so are its logs
        logs.configure(chosen)
    tracer, requests = open_tracer(chosen, "api"), Requests()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for folder in (chosen.data_dir, chosen.incoming, chosen.logs):
            folder.mkdir(parents=True, exist_ok=True)
        db = open_database(chosen)
        try:
            check_schema(db)
            if chosen.keys_required:
                with db.reading() as session:
                    check_guarded(session, chosen)
            app.state.splatworks = State(chosen, db, open_storage(chosen))
            yield
        finally:
            db.close()
            tracer.close()

    # FastAPI's own documentation pages load scripts from other hosts, so they are off.
    app = FastAPI(
        title="Splatworks", version=API_VERSION, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    problems.install(app)
    app.state.requests = requests
    app.add_middleware(Surround, settings=chosen)
    app.add_middleware(Tus)
    app.add_middleware(Observed, requests=requests, tracer=tracer)  # added last: outermost
    for router in (
        captures.router,
        uploads.router,
        jobs.router,
        keys.router,
        estimates.router,
        events.router,
        assets.router,
        system.router,
        health.router,
        viewer.router,
        webhooks.router,
        shares.router,
        shares.opened,
    ):
        app.include_router(router)

    @app.get("/v1/openapi.json", include_in_schema=False)
    def openapi_document() -> Response:
        return Response(document_text(app), media_type="application/json")

    return app


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application, with problems among its components."""
    schema = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    describe_new_job(schema)
    return problems.describe(schema)


def describe_new_job(schema: dict[str, Any]) -> None:
    """Add the body that starts a job, which its route reads by hand, to the components of an OpenAPI document."""
    described = NewJob.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = described.pop("$defs", {})
    schema.setdefault("components", {}).setdefault("schemas", {}).update({"NewJob": described, **parts})


def document_text(app: FastAPI) -> str:
    """Return the document as the text that ``docs/openapi.json`` holds."""
    return json.dumps(document(app), indent=1, sort_keys=True) + "\n"
