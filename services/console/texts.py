"""What people read in pages and mails, by language."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from libs.common import beside

TEXTS: dict[str, dict[str, str]] = beside.toml(__file__)
ZONE = ZoneInfo("Europe/Warsaw")
_UNITS = {"days": (2 * 86_400, 86_400), "hours": (3600, 3600), "minutes": (60, 60)}
"""From how many seconds on, and how many are one."""


def moment(at: datetime) -> str:
    return f"{at.astimezone(ZONE):%d.%m.%Y %H:%M}"


def span(texts: Mapping[str, str], seconds: float) -> str:
    """Return a span of time in words, in its largest unit."""
    for unit, (least, length) in _UNITS.items():
        if seconds >= least:
            return texts[f"span_{unit}"].format(n=int(seconds // length))
    return texts["span_now"]
