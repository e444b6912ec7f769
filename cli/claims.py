"""What one ``serve`` has to itself while it runs: the data folder, a folder for the broker's socket, the port."""

import contextlib
import fcntl
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from api.settings import Settings
from cli import address
from engine.errors import InputError


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder. Raises ``InputError`` when another ``serve`` has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            running = address.read(data_dir)
            where = f" at {running.url} (process {running.pid})" if running else ""
            raise InputError(
                "input.already_running",
                "Already running",
                f"another splatworks serve{where} uses {data_dir}",
                "Use that one, stop it, or choose another --data-dir.",
            ) from error
        yield


@contextlib.contextmanager
def runtime_folder(data_dir: Path) -> Iterator[Path]:
    """Yield a private folder with a short path for the broker's socket; what a killed ``serve`` left is removed."""
    note = data_dir / "runtime"
    if note.is_symlink():
        shutil.rmtree(note.readlink(), ignore_errors=True)
        note.unlink()
    folder = Path(tempfile.mkdtemp(prefix="splatworks-"))
    note.symlink_to(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """Yield the api's listening socket: held here, so that a restarted api loses no connection and port 0 is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by the connections; small answers leave at once
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            detail = f"{settings.host}:{settings.port}: {error.strerror}"
            raise InputError("input.cannot_listen", "Cannot listen", detail, "Choose another --port; 0 takes a free one.") from error
        listener.listen(512)
        yield listener
