"""The one task."""

from functools import cache

from celery import Task

from api.queue import RUN_STAGE
from worker import stage
from worker.app import app, settings, stop_flag
from worker.runtime import Runtime, open_runtime


@cache
def runtime() -> Runtime:
    """Return what this process opened; each process of the pool opens its own."""
    return open_runtime(settings, stop_flag)


@app.task(name=RUN_STAGE, bind=True)
def run_stage(self: Task, job_id: str) -> None:
    """Answer a doorbell; the queue it came by says which stages are meant."""
    stage.run(runtime(), job_id, self.request.delivery_info["routing_key"])
