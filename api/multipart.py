"""Multipart uploads, streamed: each file's bytes go to the disk as they come, hashed on the way; no request is held in memory."""

import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from api.errors import Malformed, NoSpace, TooLarge, UnsupportedBody
from api.models import new_id
from api.services.photos import Received
from api.settings import Settings
from engine.errors import InputError

MAX_FIELD_BYTES = 256 << 10
MAX_FIELDS = 100
BLOCK_BYTES = 1 << 20


@dataclass
class Form:
    """A received form: its files, lying in ``incoming``, and its text fields."""

    files: list[Received] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class FormWriter:
    """Callbacks of the multipart parser: parts with a file name go to files, others to fields. Blocking; runs in a thread."""

    def __init__(self, settings: Settings, boundary: bytes) -> None:
        self.settings = settings
        self.form = Form()
        self.ended = False
        self._header = (b"", b"")
        self._disposition = b""
        self._name = ""
        self._file_name: str | None = None
        self._out: IO[bytes] | None = None
        self._path = Path()
        self._size = 0
        self._hash = hashlib.sha256()
        self._text = bytearray()
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._write,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, block: bytes) -> None:
        """Take a block of the body."""
        self.parser.write(block)

    def close(self) -> None:
        """Close a file that was cut off and remove everything received that nobody took."""
        if self._out is not None:
            self._out.close()
            self._path.unlink(missing_ok=True)
        for received in self.form.files:
            received.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._disposition = b""
        self._header = (b"", b"")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = (b"", b"")

    def _open(self) -> None:
        _kind, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._file_name = file_name(self._disposition, options)
        self._size, self._text = 0, bytearray()
        if self._file_name is None:
            return
        if len(self.form.files) >= self.settings.max_photos:
            raise TooLarge(
                "input.too_many_photos", "Too many files", f"one upload may hold {self.settings.max_photos} files", "Send them in several."
            )
        self._hash = hashlib.sha256()
        self._path = self.settings.incoming / f"{new_id()}.part"
        self._out = self._path.open("wb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._out is None:
            self._text += data[start:end]
            if self._size > MAX_FIELD_BYTES or len(self.form.fields) >= MAX_FIELDS:
                raise TooLarge(
                    "input.field_too_large", "Field too large", f"the field {self._name[:100]!r} is larger than {MAX_FIELD_BYTES} bytes"
                )
        elif self._size <= self.settings.max_file_bytes:
            self._hash.update(data[start:end])
            self._out.write(data[start:end])

    def _end_part(self) -> None:
        if self._out is None:
            self.form.fields[self._name] = self._text.decode(errors="replace")
            return
        self._out.close()
        self._out = None
        name, limit = self._file_name or "", self.settings.max_file_bytes
        error = None
        if self._size > limit:
            error = InputError(
                "input.too_large", "File too large", f"{name[:100]} has more than {limit} bytes", "Upload a smaller version."
            )
        if name or self._size:  # browsers send an empty part for a file field that was left empty
            self.form.files.append(Received(name, self._path, self._size, self._hash.hexdigest(), error))
        else:
            self._path.unlink(missing_ok=True)

    def _end(self) -> None:
        self.ended = True


def file_name(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    """Return the file name of a part, None when it is a text field; understands ``filename*`` (RFC 5987) too."""
    if b"filename*" in options or b"filename*" in disposition.lower():
        message = Message()
        message["Content-Disposition"] = disposition.decode("latin-1").replace("\r", "").replace("\n", "")
        found = message.get_filename()
        if found is not None:
            return found
    raw = options.get(b"filename")
    return None if raw is None else raw.decode(errors="replace")


@contextlib.asynccontextmanager
async def received_form(request: Request, settings: Settings) -> AsyncIterator[Form]:
    """Receive a multipart request; its files lie on the disk until the block ends and then go, unless they were moved away."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise UnsupportedBody(
            "request.unsupported_body", "Unsupported body", "this address takes multipart/form-data", "curl -F files=@IMG_1.jpg does so."
        )
    boundary = options.get(b"boundary", b"")
    check_room(request, settings)
    try:
        writer = FormWriter(settings, boundary)
    except FormParserError as error:
        raise Malformed("request.malformed_form", "Malformed form", f"the boundary cannot be used: {error}") from error
    try:
        await receive(request, settings, writer)
        yield writer.form
    finally:
        await run_in_threadpool(writer.close)


def check_room(request: Request, settings: Settings) -> None:
    """Raise before any byte is read when the body is announced as too large, or the disk is nearly full."""
    settings.incoming.mkdir(parents=True, exist_ok=True)
    length = request.headers.get("content-length", "0")
    announced = int(length) if length.isascii() and length.isdigit() else 0
    if announced > settings.max_request_bytes:
        raise too_large(settings)
    free = shutil.disk_usage(settings.incoming).free
    if free < settings.min_free_bytes + announced:
        raise NoSpace("capacity.disk", "Disk full", f"{free >> 20} MiB are free; the upload has {announced >> 20} MiB", "Free some space.")


def too_large(settings: Settings) -> TooLarge:
    """Return the error of a body over the limit."""
    return TooLarge(
        "input.request_too_large", "Upload too large", f"one upload may have {settings.max_request_bytes} bytes", "Send it in several."
    )


async def receive(request: Request, settings: Settings, writer: FormWriter) -> None:
    """Pass the body to the writer in blocks, each in a thread so that no other request waits for the disk."""
    total, waiting = 0, bytearray()
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > settings.max_request_bytes:
                raise too_large(settings)
            waiting += chunk
            if len(waiting) >= BLOCK_BYTES:
                block, waiting = bytes(waiting), bytearray()
                await run_in_threadpool(writer.write, block)
        await run_in_threadpool(writer.write, bytes(waiting))
    except FormParserError as error:
        raise Malformed("request.malformed_form", "Malformed form", f"the body is no multipart/form-data: {error}") from error
    if not writer.ended:
        raise Malformed("request.malformed_form", "Malformed form", "the body ends before its last boundary", "Send it again.")
