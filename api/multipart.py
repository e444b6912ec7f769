"""Multipart uploads, streamed: each file's bytes go to the disk as they come, hashed on the way; no request is held in memory."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from api.errors import Malformed, TooLarge, UnsupportedBody
from api.models import new_id
from api.services import intake
from api.services.photos import Received
from api.settings import Settings

MAX_FIELD_BYTES = 256 << 10
MAX_FIELDS = 100
BLOCK_BYTES = 1 << 20
AS_A_FORM = "Send the photos as `curl -F files=@IMG_1.jpg` does."
WATCH_EVERY_BYTES = 16 << 20  # how much is written between two looks at the free disk


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
        self._unwatched = 0
        self._n_parts = self._n_fields = 0
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
        self._n_parts += 1
        if self._file_name is None:
            self._n_fields += 1
            if self._n_fields > MAX_FIELDS:
                detail = f"the form has more than {MAX_FIELDS} fields that are no files"
                raise TooLarge("input.too_many_fields", "Too many fields", detail, "Send photos with a file name, and each field once.")
            return
        # Parts that come to nothing count too: no end of them would be work without end.
        intake.check_count(self.settings, self._n_parts - self._n_fields)
        self._hash = hashlib.sha256()
        self._path = self.settings.incoming / f"{new_id()}.part"
        self._out = self._path.open("wb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._out is None:
            self._text += data[start:end]
            if self._size > MAX_FIELD_BYTES:
                detail = f"the field {self._name[:100]!r} is larger than {MAX_FIELD_BYTES} bytes"
                raise TooLarge("input.field_too_large", "Field too large", detail, "Send photos with a file name: `-F files=@IMG_1.jpg`.")
        elif self._size <= intake.allowed_bytes(self.settings, self._file_name or ""):
            self._hash.update(data[start:end])
            self._out.write(data[start:end])
            self._unwatched += end - start
            if self._unwatched >= WATCH_EVERY_BYTES:
                self._unwatched = 0
                intake.check_disk(self.settings, 0)

    def _end_part(self) -> None:
        if self._out is None:
            self.form.fields[self._name] = self._text.decode(errors="replace")
            return
        self._out.close()
        self._out = None
        name, error = self._file_name or "", None
        try:
            intake.check_file(self.settings, name, self._size)
        except TooLarge as too_large:
            error = too_large
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
async def received_form(request: Request, settings: Settings, reserved_bytes: int = 0) -> AsyncIterator[Form]:
    """Receive a multipart request; its files lie on the disk until the block ends and then go.

    ``reserved_bytes`` of the free disk belong to others.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise UnsupportedBody("request.unsupported_body", "Unsupported body", "this address takes multipart/form-data", AS_A_FORM)
    boundary = options.get(b"boundary", b"")
    settings.incoming.mkdir(parents=True, exist_ok=True)
    intake.check_request(settings, announced_bytes(request))
    intake.check_disk(settings, announced_bytes(request), reserved_bytes)
    try:
        writer = FormWriter(settings, boundary)
    except FormParserError as error:
        raise Malformed("request.malformed_form", "Malformed form", f"the boundary cannot be used: {error}", AS_A_FORM) from error
    try:
        await receive(request, settings, writer)
        yield writer.form
    finally:
        await run_in_threadpool(writer.close)


def announced_bytes(request: Request) -> int:
    """Return the size that a request says its body has, 0 when it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


async def receive(request: Request, settings: Settings, writer: FormWriter) -> None:
    """Pass the body to the writer in blocks, each in a thread so that no other request waits for the disk."""
    total, waiting = 0, bytearray()
    try:
        async for chunk in request.stream():
            total += len(chunk)
            intake.check_request(settings, total)
            waiting += chunk
            if len(waiting) >= BLOCK_BYTES:
                block, waiting = bytes(waiting), bytearray()
                await run_in_threadpool(writer.write, block)
        await run_in_threadpool(writer.write, bytes(waiting))
    except FormParserError as error:
        raise Malformed("request.malformed_form", "Malformed form", f"the body is no multipart/form-data: {error}", AS_A_FORM) from error
    if not writer.ended:
        raise Malformed("request.malformed_form", "Malformed form", "the body ends before its last boundary", "Send it again.")
