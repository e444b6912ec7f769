"""Counts over all processes and restarts, kept in the database, shown by ``/metrics``."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.models import Tally


def add(session: Session, name: str, amount: float = 1.0, **labels: str) -> None:
    """Add to a count in the caller's transaction; it is made when it is not there.

    ``name`` as Prometheus wants it, such as ``leases_expired_total``; labels must come from short lists of our own words.
    """
    written = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = dialect.insert(Tally).values(name=name, labels=written, value=amount)
    session.execute(row.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": Tally.value + row.excluded.value}))
