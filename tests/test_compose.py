"""docker-compose.yml and the Dockerfiles, as far as they can be checked without a Docker engine: every reference must resolve."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from api.db import migrate, open_database
from api.models import new_id
from api.services import system
from api.settings import Settings
from api.storage import open_storage
from worker import liveness, seen

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
GPU_WORKERS = {name: service for name, service in OURS.items() if service["build"].get("target") == "gpu"}
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
ENGINE_ONLY = {"numpy", "opencv-python-headless", "pillow", "pycolmap", "torch"}


def with_defaults(text: str) -> str:
    """What Compose makes of ${NAME:-default} when the variable is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def requirement(line: str) -> str:
    """Name and extras of a requirement, without versions."""
    return re.split(r"[<>=!~; ]", line.strip())[0].lower()


def test_every_dependency_is_a_service_and_its_condition_can_come_true():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, (name, other)
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", (name, other)


def test_every_named_volume_is_declared_and_every_bound_file_exists():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"], volume
    assert set(COMPOSE["volumes"]) == {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if not v.startswith(".")}


def test_every_image_is_pinned_to_a_version_or_built_here():
    for name, service in SERVICES.items():
        assert name in OURS or re.search(r":\d", service["image"]), service["image"]


@pytest.mark.parametrize("name", OURS)
def test_build_names_a_dockerfile_and_a_stage_that_exist(name):
    build = OURS[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text()
    if "target" in build:
        assert re.search(rf"^FROM .* AS {build['target']}$", text, re.MULTILINE), build["target"]
    for argument in build.get("args", {}):
        assert f"ARG {argument}" in text


@pytest.mark.parametrize("name", OURS)
def test_environment_makes_settings_that_are_accepted(name, monkeypatch):
    environment = {key: with_defaults(str(value)) for key, value in OURS[name]["environment"].items()}
    known = {f"SPLATWORKS_{field.upper()}" for field in Settings.model_fields}
    assert set(environment) <= known
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.database == "postgresql+psycopg://splatworks:change-me@database:5432/splatworks"
    assert settings.storage_options["aws_endpoint"] == "http://storage:8333"
    assert open_storage(settings).root is None
    assert settings.device == ("cuda" if name in GPU_WORKERS else "auto")
    assert settings.keys_required
    assert settings.log_format == "json"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service.get("restart") != "no"])
def test_what_goes_on_running_has_a_healthcheck(name):
    service = SERVICES[name]
    if "test" not in service.get("healthcheck", {}):
        assert "\nHEALTHCHECK " in (ROOT / service["build"]["dockerfile"]).read_text()


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_gain_no_rights(name):
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_first_start_makes_the_tables_and_a_key_and_the_second_none(tmp_path):
    assert all("migrate" in service["depends_on"] for name, service in OURS.items() if name != "migrate")
    environment = {**os.environ, "SPLATWORKS_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program, *arguments = SERVICES["migrate"]["command"]
    assert program == "splatworks"
    command = [sys.executable, "-m", "cli.main", *arguments]
    first, second = (subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first.startswith("sk_")
    assert second == ""


def test_the_dispatchers_healthcheck_tells_whether_it_has_been_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATWORKS_DATA_DIR", str(tmp_path))
    assert SERVICES["dispatcher"]["healthcheck"]["test"] == ["CMD", "python", "-m", "worker.seen", "dispatcher"]
    monkeypatch.setattr(sys, "argv", ["seen", "dispatcher"])
    assert seen.main() == 1, "no database yet"
    settings = Settings()
    migrate(settings)
    db = open_database(settings)
    for host, status in (("elsewhere", 1), (liveness.host_name(), 0)):
        with db.writing() as session:
            system.see_process(session, new_id(), system.Alive("dispatcher", host, 1))
        assert seen.main() == status
    db.close()


def test_storage_credentials_of_the_server_and_its_clients_agree():
    (identity,) = json.loads((ROOT / "docker" / "storage-s3.json").read_text())["identities"]
    (credentials,) = identity["credentials"]
    options = json.loads(with_defaults(SERVICES["api"]["environment"]["SPLATWORKS_STORAGE_OPTIONS"]))
    assert credentials == {"accessKey": options["aws_access_key_id"], "secretKey": options["aws_secret_access_key"]}


def test_the_api_is_published_to_this_machine_only():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_gpu_workers_start_only_on_request_and_reserve_a_card_each():
    assert {service["profiles"][0] for service in GPU_WORKERS.values()} == {"gpu", "gpu1"}
    devices = [service["deploy"]["resources"]["reservations"]["devices"] for service in GPU_WORKERS.values()]
    assert all((device["driver"], device["capabilities"]) == ("nvidia", ["gpu"]) for (device,) in devices)
    assert sorted(device["device_ids"] for (device,) in devices) == [["0"], ["1"]]
    assert all("profiles" not in service for name, service in SERVICES.items() if name not in GPU_WORKERS)
    assert all(service["healthcheck"]["test"][1:] == ["python", "-m", "worker.seen", "worker"] for service in GPU_WORKERS.values())


def test_the_gpu_image_insists_on_cuda_kernels_and_listens_to_their_queue_alone():
    stages = re.split(r"^FROM ", (ROOT / "docker" / "worker.Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    named = {stage.splitlines()[0].rpartition(" AS ")[2]: stage for stage in stages}
    assert "-devel-" in named["wheel-gpu"].splitlines()[0]
    assert "cmake.define.SPLAT_CUDA=ON" in named["wheel-gpu"]
    assert "-base-" in named["gpu"].splitlines()[0]
    assert "from=wheel-gpu" in named["gpu"]
    assert "SPLATWORKS_DEVICE=cuda" in named["gpu"]
    assert '"-Q", "gpu"' in named["gpu"]
    assert '"-Q", "cpu"' in named["cpu"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_end_without_root_and_copy_only_what_is_there(dockerfile):
    stages = re.split(r"^FROM ", dockerfile.read_text(), flags=re.MULTILINE)[1:]
    finals = [stage for stage in stages if "\nCMD " in stage]
    assert finals
    for stage in finals:
        assert stage.index("USER splatworks") < stage.index("\nCMD ")
        assert "g++" not in stage
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_api_image_installs_the_projects_dependencies_but_the_engines():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {requirement(line) for line in project["dependencies"]}
    lines = (ROOT / "docker" / "api-requirements.txt").read_text().splitlines()
    listed = {requirement(line) for line in lines if line and not line.startswith("#")}
    assert listed == wanted - ENGINE_ONLY
    assert wanted >= ENGINE_ONLY


def test_the_wheel_takes_the_pages_although_git_ignores_them():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]
    assert "api/static/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "api/static/**" in build["sdist"]["include"]
    assert "COPY --from=web /src/api/static api/static" in (ROOT / "docker" / "api.Dockerfile").read_text()


def test_constraints_pin_everything_that_the_api_image_installs():
    pinned = {requirement(line) for line in (ROOT / "constraints.txt").read_text().lower().splitlines()}
    lines = (ROOT / "docker" / "api-requirements.txt").read_text().splitlines()
    for name in (requirement(line).split("[")[0] for line in lines if line and not line.startswith("#")):
        assert name in pinned or name.replace("-", "_") in pinned, name
