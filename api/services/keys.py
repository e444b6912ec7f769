"""API keys: who may ask, and what for. Of a key only its SHA-256 is kept; it is shown once, when it is made."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from api.db import now
from api.errors import NotFound, Unauthorized
from api.models import ApiKey, KeySession
from api.settings import Settings
from engine.errors import InputError

SCOPES = ("captures:read", "captures:write", "jobs:read", "jobs:write", "webhooks:write", "admin")
DEFAULT_SCOPES = SCOPES[:-1]
ADMIN = "admin"  # allows everything
PREFIX_CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"
PREFIX_LENGTH = 8
SECRET_BYTES = 32
KEY = re.compile(r"sk_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")
USED_EVERY_S = 60.0
NAME_LENGTH = 200


@dataclass(frozen=True)
class Quotas:
    """What a key may use; None is without limit. ``storage_bytes``: photos, open uploads and assets together."""

    jobs_per_day: int | None = None
    active_jobs: int | None = None
    storage_bytes: int | None = None
    requests_per_minute: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62):
                raise InputError("input.invalid_quota", "Invalid quota", f"{each.name} is {value!r}", "Give a whole number of 0 or more.")


@dataclass(frozen=True)
class Principal:
    """Who asks: a key, or (``key_id`` None) somebody who needs none."""

    key_id: str | None
    scopes: frozenset[str]
    quotas: Quotas = Quotas()
    name: str = ""
    prefix: str = ""  # how a key is recognised in logs

    def may(self, scope: str) -> bool:
        """Tell whether a scope is held; ``admin`` holds all."""
        return scope in self.scopes or ADMIN in self.scopes


ANYBODY = Principal(None, frozenset(SCOPES), name="anybody")  # where no key is needed
NOBODY = Principal(None, frozenset(), name="nobody")  # where one is, and none came


@dataclass(frozen=True)
class NewKey:
    """A key to make. ``lasts_s`` None: until it is revoked."""

    name: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    quotas: Quotas = Quotas()
    lasts_s: float | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > NAME_LENGTH or not self.name.isprintable():
            raise InputError("input.invalid_name", "Invalid name", "a key's name has 1 to 200 printable characters", "Choose another name.")
        unknown = sorted(set(self.scopes) - set(SCOPES))
        if unknown or not self.scopes:
            wrong = f"there is no scope {unknown[0][:100]!r}" if unknown else "a key needs at least one scope"
            raise InputError("input.unknown_scope", "Unknown scope", wrong, f"Known: {', '.join(SCOPES)}.")
        if self.lasts_s is not None and not 0 < self.lasts_s <= 100 * 366 * 86_400:
            detail = "a key expires in the future, within 100 years"
            raise InputError("input.invalid_expiry", "Invalid expiry", detail, "Leave it out for a key that does not expire.")


def create(session: Session, wanted: NewKey) -> tuple[ApiKey, str]:
    """Make a key; return its row and the key itself, which nobody can be told again."""
    prefix = "".join(secrets.choice(PREFIX_CHARACTERS) for _ in range(PREFIX_LENGTH))
    key = f"sk_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    moment = now(session)
    row = ApiKey(
        name=wanted.name,
        prefix=prefix,
        sha256=digest(key),
        scopes=[scope for scope in SCOPES if scope in wanted.scopes],
        quotas={name: value for name, value in asdict(wanted.quotas).items() if value is not None},
        created_at=moment,
        expires_at=None if wanted.lasts_s is None else moment + timedelta(seconds=wanted.lasts_s),
    )
    session.add(row)
    session.flush()
    return row, key


def digest(secret: str) -> str:
    """Return the SHA-256 of a key or session as hex; 32 random bytes need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def page(session: Session, limit: int, cursor: str | None) -> list[ApiKey]:
    """Return keys, newest first, also those that no longer hold."""
    query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    return list(session.scalars(query.where(ApiKey.id < cursor) if cursor else query))


def get(session: Session, key_id: str) -> ApiKey:
    """Return a key's row; raises ``NotFound``."""
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound.named("key", key_id)
    return row


def named(session: Session, word: str) -> ApiKey:
    """Return the row of the key with this id or prefix (with or without ``sk_``); raises ``NotFound``."""
    rows = session.scalars(select(ApiKey).where(or_(ApiKey.id == word, ApiKey.prefix == word.removeprefix("sk_")[:PREFIX_LENGTH])))
    if (row := rows.first()) is None:
        raise NotFound.named("key", word[:20])
    return row


