"""Values as JSON has them."""

from datetime import date
from typing import Any


def plain(value: Any) -> Any:
    """Return a time as ISO 8601, an id as its text, and what JSON knows as it is."""
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | dict | list | None) else str(value)
