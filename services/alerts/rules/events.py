"""The events that leave to subscriptions: their types and fields, from the .toml beside. Pure."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from libs.common import beside

_FILE: Final = beside.toml(__file__, "events.toml")
EVENTS: Final[Mapping[str, Mapping[str, Any]]] = _FILE["events"]
OPEN: Final = frozenset(_FILE["open"])
TEST: Final = "subscription.test"
MOST_BYTES: Final = 64 * 1024
_ENVELOPE: Final = 1024
_LONGEST: Final = 1000


def wants(patterns: Iterable[str], event_type: str) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def content(
    event_type: str, body: Mapping[str, Any], at: datetime, person: str | None
) -> dict[str, Any]:
    """Return the `data` of an event.

    :param at: by the clock of whoever acted, which holds the lock of the lead or the person
    :param person: a name for the person that says nothing else about them
    """
    event = EVENTS[event_type]
    data = {name: body[name] for name in event["fields"] if body.get(name) is not None}
    data |= {"sequence": int(at.timestamp() * 1_000_000)} | ({"person": person} if person else {})
    if size(data) <= MOST_BYTES:
        return data
    short = {
        name: value
        for name, value in data.items()
        if name in OPEN and not (isinstance(value, list) or len(str(value)) > _LONGEST)
    }
    fetch = event.get("fetch")
    return short | {"truncated": True} | ({"fetch": fetch.format_map(data)} if fetch else {})


def size(data: Mapping[str, Any]) -> int:
    """Return an upper bound of the bytes of a body with this data."""
    return len(json.dumps(data, ensure_ascii=False).encode()) + _ENVELOPE


def without_persons(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name in OPEN}
