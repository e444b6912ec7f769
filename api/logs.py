"""Lines of the logs of api, worker and dispatcher: as text for a terminal or as JSON for a collector, with what they are about.

A line carries ``request_id``, ``key``, ``job``, ``attempt``, ``fence`` and ``stage`` where they are known: ``about`` names them for all
lines that are written in its block, in whatever module. Secrets never leave: what looks like one is blotted out of every line.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from api.settings import Settings

ACCESS = "splatworks.access"
BLOT = "…"
# Keys (the part that names them may be seen), webhook secrets, tokens of shared links and sessions, passwords in URLs.
SECRETS = re.compile(
    r"(?P<key>sk_[A-Za-z0-9]+_)[A-Za-z0-9_-]{8,}"
    r"|(?P<hook>whsec_)[A-Za-z0-9+/=_-]+"
    r"|(?P<share>/s/)[A-Za-z0-9_-]{16,}"
    r"|(?P<bearer>[Bb]earer )[^\s\"'\\]{8,}"
    r"|(?P<url>[a-z][a-z0-9+.-]*://[^\s:/@\"]*:)[^\s@/\"'\\]+(?=@)"
)

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


@contextlib.contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Name what the lines of this block are about, beside what is named already."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def named() -> dict[str, Any]:
    """Return what the lines written here are about."""
    return dict(_about.get() or {})


def blotted(text: str) -> str:
    """Return a text without secrets."""
    return SECRETS.sub(lambda found: next(filter(None, found.groups())) + BLOT, text)


class Json(logging.Formatter):
    """A line of JSON: time, level, logger, message, what it is about, and the error with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **named(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return blotted(json.dumps(line, ensure_ascii=False, default=str))


class Text(logging.Formatter):
    """A line for people: level, logger, message, and what it is about unless the message says so."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the trace of an error below it."""
        message = record.getMessage()
        fields = {**named(), **getattr(record, "fields", {})}
        tail = "".join(f" {name}={value}" for name, value in fields.items() if str(value) not in message)
        text = f"{record.levelname} {record.name}: {message}{tail}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return blotted(text)


def configure(settings: Settings) -> None:
    """Send all lines of this process to standard error in the form of the settings; for entry points only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Libraries that bring handlers of their own write through ours; uvicorn's lines of requests give way to ours.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"
    # On a terminal a line a request would hide the others; answers of 500 and more are still said.
    logging.getLogger(ACCESS).setLevel(logging.INFO if settings.log_format == "json" else logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