def revoke(session: Session, key_id: str) -> ApiKey:
    """End a key and every session made with it, at once; raises ``NotFound``."""
    row = get(session, key_id)
    row.revoked_at = row.revoked_at or now(session)
    session.execute(delete(KeySession).where(KeySession.key_id == key_id))
    return row


def holds(row: ApiKey, moment: datetime) -> bool:
    """Tell whether a key is neither revoked nor expired."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > moment)


def any_holds(session: Session) -> bool:
    """Tell whether there is at least one key that opens the door."""
    moment = now(session)
    query = select(ApiKey.id).where(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > moment))
    return session.scalar(query.limit(1)) is not None


def check_guarded(session: Session, settings: Settings) -> None:
    """Raise ``InputError`` when other machines would reach a service that asks for a key while nobody has one."""
    if not settings.keys_required or any_holds(session):
        return
    why = (
        f"SPLATWORKS_HOST is {settings.host}, which other machines can reach"
        if not settings.require_key
        else "SPLATWORKS_REQUIRE_KEY is set"
    )
    raise InputError(
        "input.no_keys",
        "No key yet",
        f"{why}, so every request needs a key, and none has been made",
        "Run `splatworks keys create --name NAME` first. Else listen on 127.0.0.1, or set SPLATWORKS_ALLOW_REMOTE=1 where something "
        "in front asks who comes.",
    )


def authenticate(session: Session, key: str) -> Principal:
    """Return who holds this key; ``Unauthorized`` when it is none of ours, or has ended, which only its holder gets to hear.

    Rows are found by the public prefix; the secret is only ever compared as a hash, in constant time.
    """
    found = KEY.fullmatch(key)
    rows = session.scalars(select(ApiKey).where(ApiKey.prefix == found.group(1))).all() if found else []
    row = matching(rows, digest(key))
    if row is None:
        raise unknown_key()
    return principal(row, now(session))


def matching(rows: Iterable[ApiKey], wanted: str) -> ApiKey | None:
    """Return the row whose hash is ``wanted``; every row is compared, each in constant time."""
    equal = [row for row in rows if hmac.compare_digest(row.sha256, wanted)]
    return equal[0] if equal else None


def principal(row: ApiKey, moment: datetime) -> Principal:
    """Return who a key's row stands for; ``Unauthorized`` when it holds no longer."""
    if not holds(row, moment):
        why = "was revoked" if row.revoked_at is not None else "has expired"
        raise Unauthorized("auth.key_ended", "Key ended", f"the key sk_{row.prefix}… {why}", "Ask for a new key.")
    return Principal(row.id, frozenset(row.scopes), quotas_of(row), row.name, row.prefix)


def quotas_of(row: ApiKey) -> Quotas:
    """Return a key's quotas."""
    known = {each.name for each in fields(Quotas)}
    return Quotas(**{name: value for name, value in (row.quotas or {}).items() if name in known})


def unknown_key() -> Unauthorized:
    """Return the error of a key that opens nothing."""
    hint = "Check the key; `splatworks keys create` makes one on the server."
    return Unauthorized("auth.unknown_key", "Unknown key", "this key opens nothing here", hint)


def no_key() -> Unauthorized:
    """Return the error of a request that brings none."""
    hint = "Send it as `Authorization: Bearer sk_…`; `splatworks keys create` makes one on the server."
    return Unauthorized("auth.no_key", "Key needed", "this service asks for a key", hint)


def note_use(session: Session, key_id: str) -> None:
    """Write down that a key was used just now."""
    row = session.get(ApiKey, key_id)
    if row is not None:
        row.used_at = now(session)


def as_quotas(values: dict[str, Any]) -> Quotas:
    """Return quotas from JSON; raises ``InputError`` for one that is unknown or no whole number."""
    unknown = sorted(set(values) - {each.name for each in fields(Quotas)})
    if unknown:
        known = ", ".join(each.name for each in fields(Quotas))
        raise InputError("input.invalid_quota", "Invalid quota", f"there is no quota {unknown[0][:100]!r}", f"Known: {known}.")
    return Quotas(**values)
