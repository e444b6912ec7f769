"""A receiver of webhooks on a real socket that answers as it is told, and remembers what came."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: str
    at: float

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict:
        """Return the message after checking its signature as a receiver would; raises when it does not hold."""
        return Webhook(secret).verify(self.body, self.headers)


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """``answers`` by path: what to do with each request in turn, the last one for all further ones; 200 where nothing is told."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    scheme: str = "http"

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return the address of a path."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        """Return what came to a path, in order."""
        return [each for each in list(self.received) if each.path == path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Note a request and answer it."""
        body = handler.rfile.read(int(handler.headers.get("content-length", 0))).decode()
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.received.append(Received(handler.path, headers, body, time.monotonic()))
        told = self.answers.get(handler.path, [status(200)])
        (told.pop(0) if len(told) > 1 else told[0])(handler)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status."""

    def do(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return do


def hang(seconds: float) -> Answer:
    """Say nothing for a while, then close."""
    return lambda _handler: time.sleep(seconds)


def drip(part: bytes, every_s: float, first: bytes = b"HTTP/1.1 200 OK\r\n", until_s: float = 30.0) -> Answer:
    """Answer bit by bit, never coming to an end."""

    def do(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        deadline = time.monotonic() + until_s
        while time.monotonic() < deadline:
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(every_s)

    return do


@contextlib.contextmanager
def receiver(certificate: Path | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """Listen on a free port; with ``certificate`` (a PEM file with its key) over TLS."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with contextlib.suppress(OSError):  # the sender hung up, as it should
                made.answer(self)

        do_GET = do_POST  # noqa: N815 (http.server calls it so)

        def log_message(self, *_words: object) -> None:
            """Keep the tests' output clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_words: object) -> None:
            """A sender that does not trust the certificate hangs up."""

    with Server((host, 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            made.scheme = "https"
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
