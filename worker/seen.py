"""``python -m worker.seen KIND``: whether a worker or dispatcher of this machine has shown itself lately; for healthchecks of containers.

The exit status is 0 when it has. Asks the table that ``/readyz`` asks, so a process that runs but has lost the database counts as ill.
"""

import sys

from sqlalchemy.exc import SQLAlchemyError

from api.db import open_database
from api.services import system
from api.settings import Settings
from worker import liveness


def is_seen(settings: Settings, kind: str) -> bool:
    """Tell whether a process of a kind on this machine, or in this container, has been seen; raises ``SQLAlchemyError``."""
    db = open_database(settings, pooled=False)
    try:
        with db.reading() as session:
            return any((row.kind, row.host) == (kind, liveness.host_name()) for row in system.processes(session))
    finally:
        db.close()


def main() -> int:
    """Answer by exit status."""
    try:
        return 0 if is_seen(Settings(), sys.argv[1]) else 1
    except SQLAlchemyError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
