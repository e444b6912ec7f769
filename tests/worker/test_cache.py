"""What ingest and poses made serves later jobs; the engine's own log says what ran."""

import io
import shutil
import tarfile

import pytest

from api.storage import open_storage
from tests.photos import encoded, form
from tests.services import until
from tests.worker.conftest import job_in, new_capture, start_job
from worker.cache import DamagedError, open_tar

EARLY = ["ingest", "poses"]


def stages_run(service) -> list[str]:
    return [name for _word, name, _pid in service.runs("start")]


def states(job: dict) -> list[str]:
    return [stage["state"] for stage in job["stages"]]


def events_of(client, job_id: str) -> list[dict]:
    return client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]


def kept_files(service) -> list[str]:
    return sorted(entry.key for entry in open_storage(service.installation.settings).entries("cache"))


def test_a_second_job_with_another_preset_takes_over_ingest_and_poses_and_says_so(running):
    service, client = running
    capture = new_capture(client)
    client.post(f"/v1/captures/{capture}/photos", files=form(("holiday.jpg", b"no photo"), ("more.jpg", encoded(9))))
    first = job_in(client, start_job(client, capture), "succeeded")
    assert stages_run(service) == [*EARLY, "train", "compress"]
    assert [(each["name"], each["stage"]) for each in first["result"]["left_out"]] == [("holiday.jpg", "upload")]
    second = job_in(client, start_job(client, capture, preset="standard"), "succeeded")
    assert stages_run(service) == [*EARLY, "train", "compress", "train", "compress"]
    assert states(second) == ["skipped", "skipped", "done", "done"]
    said = [event["data"] for event in events_of(client, second["id"]) if event["type"] == "stage" and event["data"]["state"] == "skipped"]
    assert [(each["stage"], each["reason"]) for each in said] == [("ingest", "cache"), ("poses", "cache")]
    assert second["stages"][0]["stats"] == first["stages"][0]["stats"]


def test_other_options_or_photos_run_again_what_depends_on_them(running):
    _service, client = running
    capture = new_capture(client)
    job_in(client, start_job(client, capture), "succeeded")
    job = job_in(client, start_job(client, capture, options={"poses": {"neighbours": 7}}), "succeeded")
    assert states(job) == ["skipped", "done", "done", "done"]
    client.post(f"/v1/captures/{capture}/photos", files=form(("more.jpg", encoded(10))))
    assert states(job_in(client, start_job(client, capture), "succeeded")) == ["done"] * 4


def test_a_retry_runs_from_the_named_stage_on_and_takes_the_rest_although_the_folder_is_gone(running):
    service, client = running
    job_id = start_job(client)
    job_in(client, job_id, "succeeded")
    until(lambda: not (service.installation.settings.work / job_id).exists(), 10)
    for stage, expected in (("train", ["skipped", "skipped", "done", "done"]), ("poses", ["skipped", "done", "done", "done"])):
        again = client.post(f"/v1/jobs/{job_id}/retry", json={"from_stage": stage}).json()["id"]
        assert states(job_in(client, again, "succeeded")) == expected


def test_a_worker_without_the_folder_goes_on_from_what_is_kept(running):
    service, client = running
    service.tell("train", fail="input.bad", times=1)
    job_id = start_job(client)
    job_in(client, job_id, "failed")
    shutil.rmtree(service.installation.settings.work / job_id)
    again = client.post(f"/v1/jobs/{job_id}/retry", json={}).json()["id"]
    assert states(job_in(client, again, "succeeded")) == ["skipped", "skipped", "done", "done"]
    assert [stages_run(service).count(stage) for stage in EARLY] == [1, 1]


@pytest.mark.parametrize("harm", ["bit", "gone"])
def test_what_is_damaged_or_gone_is_made_again_and_kept_again(running, harm, tmp_path):
    service, client = running
    before = kept_files(service)
    capture = new_capture(client)
    job_in(client, start_job(client, capture), "succeeded")
    fresh = [key for key in kept_files(service) if key not in before]
    assert len(fresh) == 2
    storage = open_storage(service.installation.settings)
    for key in fresh:
        data = bytearray(b"".join(storage.read(key)))
        data[len(data) // 2] ^= 1
        storage.delete(key)
        if harm == "bit":
            (tmp_path / "damaged").write_bytes(data)
            storage.put(key, tmp_path / "damaged")
    assert states(job_in(client, start_job(client, capture), "succeeded")) == ["done"] * 4
    assert len([key for key in kept_files(service) if key not in before and key not in fresh]) == 2
    assert states(job_in(client, start_job(client, capture), "succeeded")) == ["skipped", "skipped", "done", "done"]


def test_what_was_kept_goes_with_its_capture(running):
    service, client = running
    before = kept_files(service)
    capture = new_capture(client)
    job = job_in(client, start_job(client, capture), "succeeded")
    assert len(kept_files(service)) == len(before) + 2
    client.delete(f"/v1/jobs/{job['id']}")
    assert client.delete(f"/v1/captures/{capture}").status_code == 204
    until(lambda: kept_files(service) == before, 15)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("/images/a.jpg"),
        member("images/../../a.jpg"),
        member("../images/a.jpg"),
        member("train/checkpoint"),
        member("poses.json"),
        member("images/a.jpg", tarfile.SYMTYPE, "/etc/hostname"),
        member("images/a.jpg", tarfile.LNKTYPE, "images.json"),
        member("images", tarfile.SYMTYPE, ".."),
        member("images/a", tarfile.CHRTYPE),
        member("images/a", tarfile.FIFOTYPE),
        member("."),
    ],
    ids=lambda info: f"{info.name}:{info.type.decode()}",
)
def test_unpacking_takes_only_files_and_folders_of_the_stage(tmp_path, bad):
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w:") as archive:
        archive.addfile(member("images.json"), io.BytesIO(b"[ ]"))
        archive.addfile(bad, io.BytesIO(b"abc") if bad.isreg() else None)
    aside = tmp_path / "deep" / "aside"
    with pytest.raises(DamagedError):
        open_tar(packed, aside, "ingest", lambda: None)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink())
    assert found == ["deep/aside/images.json", "packed.tar"]
