"""Storage that is away: requests are told to come again, jobs wait for it uncounted, and nothing that was accepted is lost."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

from tests.api.conftest import is_problem
from tests.photos import upload
from tests.s3 import Link
from tests.services import Stack, installed, until
from tests.worker.conftest import FAKE_ENGINE, Service, job_in, start_job


@contextlib.contextmanager
def behind_a_link(stack: Stack, folder) -> Iterator[tuple[Service, Link]]:
    """An installation that reaches its S3 server by a link."""
    assert stack.s3 is not None
    control = folder / "control"
    control.mkdir()
    link = Link(stack.s3.endpoint)
    options = stack.s3.options(link.endpoint)
    with installed(
        stack, folder / "data", engine_command=(sys.executable, str(FAKE_ENGINE), str(control)), storage_options=options
    ) as made:
        yield Service(made, control), link


@pytest.fixture
def linked(stack, tmp_path) -> Iterator[tuple[Service, Link]]:
    if stack.s3 is None:
        pytest.skip("files are kept in a folder here")
    with behind_a_link(stack, tmp_path) as made:
        yield made


def test_a_job_waits_for_storage_that_went_away_and_is_not_counted_as_broken(linked):
    service, link = linked
    with service.installation.api() as client:
        job_id = start_job(client)
        link.cut()
        service.installation.start_worker()
        service.installation.start_dispatcher()
        events = lambda: client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]  # noqa: E731
        n_waits = lambda: sum(each["data"].get("reason") == "storage away" for each in events())  # noqa: E731
        until(lambda: n_waits() > service.installation.settings.max_error_attempts)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] in ("queued", "running")
        link.mend()
        job = job_in(client, job_id, "succeeded", "failed")
        assert (job["state"], job["error"]) == ("succeeded", None)
        assert client.get(f"/v1/jobs/{job_id}/assets/scene.ply").status_code == 200


def test_requests_that_need_storage_that_is_away_get_503_and_leave_nothing(linked):
    service, link = linked
    with service.installation.api() as client:
        job_id = start_job(client)
        capture = client.post("/v1/captures", json={}).json()["id"]
        service.installation.start_worker()
        job_in(client, job_id, "succeeded")
        link.cut()
        is_problem(upload(client, capture, 3), 503, "capacity.storage")
        is_problem(client.get(f"/v1/jobs/{job_id}/assets/scene.ply"), 503, "capacity.storage")
        assert list(service.installation.settings.incoming.iterdir()) == []
        assert client.get(f"/v1/captures/{capture}").json()["photos"] == []
        assert client.get(f"/v1/jobs/{job_id}").status_code == 200, "what the table knows is told"
        link.mend()
        assert upload(client, capture, 3).status_code == 201
        link.cut()
