"""``splatworks build`` and its small sisters, as commands, against a real service."""

import hashlib
import json
import shutil
import signal
import subprocess
import time

import httpx
import pytest

from engine.formats.ply import read_ply
from engine.formats.sog import read_sog
from tests.cli.conftest import Serve, command, environment, run


def build(served: Serve, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("build", *arguments, "--server", served.url)


def test_build_makes_a_splat_and_names_what_was_left_out(served, photos, tmp_path):
    done = build(served, str(photos), "-o", str(tmp_path / "scene.sog"))
    assert done.returncode == 0, done.stderr
    assert len(read_sog(tmp_path / "scene.sog")) == 9000
    assert "photo.jpg: photo.jpg is no photo" in done.stderr
    assert "notes.txt" not in done.stderr
    assert "0.jpg is blurry" in done.stderr, "what the engine remarks is passed on"
    assert [title in done.stderr for title in ("Read photos", "Find cameras", "Train gaussians", "Write files")] == [True] * 4
    assert "6 of 6" in done.stdout
    assert "30.50 dB" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.sog"], "no note, no part is left"


def test_the_extension_of_the_output_chooses_the_file(served, photos, tmp_path):
    done = build(served, str(photos / "0.jpg"), str(photos / "1.jpg"), str(photos / "2.jpg"), "-o", str(tmp_path / "x.PLY"))
    assert done.returncode == 0, done.stderr
    assert len(read_ply(tmp_path / "x.PLY")) == 9000


def test_a_file_that_the_job_did_not_write_is_named_with_those_it_did(served, photos, tmp_path):
    done = build(served, str(photos), "-o", str(tmp_path / "scene.glb"))
    assert done.returncode == 1
    assert "scene.glb" in done.stderr
    assert "scene.ply scene.sog" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{photos}", "--preset", "ultra"], ["Unknown preset", "ultra", "draft"]),
        (["{photos}", "-o", "scene.doc"], ["Unknown format", ".sog"]),
        (["{photos}", "-o", "/nowhere/scene.sog"], ["No such folder", "/nowhere"]),
        (["/nowhere"], ["No such file", "/nowhere"]),
        (["{photos}/photo.jpg", "-o", "{tmp}/s.sog"], ["Too few photos", "0 usable"]),
    ],
)
def test_errors_say_what_which_and_what_to_do_in_words(served, photos, tmp_path, arguments, words):
    done = build(served, *(each.format(photos=photos, tmp=tmp_path) for each in arguments))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_server_that_is_not_there_is_named(tmp_path):
    done = run("jobs", "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in done.stderr
    done = run("jobs", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "Not running" in done.stderr


def test_jobs_status_and_cancel_find_the_local_service_by_its_folder(served, photos):
    files = [("files", (path.name, path.read_bytes())) for path in photos.glob("[0-9].jpg")]
    job = httpx.post(f"{served.url}/v1/jobs", files=files, headers={"Prefer": "wait=30"}, trust_env=False).json()
    assert job["state"] == "succeeded"
    folder = ("--data-dir", str(served.data_dir))
    assert job["id"] in run("jobs", *folder).stdout
    shown = run("status", job["id"], *folder).stdout
    assert "succeeded" in shown
    assert "compress" in shown
    refused = run("cancel", job["id"], *folder)
    assert refused.returncode == 1
    assert "succeeded" in refused.stderr
    missing = run("status", "no-such-job", *folder)
    assert (missing.returncode, "No such job" in missing.stderr) == (1, True)


def newest_job(served: Serve, known: set[str], at_stage: str) -> dict:
    """The job that was not there before, once it is at a stage."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        fresh = [job for job in served.get("/v1/jobs")["items"] if job["id"] not in known and job["stage"] == at_stage]
        if fresh:
            return fresh[0]
        time.sleep(0.1)
    raise AssertionError("no new job came")


def start_build(served: Serve, *arguments: str) -> tuple[subprocess.Popen[str], set[str]]:
    """A build that goes on beside the test, and the jobs that were there before it."""
    known = {job["id"] for job in served.get("/v1/jobs")["items"]}
    line = command("build", *arguments, "--server", served.url)
    return subprocess.Popen(line, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/"), known


def test_build_again_after_a_break_sends_nothing_twice_and_waits_for_the_same_job(served, photos, tmp_path):
    output = tmp_path / "scene.sog"
    arguments = (str(photos), "-o", str(output), "--set", "train.steps=10000")
    process, known = start_build(served, *arguments)
    job = newest_job(served, known, "train")
    process.kill()
    process.communicate()
    note = output.with_name("scene.sog.build.json")
    assert json.loads(note.read_text())["capture_id"] == job["capture_id"]

    second = build(served, *arguments)
    assert second.returncode == 0, second.stderr
    assert [each["id"] for each in served.get("/v1/jobs")["items"] if each["id"] not in known] == [job["id"]]
    assert len(served.get(f"/v1/captures/{job['capture_id']}")["photos"]) == 7, "six photos and the rejected one, each once"
    (asset,) = (each for each in served.get(f"/v1/jobs/{job['id']}/assets")["items"] if each["name"] == "scene.sog")
    assert hashlib.sha256(output.read_bytes()).hexdigest() == asset["sha256"]
    assert not note.exists()


def test_ctrl_c_cancels_the_job_and_a_second_try_starts_a_new_one(served, photos, tmp_path):
    arguments = (str(photos), "-o", str(tmp_path / "s.sog"), "--set", "train.steps=200000")
    process, known = start_build(served, *arguments)
    job = newest_job(served, known, "train")
    process.send_signal(signal.SIGINT)
    _out, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Cancelled" in said
    assert served.get(f"/v1/jobs/{job['id']}")["state"] == "cancelled"
    assert not any("scene_engine.py" in line for line in served.children().values())

    process, known = start_build(served, *arguments)
    again = newest_job(served, known, "train")
    assert again["capture_id"] == job["capture_id"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_options_are_overridden_by_name_and_wrong_ones_are_refused(served, photos, tmp_path):
    for override, words in (("train.stepps=3", "train.stepps"), ("train.steps=many", "many"), ("train", "no value")):
        refused = build(served, str(photos), "-o", str(tmp_path / "s.sog"), "--set", override)
        assert refused.returncode == 1
        assert words in refused.stderr


def test_a_failed_job_ends_with_its_error_and_hint_and_without_a_server_one_is_started_and_ended(serve_one, photos, tmp_path):
    folder = tmp_path / "photos with spaces and ünïcode"
    shutil.copytree(photos, folder)
    arguments = ("build", str(folder), "-o", str(tmp_path / "s.sog"), "--data-dir", str(serve_one.data_dir))
    done = run(*arguments, SCENE_ENGINE_FAIL="poses")
    assert done.returncode == 1
    assert "Too little overlap" in done.stderr
    assert "3 of 9 photos could be placed" in done.stderr
    assert "Take photos closer to each other." in done.stderr
    assert not serve_one.children()
    assert "Splatworks is ready" in (serve_one.data_dir / "serve.log").read_text()
