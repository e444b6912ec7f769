"""``splatworks keys``, and commands that need one, against a real service that asks for it."""

import json
import re

import pytest

from tests.cli.conftest import run
from tests.services import installed, stack_of

KEY = re.compile(r"sk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}")


def keys(*arguments: str, data_dir) -> str:
    ended = run("keys", *arguments, "--data-dir", str(data_dir))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_key_is_printed_alone_and_once(tmp_path):
    ended = run("keys", "create", "--name", "[bold]me", "--expires", "90d", "--quota", "storage_bytes=2GB", "--data-dir", str(tmp_path))
    assert KEY.fullmatch(ended.stdout.strip())
    assert "shown this once" in ended.stderr
    secret = ended.stdout.strip()[12:]
    (listed,) = json.loads(keys("list", "--json", data_dir=tmp_path))
    assert (listed["name"], listed["is_active"], listed["quotas"]["storage_bytes"]) == ("[bold]me", True, 2 * 10**9)
    shown = keys("list", data_dir=tmp_path)
    assert "[bold]me" in shown
    assert listed["prefix"] in shown
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert run("keys", "create", "--name", "again", "--unless-any", "--data-dir", str(tmp_path)).stdout == ""
    keys("revoke", f"sk_{listed['prefix']}…", data_dir=tmp_path)
    assert not json.loads(keys("list", "--json", data_dir=tmp_path))[0]["is_active"]
    assert KEY.fullmatch(keys("create", "--name", "again", "--unless-any", data_dir=tmp_path).strip())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scopes", "root"], "there is no scope 'root'"),
        (["--expires", "tomorrow"], "neither a span of time nor a date"),
        (["--expires", "2001-01-01"], "expires in the future"),
        (["--quota", "jobs_per_day=many"], "has no whole number"),
        (["--quota", "cake=3"], "there is no quota 'cake'"),
        (["--name", ""], "printable"),
    ],
)
def test_a_key_that_cannot_be_is_explained(tmp_path, arguments, words):
    ended = run("keys", "create", "--name", "x", *arguments, "--data-dir", str(tmp_path))
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_commands_send_a_key_to_a_service_that_asks_for_one_and_keys_are_made_and_ended_while_it_runs(tmp_path):
    data_dir = tmp_path / "data"
    with stack_of("embedded") as stack, installed(stack, data_dir, require_key=True) as installation:
        first = keys("create", "--name", "first", data_dir=data_dir).strip()
        with installation.api() as client:
            where = ("--server", str(client.base_url))
            refused = run("jobs", *where)
            assert refused.returncode == 1
            assert "asks for a key" in refused.stderr
            assert run("jobs", *where, SPLATWORKS_API_KEY=first).returncode == 0
            second = keys("create", "--name", "second", "--scopes", "captures:read", data_dir=data_dir).strip()
            assert client.get("/v1/captures", headers={"Authorization": f"Bearer {second}"}).status_code == 200
            wrong = run("jobs", *where, "--key", second)
            assert wrong.returncode == 1
            assert "jobs:read" in wrong.stderr
            keys("revoke", first[:11], data_dir=data_dir)
            ended = run("jobs", *where, "--key", first)
            assert ended.returncode == 1
            assert "revoked" in ended.stderr
