"""``splatworks keys``: keys made, listed and revoked straight in the database, also while the service runs."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from api.db import Database, open_database
from api.models import ApiKey
from api.services import keys
from api.services.keys import NewKey, Quotas
from api.settings import Settings
from cli import show, tables
from engine.errors import InputError

SPAN = re.compile(r"(\d{1,6})([smhdwy])")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}
BYTES = re.compile(r"(\d{1,15})([kMGT]?)B?")
FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    """Yield the database, brought up to date: a key may be made before the service has ever run."""
    tables.bring_up_to_date(settings)
    db = open_database(settings)
    try:
        yield db
    finally:
        db.close()


def create(settings: Settings, wanted: NewKey, *, unless_any: bool = False) -> str:
    """Make a key and return it; it cannot be shown again. ``unless_any``: return nothing and make none while there is one that holds."""
    with _opened(settings) as db, db.writing() as session:
        if unless_any and keys.any_holds(session):
            return ""
        row, key = keys.create(session, wanted)
    until = f"until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "until it is revoked"
    show.err.print(f"Key sk_{row.prefix}… ({row.name}) holds {until}, for {', '.join(row.scopes)}. It is shown this once:", markup=False)
    return key


def listing(settings: Settings) -> list[dict[str, Any]]:
    """Return all keys as JSON values, newest first, without what is secret."""
    with _opened(settings) as db, db.reading() as session:
        rows = keys.page(session, 10_000, None)
        return [_as_json(row) for row in rows]


def revoke(settings: Settings, word: str) -> str:
    """Revoke the key with this id or prefix, at once, and return its prefix; raises ``NotFound``."""
    with _opened(settings) as db, db.writing() as session:
        return keys.revoke(session, keys.named(session, word).id).prefix


def show_all(listed: list[dict[str, Any]]) -> None:
    """Print keys as a table."""
    table = Table("Key", "Name", "Scopes", "Quotas", "State", "Last used", box=None, padding=(0, 2, 0, 0))
    texts = [
        [
            f"sk_{each['prefix']}…",
            each["name"],
            " ".join(each["scopes"]),
            _used(each["quotas"]),
            _state(each),
            (each["used_at"] or "never")[:16],
        ]
        for each in listed
    ]
    for row in texts:
        table.add_row(*map(Text, row))  # a name may hold brackets, which are no markup
    show.out.print(table if listed else "No keys. `splatworks keys create --name NAME` makes one.", markup=False)


def lasts_s(text: str) -> float | None:
    """Return how long ``90d``, ``12h`` or the time until ``2027-01-31`` is; None for ``never``. Raises ``InputError``."""
    if text == "never":
        return None
    if (found := SPAN.fullmatch(text)) is not None:
        return float(int(found.group(1)) * UNITS_S[found.group(2)])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "Write 90d, 12h, 2027-01-31 or never."
        raise InputError("input.invalid_expiry", "Invalid expiry", f"{text!r} is neither a span of time nor a date", hint) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def quotas(given: list[str]) -> Quotas:
    """Return ``["jobs_per_day=20", "storage_bytes=50GB"]`` as quotas; raises ``InputError``."""
    values = {}
    for each in given:
        name, _, text = each.partition("=")
        found = BYTES.fullmatch(text)
        if found is None or (found.group(2) and name != "storage_bytes"):
            detail = f"--quota {each!r} has no whole number behind its name"
            raise InputError("input.invalid_quota", "Invalid quota", detail, "Write --quota jobs_per_day=20 or --quota storage_bytes=50GB.")
        values[name] = int(found.group(1)) * FACTORS[found.group(2)]
    return keys.as_quotas(values)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    show.out.print(json.dumps(value, indent=1), markup=False, soft_wrap=True)


def _as_json(row: ApiKey) -> dict[str, Any]:
    moments = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "used_at")}
    plain = {name: getattr(row, name) for name in ("id", "name", "prefix", "scopes")}
    said = {name: moment and moment.isoformat(timespec="seconds") for name, moment in moments.items()}
    return {**plain, "quotas": asdict(keys.quotas_of(row)), "is_active": keys.holds(row, datetime.now(UTC)), **said}


def _used(quotas: dict[str, int | None]) -> str:
    return ", ".join(f"{name}={value}" for name, value in quotas.items() if value is not None) or "none"


def _state(each: dict[str, Any]) -> str:
    if each["revoked_at"]:
        return f"revoked {each['revoked_at'][:10]}"
    if not each["is_active"]:
        return f"expired {each['expires_at'][:10]}"
    return f"until {each['expires_at'][:10]}" if each["expires_at"] else "active"
