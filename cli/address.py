"""Where the running ``serve`` of a data folder is found: ``serve.json`` holds its URL and process id."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.workspace import write_json


@dataclass(frozen=True)
class Address:
    """A running service."""

    url: str
    pid: int


def announce(data_dir: Path, url: str) -> None:
    """Write ``serve.json``: this process serves ``data_dir`` at ``url``."""
    write_json(data_dir / "serve.json", asdict(Address(url, os.getpid())))


def forget(data_dir: Path) -> None:
    """Remove ``serve.json``."""
    (data_dir / "serve.json").unlink(missing_ok=True)


def read(data_dir: Path) -> Address | None:
    """Return where the service is that runs on ``data_dir``, or None when none does."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        written = json.loads((data_dir / "serve.json").read_text())
        found = Address(str(written["url"]), int(written["pid"]))
        os.kill(found.pid, 0)
        return found
    return None
