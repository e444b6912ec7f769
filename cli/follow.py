"""News of one job: the event stream rings, the job itself is then read; where the stream breaks, it is read every few seconds."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from cli.client import Client
from engine.errors import SplatError

TERMINAL = ("succeeded", "failed", "cancelled")
POLL_S = 2.0
AT_MOST_EVERY_S = 0.3


def watch(client: Client, job_id: str, on_warning: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the job whenever it changed, until it has ended; ``on_warning`` hears what the engine remarked, such as a photo left out."""
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}")
    yield job
    last_id = "0"  # from the first event on: a warning may have come before we did
    while job["state"] not in TERMINAL:
        heard, asked_at = False, 0.0
        try:
            for event in client.events(job_id, last_id):
                heard, last_id = True, event.id or last_id
                if event.type == "warning":
                    on_warning(str(event.data.get("detail", "")))
                if time.monotonic() - asked_at >= AT_MOST_EVERY_S or event.type == "state":
                    asked_at = time.monotonic()
                    job = client.get(f"/v1/jobs/{job_id}")
                    yield job
        except SplatError as error:
            if not error.retryable:
                raise
        if not heard:
            time.sleep(POLL_S)
        job = client.get(f"/v1/jobs/{job_id}")
        yield job
