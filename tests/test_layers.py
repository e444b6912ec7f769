"""What each process may load. The import contracts themselves (pyproject.toml) are checked by ``make check``."""

import subprocess
import sys

import pytest


def loaded_by(module: str) -> set[str]:
    """Return the top-level packages that importing a module loads, in a fresh process."""
    code = f"import sys, {module}; print('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["api.app", "worker.app", "worker.stage", "worker.dispatcher", "cli.main"])
def test_service_processes_never_load_the_engines_libraries(module: str) -> None:
    assert not loaded_by(module) & {"torch", "numpy", "pycolmap", "PIL", "kernels"}


@pytest.mark.parametrize("module", ["worker.app", "worker.stage", "worker.dispatcher"])
def test_worker_processes_never_load_the_web_framework(module: str) -> None:
    assert not loaded_by(module) & {"fastapi", "starlette", "uvicorn"}


@pytest.mark.parametrize("module", ["engine.errors", "engine.options", "engine.events", "engine.workspace"])
def test_what_the_api_takes_from_the_engine_is_standard_library(module: str) -> None:
    known = set(sys.stdlib_module_names) | {"engine", "__main__", "__mp_main__"}
    extra = {name for name in loaded_by(module) - known if not name.startswith("_")}
    # Path hooks of an editable install and of the site are there before any import.
    assert extra <= loaded_by("sys")
