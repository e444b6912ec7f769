"""The lines of docs/operations.md copy a service that runs, and bring it to life elsewhere."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.db import migrate
from tests.services import REPOSITORY, Installation, Stack, postgres_binary, until
from tests.worker.conftest import job_in, new_capture, start_job

TUS, BODY = {"Tus-Resumable": "1.0.0"}, {"Content-Type": "application/offset+octet-stream"}


def lines(name: str) -> str:
    page = (REPOSITORY / "docs/operations.md").read_text()
    return re.search(rf"<!-- {name}-begin -->\n```sh\n(.*?)```\n<!-- {name}-end -->", page, re.DOTALL).group(1)


def run(name: str, **folders: object) -> None:
    """Run the page's lines, with the folders that they name."""
    told = "".join(f"{key}='{value}'\n" for key, value in folders.items())
    programs = f"{Path(postgres_binary('pg_dump')).parent}:" if "postgres" in name else ""
    subprocess.run(["bash", "-euc", told + lines(name)], check=True, env={**os.environ, "PATH": programs + os.environ["PATH"]})


def bytes_of(client, job_id: str) -> dict[str, str]:
    listed = client.get(f"/v1/jobs/{job_id}/assets").json()["items"]
    return {each["name"]: hashlib.sha256(client.get(f"/v1/jobs/{job_id}/assets/{each['name']}").content).hexdigest() for each in listed}


def part_of_an_upload(client) -> tuple[str, bytes]:
    """Begin an upload and send half of it; return its address and the other half."""
    capture = client.post("/v1/captures", json={}).json()["id"]
    content = bytes(range(256)) * 64
    made = client.post(f"/v1/captures/{capture}/uploads", headers={**TUS, "Upload-Length": str(len(content))})
    assert made.status_code == 201, made.text
    address, half = made.headers["location"], len(content) // 2
    sent = client.patch(address, headers={**TUS, **BODY, "Upload-Offset": "0"}, content=content[:half])
    assert sent.headers["upload-offset"] == str(half)
    return address, content[half:]


@dataclass
class Place:
    """Where copies lie, and what the page's lines are told of an installation."""

    backup: Path

    def copy(self, made: Installation) -> None:
        self.backup.mkdir(exist_ok=True)
        if made.stack.postgres_url is None:
            run("backup", data=made.settings.data_dir, backup=self.backup)
        else:
            run("backup-postgres", database=made.settings.database_url, backup=self.backup)
            shutil.copytree(made.settings.incoming, self.backup / "incoming", dirs_exist_ok=True)

    def restore(self, made: Installation) -> None:
        if made.stack.postgres_url is None:
            run("restore", data=made.settings.data_dir, backup=self.backup)
        else:
            run("restore-postgres", database=made.settings.database_url, backup=self.backup)
            shutil.copytree(self.backup / "incoming", made.settings.incoming)


@pytest.fixture
def elsewhere(service, stack: Stack, tmp_path):
    """Another machine: a folder that is not there yet and, on Postgres, a database of its own; the same engine and bucket."""
    url = stack.new_database()
    changes = {"data_dir": tmp_path / "elsewhere", "database_url": url, "broker_url": stack.broker.database_url(3999)}
    made = Installation(stack, service.installation.settings.model_copy(update=changes))
    yield made
    made.end_all()
    stack.give_back(url)


def test_a_copy_of_a_running_service_has_its_jobs_assets_and_uploads_and_goes_on(service, elsewhere, tmp_path):
    here, place = service.installation, Place(tmp_path / "backup")
    here.start_worker()
    here.start_dispatcher()
    with here.api() as client:
        finished = start_job(client)
        job_in(client, finished, "succeeded")
        before = bytes_of(client, finished)
        service.tell("train", seconds=60)
        running = start_job(client)
        until(lambda: service.started("train")[1:])
        waiting = start_job(client)
        address, rest = part_of_an_upload(client)
        for _ in range(2):  # the second time over the first
            place.copy(here)
        later = new_capture(client)
    here.end_all()
    shutil.rmtree(here.settings.data_dir)
    (service.control / "train.json").unlink()

    place.restore(elsewhere)
    migrate(elsewhere.settings)
    with elsewhere.api() as client:
        assert client.get(f"/v1/jobs/{finished}").json()["state"] == "succeeded"
        assert bytes_of(client, finished) == before
        assert len(before) >= 3
        assert client.get(f"/v1/captures/{later}").status_code == 404
        elsewhere.start_worker()
        elsewhere.start_dispatcher()
        for job in (running, waiting):
            job_in(client, job, "succeeded", timeout_s=60)
            assert bytes_of(client, job)
        sent = client.patch(address, headers={**TUS, **BODY, "Upload-Offset": str(len(rest))}, content=rest)
        assert sent.headers["upload-offset"] == str(2 * len(rest)), sent.text
