"""The service over HTTP, as the command line needs it: patient with the network, plain about what the server refuses."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from api.errors import RequestError
from engine.errors import CapacityError, InternalError, SplatError

TRIES = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
BATCH_PHOTOS = 8
BATCH_BYTES = 48_000_000

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event; ``id`` resumes the stream after it."""

    type: str
    data: dict[str, Any]
    id: str


class Client:
    """One server. Every method raises the ``SplatError`` that the server's problem describes; lost connections are tried again."""

    def __init__(self, url: str, timeout_s: float = 60.0, key: str = "") -> None:
        self.url = url.rstrip("/")
        # A proxy is asked only when the server is not on this machine: httpx reads NO_PROXY, but few set it for 127.0.0.1.
        local = httpx.URL(self.url).host in {"127.0.0.1", "localhost", "::1"}
        self._has_answered = False
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=not local, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at ``path``."""
        return self._patiently(lambda: self._http.get(path, params=query)).json()

    def post(self, path: str, body: dict[str, Any], idempotency_key: str = "") -> Any:
        """Send JSON; with a key, a repeated request makes nothing twice and is tried again when the line breaks."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if idempotency_key:
            return self._patiently(lambda: self._http.post(path, json=body, headers=headers)).json()
        return _checked(self._send(lambda: self._http.post(path, json=body))).json()

    def ask(self, method: str, path: str, headers: dict[str, str], content: bytes = b"") -> httpx.Response:
        """Send one request as it is, once, and return the answer: for those who know how to go on. Threads may share a client."""
        return _checked(self._send(lambda: self._http.request(method, path, headers=headers, content=content, timeout=600.0)))

    def send_photos(self, capture_id: str, photos: list[Path], names: dict[Path, str] | None = None) -> dict[str, Any]:
        """Send one batch as multipart and return the capture; a photo that the server has already is stored once.

        ``names`` are other names than the files' own: masks/NAME for a mask.
        """
        called = {photo: (names or {}).get(photo, photo.name) for photo in photos}

        def send() -> httpx.Response:
            with ExitStack() as opened:
                files = [("files", (called[each], opened.enter_context(each.open("rb")), "application/octet-stream")) for each in photos]
                return self._http.post(f"/v1/captures/{capture_id}/photos", files=files, timeout=600.0)

        answer: dict[str, Any] = self._patiently(send).json()
        return answer

    def events(self, job_id: str, after: str = "") -> Iterator[ServerEvent]:
        """Yield the job's events after ``after`` until the server closes the stream. Raises ``CapacityError`` when the line breaks."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
                if response.is_error:
                    response.read()
                yield from parse_events(_checked(response).iter_lines())
        except httpx.TransportError as error:
            raise _offline(self.url, error) from error

    def download(self, job_id: str, asset: dict[str, Any], target: Path, on_bytes: OnBytes) -> None:
        """Fetch an asset into ``target``; what an earlier try left in ``target.part`` is kept and continued. Checked by SHA-256."""
        part = target.with_name(f"{target.name}.{asset['sha256'][:12]}.part")
        on_bytes(part.stat().st_size if part.exists() else 0)
        for attempt in range(1, TRIES + 1):
            try:
                self._download_rest(job_id, asset["name"], part, on_bytes)
                break
            except httpx.TransportError as error:
                if attempt == TRIES:
                    raise _offline(self.url, error) from error
                time.sleep(FIRST_WAIT_S * 2**attempt)
        with part.open("rb") as handle:
            seen = hashlib.file_digest(handle, "sha256").hexdigest()
        if seen != asset["sha256"]:
            part.unlink()
            detail = f"{asset['name']} has SHA-256 {seen[:12]}…, the server says {asset['sha256'][:12]}…"
            raise InternalError(
                "internal.damaged_download", "Damaged download", detail, "Run the command again; the damaged part was removed."
            )
        part.replace(target)

    def _download_rest(self, job_id: str, name: str, part: Path, on_bytes: OnBytes) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with self._http.stream("GET", f"/v1/jobs/{job_id}/assets/{name}", headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is missing; the checksum tells whether it is right
            if response.is_error:
                response.read()
            resumed = _checked(response).status_code == httpx.codes.PARTIAL_CONTENT
            on_bytes(0 if resumed else -have)
            with part.open("ab" if resumed else "wb") as handle:
                # As they come, in no fixed portions: what has arrived when the line breaks must be in the file.
                for chunk in response.iter_raw():
                    handle.write(chunk)
                    on_bytes(len(chunk))

    def _patiently(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(1, TRIES + 1):
            try:
                return _checked(self._send(send))
            except SplatError as error:
                # A server that never answered is not there: no use in knocking for seconds.
                told_s = error.data.get("retry_after_s") or 0.0
                if attempt == TRIES or not error.retryable or not self._has_answered or told_s > LONGEST_WAIT_S:
                    raise
                time.sleep(max(FIRST_WAIT_S * 2 ** (attempt - 1), told_s))
        raise AssertionError("the loop returns or raises")

    def _send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            response = send()
        except httpx.TransportError as error:
            raise _offline(self.url, error) from error
        self._has_answered = True
        return response


def batches(photos: list[Path]) -> Iterator[list[Path]]:
    """Yield the photos in portions that one request carries well."""
    batch: list[Path] = []
    size = 0
    for photo in photos:
        photo_size = photo.stat().st_size
        if batch and (len(batch) == BATCH_PHOTOS or size + photo_size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(photo)
        size += photo_size
    if batch:
        yield batch


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Yield the events of a text/event-stream; comments (keep-alives) are dropped."""
    fields: dict[str, str] = {}
    last_id = ""
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
            continue
        last_id = fields.get("id", last_id)
        if "data" in fields:
            yield ServerEvent(fields.get("event", "message"), json.loads(fields["data"]), last_id)
        fields = {}


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise problem(response)
    return response


def problem(response: httpx.Response) -> SplatError:
    """Return the error that a problem+json answer describes; worth another try when it is the server's fault."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    retryable = body.get("retryable", response.status_code >= 500) or response.status_code == httpx.codes.TOO_MANY_REQUESTS
    kind = CapacityError if retryable else RequestError
    title = body.get("title") or f"HTTP {response.status_code}"
    detail = body.get("detail") or f"{response.request.method} {response.request.url} was answered with {response.status_code}"
    data: dict[str, Any] = {"errors": body.get("errors") or []}
    # Where the server only says "busy", our own patience is the better guess; a used-up share says when it is there again.
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS and (told := response.headers.get("retry-after", "")).isdecimal():
        data["retry_after_s"] = float(told)
    return kind(body.get("code") or f"http.{response.status_code}", title, detail, body.get("hint") or "", data)


def _offline(url: str, error: Exception) -> CapacityError:
    detail = f"{url} does not answer: {error}"
    return CapacityError("capacity.no_connection", "No connection", detail, "Is `splatworks serve` running there?")
