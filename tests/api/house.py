"""An installation that asks for keys, for tests of who may come in."""

from dataclasses import dataclass, field

import httpx

from api.db import Database
from api.services import keys
from api.services.keys import NewKey, Quotas
from tests.services import Installation

UNLIMITED = Quotas()


@dataclass
class House:
    """An installation that asks for keys."""

    installation: Installation
    client: httpx.Client
    db: Database
    known: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)

    def key(self, *scopes: str) -> dict[str, str]:
        """Return the header that carries a key with these scopes."""
        if scopes not in self.known:
            self.known[scopes] = self.made(*scopes)[1]
        return self.known[scopes]

    def made(self, *scopes: str, quotas: Quotas = UNLIMITED, lasts_s: float | None = None) -> tuple[str, dict[str, str]]:
        with self.db.writing() as session:
            row, key = keys.create(session, NewKey("test", scopes or ("admin",), quotas, lasts_s))
            return row.id, {"Authorization": f"Bearer {key}"}

    @property
    def origin(self) -> dict[str, str]:
        return {"Origin": f"http://{self.client.base_url.host}:{self.client.base_url.port}"}
