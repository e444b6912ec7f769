"""Counts over all processes and restarts, kept in the database, shown by ``/metrics``."""

import math

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.models import Tally

# Upper bounds of the classes that durations are counted in, seconds.
SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
PENDING = "tallies"


def add(session: Session, name: str, amount: float = 1.0, **labels: str) -> None:
    """Add to a count with the caller's transaction; it is made when it is not there.

    ``name`` as Prometheus wants it, such as ``leases_expired_total``; labels must come from short lists of our own words.
    """
    written = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    pending = session.info.setdefault(PENDING, {})
    pending[name, written] = pending.get((name, written), 0.0) + amount


def observe(session: Session, name: str, seconds: float, **labels: str) -> None:
    """Count a duration: ``_sum`` and ``_count`` over all, ``_bucket`` in its own class only (the reader adds up)."""
    bound = word_of(next((bound for bound in SECONDS if seconds <= bound), math.inf))
    add(session, f"{name}_sum", seconds, **labels)
    add(session, f"{name}_count", 1.0, **labels)
    add(session, f"{name}_bucket", 1.0, le=bound, **labels)


def word_of(bound: float) -> str:
    """Return how the upper bound of a class is written."""
    return f"{bound:g}"


def write(session: Session) -> None:
    """Write what was added, just before the commit: rows that all processes change are held shortly, and always in one order."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    for (name, labels), amount in sorted(session.info.pop(PENDING, {}).items()):
        row = dialect.insert(Tally).values(name=name, labels=labels, value=amount)
        session.execute(row.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": Tally.value + row.excluded.value}))


def read(session: Session) -> dict[str, dict[str, float]]:
    """Return all counts by name, then by labels as Prometheus writes them."""
    found: dict[str, dict[str, float]] = {}
    for row in session.scalars(select(Tally).order_by(Tally.name, Tally.labels)):
        found.setdefault(row.name, {})[row.labels] = row.value
    return found
