"""A PATCH sent byte by byte over a bare socket, so that a test can stop anywhere in it and break off as links do."""

import socket

import httpx

from api import tus
from tests.faults.link import reset


class HalfSent:
    """A PATCH whose headers announce ``n_bytes`` and whose body comes when the test says so."""

    def __init__(self, client: httpx.Client, url: str, offset: int, n_bytes: int, **headers: str) -> None:
        base = client.base_url
        self.socket = socket.create_connection((base.host, base.port), timeout=15)
        said = {
            "Host": f"{base.host}:{base.port}",
            "Tus-Resumable": tus.VERSION,
            "Content-Type": tus.BODY_TYPE,
            "Content-Length": str(n_bytes),
            "Upload-Offset": str(offset),
            **headers,
        }
        lines = [f"PATCH {url} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def send(self, data: bytes) -> None:
        """Send some of the body."""
        self.socket.sendall(data)

    def cut(self, way: str) -> None:
        """Break off: ``close`` with a goodbye, ``reset`` without, ``silence`` says nothing at all."""
        if way == "close":
            self.socket.close()
        elif way == "reset":
            reset(self.socket)

    def status(self) -> int:
        """Wait for the answer and return its status; 0 when the connection ended without one."""
        with self.socket:
            try:
                head = self.socket.recv(4096)
            except ConnectionResetError:
                return 0
        return int(head.split()[1]) if head else 0
