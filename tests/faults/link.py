"""A link that breaks: a TCP proxy on the loopback that cuts connections after so many bytes, in the ways that links break."""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

WAYS = ("close", "reset", "silence")
BLOCK_BYTES = 16 << 10
BUFFER_BYTES = 64 << 10  # as on a slow link: what lies in buffers when it breaks is lost


def reset(end: socket.socket) -> None:
    """Close a connection with RST, as a broken router does: no goodbye, and unsent bytes are dropped."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


@dataclass
class Cut:
    """One break: after so many bytes have gone up since the one before, and in which way."""

    after_bytes: int
    way: str


@dataclass
class Link:
    """Passes connections on to a port; ``cuts`` come one after the other, then the link holds."""

    to_port: int
    cuts: list[Cut]
    port: int = 0
    n_cut: int = 0
    _up_bytes: int = 0
    _quiet: list[socket.socket] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def open(self) -> Iterator["Link"]:
        """Listen until the block ends."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            try:
                yield self
            finally:
                for end in self._quiet:
                    end.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), selectors.DefaultSelector() as waiting:
            server = socket.create_connection(("127.0.0.1", self.to_port))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            waiting.register(client, selectors.EVENT_READ, server)
            waiting.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in waiting.select():
                    block = key.fileobj.recv(BLOCK_BYTES)
                    cut = self._count(len(block)) if key.fileobj is client else None
                    if cut is not None:
                        key.data.sendall(block)
                        self._break(cut, client, server)
                        return
                    if not block:
                        client.close()
                        server.close()
                        return
                    key.data.sendall(block)

    def _count(self, n_bytes: int) -> Cut | None:
        with self._turn:
            self._up_bytes += n_bytes
            if self.n_cut == len(self.cuts) or self._up_bytes < self.cuts[self.n_cut].after_bytes:
                return None
            self._up_bytes = 0
            self.n_cut += 1
            return self.cuts[self.n_cut - 1]

    def _break(self, cut: Cut, client: socket.socket, server: socket.socket) -> None:
        if cut.way == "silence":  # nobody hears of it: both ends wait for the other
            self._quiet += [client, server]
            return
        end = reset if cut.way == "reset" else socket.socket.close
        end(server)
        end(client)
