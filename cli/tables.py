"""The database's tables, made or brought up to date: ``splatworks migrate``, and before the service starts."""

from sqlalchemy.exc import OperationalError

from api.db import migrate
from api.settings import Settings
from engine.errors import CapacityError


def bring_up_to_date(settings: Settings) -> None:
    """Bring the tables to what this version needs; nothing happens where they are. Raises ``CapacityError`` without a database."""
    try:
        migrate(settings)
    except OperationalError as error:
        detail = str(error.orig).strip()
        raise CapacityError("capacity.database", "No database", detail, "Is the server of SPLATWORKS_DATABASE_URL running?") from error
