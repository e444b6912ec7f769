"""What a worker's stages run on. A worker for cards works only after its engine has opened one."""

import os
import subprocess
import sys
from collections.abc import Container

from api.queue import GPU_QUEUE
from api.settings import Settings
from engine.errors import CapacityError
from worker import launch

TRY_S = 120.0


def device_of(settings: Settings, queues: Container[str]) -> str:
    """Return the setting, or the card that the engine found where the worker listens to the GPU queue.

    Raises ``CapacityError`` when such a worker's engine opens no card.
    """
    if GPU_QUEUE not in queues:
        return settings.device
    shim = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
    command = [*shim, *settings.engine_command, "device"]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TRY_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _no_card(f"its engine did not open one in {TRY_S:g} s") from error
    if tried.returncode != 0:
        said = tried.stderr.strip().splitlines() or [f"its engine ended with exit code {tried.returncode}"]
        raise _no_card(said[-1])
    found = tried.stdout.strip()
    if found == "cpu":
        raise _no_card("its engine finds none and would run on the CPU")
    return found


def _no_card(why: str) -> CapacityError:
    hint = "Look at driver, container and SPLATWORKS_DEVICE; jobs run on CPU workers meanwhile."
    return CapacityError("capacity.no_card", "No such card", f"a worker for the gpu queue needs a card: {why}", hint)
