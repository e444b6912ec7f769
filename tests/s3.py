"""An S3 server as a real process, and a link to it that can be cut. The server is moto's: alive, from PyPI, in memory."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

BUCKET = "splatworks"
START_S = 60.0
PAGE_KEYS = 20  # of a listing, where real ones give 1000: so that a few files show what happens at the end of a page
BLOCK_BYTES = 65_536


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one bucket."""

    endpoint: str

    def url(self, prefix: str) -> str:
        """Return the storage URL of a part of the bucket: installations that share the server do not see each other's objects."""
        return f"s3://{BUCKET}/{prefix}"

    def options(self, endpoint: str = "") -> dict[str, str]:
        """Return the storage options, for this server or for a link to it."""
        keys = {"aws_access_key_id": "splatworks", "aws_secret_access_key": "of-no-value"}
        return {"aws_endpoint": endpoint or self.endpoint, "aws_region": "us-east-1", **keys}


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run moto's standalone server (``python -m moto.server``) on a free port, with an empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_KEYS)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = S3Server(f"http://127.0.0.1:{port}")
        _make_bucket(server, process)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "moto's server ended; is moto[s3] installed, with flask and flask-cors?"
        with contextlib.suppress(httpx.TransportError):
            assert httpx.put(f"{server.endpoint}/{BUCKET}", trust_env=False).is_success
            return
        assert time.monotonic() < deadline, f"moto's server does not answer after {START_S:g} s"
        time.sleep(0.05)


class Link:
    """A port of this machine that leads to another. Cut, it ends what is under way and refuses what comes."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.mend()

    @property
    def endpoint(self) -> str:
        """Return its URL."""
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        """Listen (again)."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections and take no more."""
        assert self._listener is not None
        listener, self._listener = self._listener, None
        for each in (listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                threading.Thread(target=_pump, args=(near, far), daemon=True).start()


def _pump(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):  # cut
        while True:
            for ready in select.select([near, far], [], [])[0]:
                data = ready.recv(BLOCK_BYTES)
                if not data:
                    near.close()
                    far.close()
                    return
                (far if ready is near else near).sendall(data)
