"""``splatworks serve`` with its real broker, api, worker and dispatcher."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

from tests.cli.conftest import Serve, command, environment, run

BROKER = "-server unixsocket:"


def wait_until(condition, timeout_s: float = 30.0, what: str = "it") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s:g} s"
        time.sleep(0.1)


def pid_of(service: Serve, words: str) -> int:
    found = [pid for pid, line in service.children().items() if words in line and "launch.py" not in line]
    assert found, (words, service.children())
    return min(found)


def is_ready(service: Serve) -> bool:
    try:
        return httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_serve_announces_its_address_and_is_ready(served):
    assert served.announced["pid"] == served.process.pid
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", served.url)
    assert is_ready(served)
    assert f"Splatworks is ready at {served.url}" in served.log.read_text()


def test_every_log_line_has_time_and_process_in_front(served):
    lines = served.log.read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (serve|broker|api|worker|worker-gpu\d+|dispatcher) +\| ", line) for line in lines), lines
    assert {"api", "worker"} <= {line.split()[1] for line in lines}


def test_the_broker_listens_on_no_tcp_port(served):
    broker = pid_of(served, BROKER)
    links = [str(link.readlink()) for link in Path(f"/proc/{broker}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    listening = {row.split()[9] for table in tables for row in table if row.split()[3] == "0A"}
    assert inodes
    assert not inodes & listening


def test_a_second_serve_on_the_same_folder_says_so_and_ends(served):
    second = run("serve", "--port", "0", "--data-dir", str(served.data_dir))
    assert second.returncode == 1
    assert "Already running" in second.stderr
    assert served.url in second.stderr
    assert is_ready(served), "the first one goes on"


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in ended.stderr
    assert "--port" in ended.stderr


def test_an_address_that_others_reach_is_refused_until_there_is_a_key(tmp_path):
    ended = run("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1
    assert "No key yet" in ended.stderr
    assert "splatworks keys create" in ended.stderr
    assert "ALLOW_REMOTE" in ended.stderr


def test_a_service_that_cannot_start_says_why_and_leaves_nothing(serve_one):
    broken = environment(SPLATWORKS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", SPLATWORKS_DATA_DIR=str(serve_one.data_dir))
    ended = subprocess.run(command("serve", "--port", "0"), check=False, env=broken, capture_output=True, text=True, timeout=60, cwd="/")
    assert ended.returncode == 1
    assert "127.0.0.1" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not serve_one.children()


def test_children_that_die_are_started_again(serve_one):
    serve_one.start()
    for words in ("uvicorn api.app", "worker.dispatcher", "celery", BROKER):
        before = pid_of(serve_one, words)
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda words=words, before=before: [p for p, line in serve_one.children().items() if words in line and p > before], what=words
        )
    wait_until(lambda: is_ready(serve_one), what="recovery")
    assert serve_one.log.read_text().count("ended by signal 9 (SIGKILL); starting it again") == 4


def test_a_gpu_worker_without_its_card_says_so_and_the_rest_goes_on(serve_one):
    serve_one.env = {"SPLATWORKS_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    serve_one.start()
    wait_until(lambda: "worker-gpu0 ended with exit status 1" in serve_one.log.read_text(), what="the end of the GPU worker")
    assert "No such card: a worker for the gpu queue needs a card" in serve_one.log.read_text()
    workers = [(row["queues"], row["device"]) for row in serve_one.get("/v1/system")["processes"] if row["kind"] == "worker"]
    assert workers == [("cpu", "cpu")]


def start_job(service: Serve, photos: Path, steps: int) -> str:
    """Start a job whose training takes steps / 5000 seconds, and wait until it trains."""
    files = [("files", (path.name, path.read_bytes())) for path in photos.glob("[0-9].jpg")]
    form = {"options": json.dumps({"train": {"steps": steps}})}
    job = httpx.post(f"{service.url}/v1/jobs", files=files, data=form, trust_env=False).raise_for_status().json()
    wait_until(lambda: service.get(f"/v1/jobs/{job['id']}")["stages"][2]["progress"] > 0, what="training")
    return job["id"]


def test_sigterm_and_kill_minus_9_leave_nothing_behind_and_the_job_goes_on_at_the_next_start(serve_one, photos):
    serve_one.start()
    job = start_job(serve_one, photos, 40_000)
    runtime = (serve_one.data_dir / "runtime").readlink()
    assert (runtime / "broker.sock").exists()
    started = time.monotonic()
    assert serve_one.stop(signal.SIGTERM) == 0
    assert time.monotonic() - started < 25
    assert not serve_one.children()
    assert not runtime.exists()
    assert not (serve_one.data_dir / "serve.json").exists()

    serve_one.start()
    wait_until(lambda: any("scene_engine.py stage train" in line for line in serve_one.children().values()), what="the engine")
    runtime = (serve_one.data_dir / "runtime").readlink()
    assert serve_one.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not serve_one.children(), 5.0, "the end of all children")

    serve_one.start()
    assert not runtime.exists(), "the next start removes what was left"
    wait_until(lambda: serve_one.get(f"/v1/jobs/{job}")["state"] == "succeeded", what="success")
    done = serve_one.get(f"/v1/jobs/{job}")
    assert (done["error_attempts"], done["lost_leases"]) == (0, 1), "a shutdown is nobody's fault, a lost worker is counted"
