"""What holds for every route: problems, ids, who may ask; and the committed description."""

import json
import subprocess
import sys

from api.app import create_app, document_text
from api.db import migrate
from api.settings import Settings
from tests.api.conftest import is_problem
from tests.services import REPOSITORY


def test_unknown_routes_and_methods_are_problems(client):
    is_problem(client.get("/v1/nope"), 404, "http.not_found")
    answer = client.put("/v1/jobs")
    is_problem(answer, 405, "http.method_not_allowed")
    assert answer.headers["allow"]


def test_every_answer_carries_an_id_and_a_problem_the_same_one(client):
    answer = client.get("/v1/nope")
    assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert client.get("/healthz").headers["x-request-id"] != answer.headers["x-request-id"]


def test_an_error_of_ours_is_a_problem_without_its_words(installation, tmp_path):
    installation.settings = installation.settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/other.db"})
    migrate(installation.settings)
    with installation.api() as client:
        migrate(installation.settings, "base")  # somebody takes the tables away under the running service
        answer = client.get("/v1/jobs")
        body = is_problem(answer, 503, "capacity.database")
        assert "no such table" not in answer.text
        assert body["retryable"]
        assert answer.headers["retry-after"]


def test_a_foreign_host_or_web_page_is_refused(client):
    is_problem(client.get("/v1/jobs", headers={"Host": "evil.example"}), 403, "request.foreign_host")
    is_problem(client.post("/v1/captures", headers={"Origin": "http://evil.example"}), 403, "request.foreign_origin")
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.post("/v1/captures", headers={"Origin": own}).status_code == 201
    assert client.get("/healthz", headers={"Host": "[::1]:8000"}).status_code == 200
    for host in ("", "[", "]:", "localhost:x", "127.0.0.1.evil.example", "@localhost"):
        assert client.get("/healthz", headers={"Host": host}).status_code in (200, 400, 403), host


def test_system_options_and_presets_describe_the_installation(client, installation):
    system = client.get("/v1/system").json()
    assert system["database"] == ("postgresql" if installation.stack.postgres_url else "sqlite")
    assert system["limits"]["max_photos"] == installation.settings.max_photos
    names = [each["name"] for each in client.get("/v1/presets").json()["items"]]
    assert names == ["draft", "standard", "high"]
    schema = client.get("/v1/options").json()
    steps = schema["properties"]["train"]["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["default"]) == ("integer", 1, 3000)
    assert schema["properties"]["compress"]["properties"]["formats"]["items"]["enum"]


def test_readiness_says_what_is_missing(client):
    body = is_problem(client.get("/readyz"), 503, "capacity.not_ready")
    checks = body["data"]["checks"]
    assert (checks["database"], checks["broker"], checks["disk"]) == ("ok", "ok", "ok")
    assert "no worker" in checks["worker"]
    assert client.get("/healthz").json()["status"] == "ok"


def test_the_committed_description_is_that_of_the_code(tmp_path):
    committed = REPOSITORY / "docs" / "openapi.json"
    assert committed.read_text() == document_text(create_app(Settings(data_dir=tmp_path))), "run: python -m api.openapi docs/openapi.json"
    operations = [entry["operationId"] for path in json.loads(committed.read_text())["paths"].values() for entry in path.values()]
    assert len(operations) == len(set(operations)) >= 20


def test_the_api_process_loads_neither_torch_nor_numpy_nor_pillow():
    code = "import sys, api.app; print([m for m in ('torch', 'numpy', 'PIL', 'pycolmap') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
