"""One webhook message over HTTP: to the address that was checked and no other, within one deadline, following nothing."""

import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpcore
from standardwebhooks import Webhook

from api.services import targets
from api.services.deliveries import Outcome, Parcel
from engine.errors import InputError

MAX_ANSWER_BYTES = 1024
MAX_SHOWN_CHARS = 200
GONE = 410


@dataclass(frozen=True)
class Deadline:
    """A moment, ``time.monotonic()``, by which all must be over: each read of its own would let a receiver drip bytes for ever."""

    at: float

    def left(self) -> float:
        """Return the seconds that are left; raises ``httpcore.TimeoutException`` when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it took too long")
        return left


class HurriedStream(httpcore.NetworkStream):
    """A connection on which every wait ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has come."""
        del timeout
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        del timeout
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Encrypt; the certificate must be that of the name in the URL, although the connection went to an address."""
        del timeout
        return HurriedStream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what is known about the connection."""
        return self._stream.get_extra_info(info)


class Pinned(httpcore.NetworkBackend):
    """Connects to addresses that were looked up and checked before; the name is not asked for again."""

    def __init__(self, addresses: tuple[str, ...], deadline: Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers."""
        del host, timeout
        plain = httpcore.SyncBackend()
        for each in self._addresses[:-1]:
            try:
                stream = plain.connect_tcp(each, port, self._deadline.left() / 2, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return HurriedStream(stream, self._deadline)
        last = plain.connect_tcp(self._addresses[-1], port, self._deadline.left(), local_address, socket_options)
        return HurriedStream(last, self._deadline)


@dataclass(frozen=True)
class Rules:
    """How messages are sent: seconds for all of one, the networks that are allowed although inside, certificates."""

    timeout_s: float
    allow: tuple[str, ...]
    certificates: ssl.SSLContext


def send(parcel: Parcel, rules: Rules) -> Outcome:
    """Send one message and return how it went; an answer of 200 to 299 is success, nothing else is."""
    started = time.monotonic()
    deadline = Deadline(started + rules.timeout_s)
    try:
        target = targets.parse(parcel.url)
        addresses = targets.resolve(target, rules.allow)
        status, said = exchange(parcel, target, Pinned(addresses, deadline), rules.certificates)
    except InputError as error:
        word = "unreachable" if error.code == "input.webhook_unknown_host" else "refused"
        return Outcome(word, time.monotonic() - started, None, error.detail[:500])
    except httpcore.TimeoutException:
        return Outcome("timeout", time.monotonic() - started, None, f"no answer within {rules.timeout_s:g} s")
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return Outcome("unreachable", time.monotonic() - started, None, f"{type(error).__name__}: {error}"[:500])
    return judge(status, said, time.monotonic() - started)


def exchange(parcel: Parcel, target: targets.Target, backend: Pinned, certificates: ssl.SSLContext) -> tuple[int, str]:
    """Return the status of the answer and the first of its words; a longer answer is not read to its end."""
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    body = parcel.body.encode()
    said = b""
    with (
        httpcore.ConnectionPool(ssl_context=certificates, max_connections=1, network_backend=backend) as pool,
        pool.stream("POST", url, headers=[("Host", target.authority), *headers_of(parcel)], content=body) as answer,
    ):
        for part in answer.iter_stream():
            said += part[:MAX_ANSWER_BYTES]
            if len(said) >= MAX_ANSWER_BYTES:
                break
    return answer.status, shown(said)


def headers_of(parcel: Parcel) -> list[tuple[str, str]]:
    """Return the headers of a message, signed now (Standard Webhooks 1.0): one signature for each secret that holds."""
    moment = datetime.now(UTC)
    signatures = [Webhook(secret).sign(parcel.delivery_id, moment, parcel.body) for secret in parcel.secrets]
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", "Splatworks-Webhooks/1"),
        ("Connection", "close"),
        ("webhook-id", parcel.delivery_id),
        ("webhook-timestamp", str(int(moment.timestamp()))),
        ("webhook-signature", " ".join(signatures)),
    ]


def shown(said: bytes) -> str:
    """Return the beginning of an answer on one line, without what does not print."""
    text = " ".join(said.decode("utf-8", "replace").split())
    return "".join(each for each in text if each.isprintable())[:MAX_SHOWN_CHARS]


def judge(status: int, said: str, seconds: float) -> Outcome:
    """Return what an answer means."""
    if 200 <= status < 300:
        return Outcome("delivered", seconds, status)
    word = "gone" if status == GONE else "redirect" if 300 <= status < 400 else "status"
    what = "it points elsewhere, which is not followed" if word == "redirect" else said
    return Outcome(word, seconds, status, f"answered {status}: {what}" if what else f"answered {status}")
