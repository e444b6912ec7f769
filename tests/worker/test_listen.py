"""What a stage says becomes events and a picture; a stage that gets nowhere is stopped."""

import json
import time

import pytest

from api.services.leases import Claim
from api.settings import Settings
from engine.errors import InternalError
from engine.workspace import Workspace
from tests.services import until
from tests.worker.conftest import job_in, start_job
from worker.listen import Listener, Source, preview_in
from worker.runtime import StopFlag, open_runtime


def events_of(client, job_id: str) -> list[dict]:
    return client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]


def test_events_come_at_whole_per_cents_and_the_picture_is_shown_while_it_trains(running):
    service, client = running
    service.tell("train", seconds=6, preview=True)
    job_id = start_job(client)
    assert client.get(f"/v1/jobs/{job_id}/preview").status_code == 404
    shown = until(lambda: [event["data"] for event in events_of(client, job_id) if event["type"] == "preview"])
    assert shown[0] == {"stage": "train", "url": f"/v1/jobs/{job_id}/preview", "step": 5}
    picture = client.get(shown[0]["url"])
    assert picture.headers["content-type"] == "image/webp"
    assert picture.content.startswith(b"RIFF train")
    assert client.get(shown[0]["url"], headers={"If-None-Match": picture.headers["etag"]}).status_code == 304
    job = job_in(client, job_id, "succeeded")
    assert job["links"]["preview"] == shown[0]["url"]
    events = events_of(client, job_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    cents = [
        int(100 * event["data"]["fraction"] + 1e-9) for event in events if event["type"] == "progress" and event["data"]["stage"] == "train"
    ]
    assert len(cents) >= 3
    assert cents == sorted(set(cents))
    assert "preview" not in str([event["data"] for event in events if event["type"] == "progress"])
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}/preview").status_code == 410


def test_a_stage_that_says_the_same_again_and_again_is_stopped_and_named(service):
    service.installation.settings = service.installation.settings.model_copy(update={"stall_s": 4.0, "max_error_attempts": 1})
    service.tell("poses", babble=120)
    service.installation.start_worker()
    service.installation.start_dispatcher()
    with service.installation.api() as client:
        job = job_in(client, start_job(client), "failed")
    assert (job["error"]["code"], job["error"]["stage"], job["error_attempts"]) == ("internal.stage_stalled", "poses", 1)
    assert len(service.started("poses")) == 1


@pytest.mark.parametrize(
    ("lines", "is_stalled"),
    [
        ([{"type": "progress", "fraction": 0.5, "message": "m", "data": {"step": 7}}] * 2, True),
        (["a line for people", "another line for people"], True),
        ([{"type": "progress", "fraction": each, "message": "m"} for each in (0.5, 0.6)], False),
        ([{"type": "progress", "fraction": 0.5, "message": "m", "data": {"step": each}} for each in (7, 8)], False),
        ([{"type": "progress", "fraction": 0.5, "message": each} for each in ("one model", "two models")], False),
        ([{"type": "checkpoint", "step": each} for each in (7, 8)], False),
    ],
)
def test_progress_is_a_step_a_share_or_other_words_not_mere_noise(tmp_path, lines, is_stalled):
    runtime = open_runtime(Settings(data_dir=tmp_path / "data", stall_s=0.4), StopFlag())
    source = Source(runtime, Claim("j", 1, "train", "cpu"), Workspace.at(tmp_path / "work"), "poses")
    with (tmp_path / "log").open("wb") as log:
        listener = Listener(source, log)
        listener.hear(as_line(lines[0]))
        time.sleep(0.5)
        listener.hear(as_line(lines[1]))
        if is_stalled:
            with pytest.raises(InternalError, match=r"poses made no progress for 0\.4 s"):
                listener.check()
        else:
            listener.check()
    runtime.db.close()


def as_line(said: dict | str) -> str:
    return said if isinstance(said, str) else json.dumps(said)


def test_a_job_waits_for_disk_and_goes_on_by_itself(service):
    service.installation.start_worker(SPLATWORKS_MIN_FREE_BYTES=str(1 << 60))
    service.installation.start_dispatcher()
    with service.installation.api() as client:
        job_id = start_job(client)
        until(lambda: client.get(f"/v1/jobs/{job_id}").json()["waits_for"] == "disk")
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
        assert service.runs() == []
        service.installation.kill("worker", group=True)
        service.installation.start_worker()
        job = job_in(client, job_id, "succeeded")
        assert job["waits_for"] is None
        assert [event["type"] for event in events_of(client, job_id)].count("waiting") == 1


def test_only_small_pictures_inside_the_folder_are_shown(tmp_path):
    workspace = Workspace.at(tmp_path / "work")
    workspace.train.mkdir()
    good = workspace.train / "preview.webp"
    good.write_bytes(b"RIFF")
    (tmp_path / "secret.webp").write_bytes(b"x")
    (workspace.train / "link.webp").symlink_to(tmp_path / "secret.webp")
    (workspace.train / "huge.webp").write_bytes(bytes(5 << 20))
    (workspace.train / "checkpoint").write_bytes(b"x")
    assert preview_in(workspace, "train/preview.webp") == good
    for name in (
        "../secret.webp",
        str(tmp_path / "secret.webp"),
        "train/link.webp",
        "train/huge.webp",
        "train/checkpoint",
        "train/none.webp",
        "train",
    ):
        assert preview_in(workspace, name) is None, name
