import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.settings import Settings
from cli.process import Child, describe_exit
from cli.serve import Service, _children

ENV = dict(os.environ)


def tend_until(child: Child, lines: list[tuple[str, str]], condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, lines
        child.tend(lambda name, line: lines.append((name, line)))
        time.sleep(0.01)


def test_a_command_that_keeps_ending_is_started_again_after_ever_longer_pauses():
    lines: list[tuple[str, str]] = []
    child = Child("short", [sys.executable, "-c", "print('hello'); raise SystemExit(3)"], ENV)
    tend_until(child, lines, lambda: child.failures == 3)
    said = [line for name, line in lines if name == "serve"]
    assert said == [f"short ended with exit status 3; starting it again in {pause} s" for pause in ("0.5", "1", "2")]
    assert ("short", "hello") in lines
    assert child.end(time.monotonic())


def test_a_command_that_ignores_sigterm_is_killed_with_all_it_started_in_its_session():
    code = (
        "import signal, subprocess, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen(['sleep', '60'])\nprint(p.pid, flush=True)\ntime.sleep(60)"
    )
    lines: list[tuple[str, str]] = []
    child = Child("stubborn", [sys.executable, "-c", code], ENV)
    tend_until(child, lines, lambda: bool(lines))
    child.ask_to_stop()
    assert not child.end(time.monotonic() + 0.3), "it did not end by itself"
    grandchild = Path(f"/proc/{lines[0][1]}/stat")
    deadline = time.monotonic() + 5
    while grandchild.exists() and grandchild.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not grandchild.exists() or grandchild.read_text().split()[2] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_a_killed_supervisor_takes_its_child_along():
    code = (
        "import os, time\nfrom cli.process import Child\n"
        "child = Child('c', ['sleep', '60'], dict(os.environ))\nchild.start(lambda *_: None)\nprint(child.pid, flush=True)\ntime.sleep(60)"
    )
    root = str(Path(__file__).resolve().parents[2])
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**ENV, "PYTHONPATH": root})
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    command = Path(f"/proc/{child}/cmdline")
    deadline = time.monotonic() + 10
    while command.read_bytes() != b"sleep\x0060\x00" and time.monotonic() < deadline:  # until the launcher has become it
        time.sleep(0.02)
    supervisor.kill()
    supervisor.communicate()
    while command.exists() and command.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not command.exists() or command.read_bytes() == b""


def test_exits_are_described_in_words():
    assert describe_exit(1) == "with exit status 1"
    assert describe_exit(-signal.SIGSEGV) == "by signal 11 (SIGSEGV)"


@pytest.mark.parametrize(
    ("device", "visible", "built", "cards"),
    [
        ("auto", "", True, []),
        ("auto", "-1", True, []),
        ("auto", "0,2", True, ["0", "2"]),
        ("auto", "0,2", False, []),
        ("cpu", "0,2", True, []),
        ("cuda", "0,2", True, ["0", "2"]),
        ("cuda", "", True, ["0"]),
        ("cuda:1", "0,2", True, ["2"]),
        ("cuda:0", "GPU-6d1f", True, ["GPU-6d1f"]),
    ],
)
def test_every_card_that_is_wanted_has_its_own_worker(tmp_path, monkeypatch, device, visible, built, cards):
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    if built:
        (kernels / "libsplat_cuda.so").touch()
    monkeypatch.setenv("SPLATWORKS_KERNELS", str(kernels))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    workers = {"worker": "cpu", **{f"worker-gpu{card}": "gpu" for card in cards}}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        children = _children(Service(Settings(data_dir=tmp_path, device=device), listener), "redis+socket:///x?virtual_host=0")
    assert {child.name for child in children} == {"api", "dispatcher", *workers}
    assert {child.name: child.command[child.command.index("-Q") + 1] for child in children if "-Q" in child.command} == workers
    own = [child.env for child in children if child.name.startswith("worker-gpu")]
    assert [(env["CUDA_VISIBLE_DEVICES"], env["SPLATWORKS_DEVICE"]) for env in own] == [(card, "cuda") for card in cards]
    (beside,) = [child.env for child in children if child.name == "worker"]
    assert not cards or beside["SPLATWORKS_DEVICE"] == "cpu"
