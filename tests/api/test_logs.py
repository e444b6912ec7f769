"""Lines of log: what they name, their two forms, and what never stands in them."""

import json
import logging
import secrets
import subprocess
import sys

import httpx
import pytest

from api import logs
from api.services import keys
from api.settings import Settings
from tests.photos import upload
from tests.services import REPOSITORY, free_port, until


def record(message: str, *values: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("x.y", logging.WARNING, "f.py", 1, message, values, info)
    made.fields = fields
    return made


def test_a_json_line_names_time_level_logger_and_what_it_is_about():
    with logs.about(job="j", stage="train"), logs.about(fence=3):
        line = json.loads(logs.Json().format(record("it %s\nbroke", "ä", error=ValueError("why"), ms=1.5)))
    assert line["time"].endswith("+00:00")
    del line["time"]
    error = line.pop("error")
    assert "ValueError: why" in error
    expected = {"level": "warning", "logger": "x.y", "message": "it ä\nbroke", "job": "j", "stage": "train", "fence": 3, "ms": 1.5}
    assert line == expected
    assert logs.named() == {}


def test_a_line_for_people_says_what_its_message_does_not():
    with logs.about(job="j-1", fence=3):
        assert logs.Text().format(record("job %s waits", "j-1")) == "WARNING x.y: job j-1 waits fence=3"


SECRETS = {
    "a key": (f"sk_abcd1234_{secrets.token_urlsafe(32)}", 12),
    "a webhook's secret": (f"whsec_{secrets.token_urlsafe(24)}==", 6),
    "a shared link": (f"/s/{secrets.token_urlsafe(32)}", 3),
    "an unknown bearer": (f"Bearer {secrets.token_hex(20)}", 7),
    "a password": ("postgresql://splatworks:hunter2@database/x", 24),
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_blotted_out_of_messages_fields_and_traces(name):
    secret, shown = SECRETS[name]
    hidden = secret[shown : secret.find("@") if "@" in secret else None]
    broken = record("got %s, then", secret, error=ValueError(f"no {secret}"), url=f"x {secret}")
    for formatter in (logs.Json(), logs.Text()):
        line = formatter.format(broken)
        assert hidden not in line
        assert line.count(logs.BLOT) == 3
        assert line.count(secret[:shown]) == 3, "what it was can be seen"
    json.loads(logs.Json().format(broken))


def test_what_is_no_secret_stays():
    text = (
        'GET http://127.0.0.1:8000/s/short {"url": "http://a:80/x", "mail": "a@b"} task_sk_1 /v1/jobs/0198c0de-0000-7000-8000-000000000000'
    )
    assert logs.blotted(text) == text


def new_key(db) -> str:
    with db.writing() as session:
        return keys.create(session, keys.NewKey("test", scopes=("admin",)))[1]


def answers(client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_api_says_each_request_once_as_json_without_paths_or_secrets(installation, db):
    key, token, hook = new_key(db), secrets.token_urlsafe(32), f"whsec_{secrets.token_urlsafe(24)}"
    more = {"SPLATWORKS_LOG_FORMAT": "json", "SPLATWORKS_REQUIRE_KEY": "1"}
    command = ("uvicorn", "api.app:create_app", "--factory", "--port", str(port := free_port()), "--no-access-log")
    installation.start("api", *command, **more)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, headers={"Authorization": f"Bearer {key}"}) as client:
        until(lambda: answers(client))
        capture = client.post("/v1/captures", json={"name": hook}).json()["id"]
        assert upload(client, capture, 1).status_code == 201
        assert client.get(f"/s/{token}").status_code == 404
        assert client.get(f"/v1/jobs/{token}?key={key}").status_code == 404
        refused = client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"})
        assert refused.status_code == 401
        assert client.post("/v1/webhook-endpoints", json={"url": f"http://127.0.0.1/{hook}"}).status_code >= 400
    installation.end("api")
    written = (installation.settings.data_dir / "api.out").read_text()
    for secret in (key, key.rpartition("_")[2], token, hook):
        assert secret not in written
    found = [line for line in map(json.loads, written.splitlines()) if line["logger"] == logs.ACCESS]
    made = next(line for line in found if (line["method"], line["route"]) == ("POST", "/v1/captures"))
    assert (made["status"], made["level"], made["message"]) == (201, "info", "POST /v1/captures 201")
    assert made["ms"] >= 0
    assert made["request_id"]
    assert made["key"] == "sk_" + key.split("_")[1]
    assert next(line for line in found if line["route"].endswith("/photos"))["capture_id"] == capture
    assert next(line for line in found if line["status"] == 401)["request_id"] == refused.headers["x-request-id"]
    assert {line["route"] for line in found} >= {"/healthz", "/v1/jobs/{job_id}", "/s/{token}"}


def test_the_application_of_another_process_leaves_that_process_its_logs(tmp_path):
    code = "import logging, api.app, api.settings as s; api.app.create_app(s.Settings()); print(logging.getLogger().handlers)"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout.strip() == "[]"
    assert Settings(data_dir=tmp_path).log_format == "text"
