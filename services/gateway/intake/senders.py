"""Alerts of other programs, in their own JSON; `senders.toml` says where each has what.

Only what it names is kept: an event of Sentry's may hold much about a visitor.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from libs.common import beside
from libs.common.http.application import Problem
from services.gateway.intake.messages import MOST_ALERTS, AlertRequest

_FILE: Final = beside.toml(__file__)
SEVERITIES: Final[Mapping[str, list[str]]] = _FILE.pop("severities")
SENDERS: Final[Mapping[str, Mapping[str, Any]]] = _FILE
LETTERS: Final = 2_000
LABELS: Final = 100


def alerts(sender: str, body: bytes) -> list[AlertRequest]:
    """Read what a sender says: what fires, and what is over; other news is left out.

    :raises Problem: 400 not JSON, 422 each place that is not as the sender documents it
    """
    rules = SENDERS[sender]
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, detail="the body is not valid JSON") from None
    items = _at(document, rules["items"]) if "items" in rules else [document]
    where = rules.get("items", "body")
    if not (isinstance(items, list) and len(items) <= MOST_ALERTS):
        text = f"must be a list of {MOST_ALERTS} alerts at most"
        raise Problem(422, errors=[(where, text)])
    errors: list[tuple[str, str]] = []
    found: list[AlertRequest] = []
    for index, item in enumerate(items):
        place = f"{where}.{index}" if "items" in rules else where
        if isinstance(item, dict):
            found += _alert(sender, item, place, errors)
        else:
            errors.append((place, "must be an object"))
    if errors:
        raise Problem(422, errors=errors[:100])
    left_out = _scalar(_at(document, rules.get("more", ""))) or "0"
    if left_out != "0":
        text = f"{left_out} more alerts of this group were left out by {sender}"
        found.append(AlertRequest(event_type=f"from.{sender}", payload={"text": text}))
    return found


def _alert(
    sender: str, item: Mapping[str, Any], place: str, errors: list[tuple[str, str]]
) -> Iterable[AlertRequest]:
    rules = SENDERS[sender]
    state = _first(item, rules["state"], _scalar)
    text = _first(item, rules["text"], _scalar)
    if text is None:
        errors.append((f"{place}.{rules['text'][0]}", "is missing"))
        return ()
    resolved = state in rules["resolved"]
    if not resolved and state is not None and state not in rules["firing"]:
        return ()
    keys = ((name, _scalar(_at(item, path))) for path, name in rules["key"].items())
    key = next((f"{name} {value}"[:200] for name, value in keys if value), None)
    if resolved and key is None:
        errors.append((f"{place}.{next(iter(rules['key']))}", "is missing, so nothing is resolved"))
        return ()
    given = (_first(item, rules["severity"], _scalar) or "").lower()
    severity = next((name for name, words in SEVERITIES.items() if given in words), None)
    severity = severity or ("warning" if state is None else rules.get("otherwise", "warning"))
    more = {name: _first(item, paths, _text) for name, paths in rules["payload"].items()}
    return [
        AlertRequest.model_validate(
            {
                "event_type": f"from.{sender}",
                "payload": {"text": text} | {name: value for name, value in more.items() if value},
                "severity": severity,
                "dedup_key": key,
                "resolved": resolved,
            }
        )
    ]


def _first(item: Any, paths: Iterable[str], read: Callable[[Any], Any]) -> Any:
    return next((found for path in paths if (found := read(_at(item, path)))), None)


def _at(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item


def _text(value: Any) -> Any:
    """Return a value as text that any database takes, or labels as texts; None: neither."""
    if not isinstance(value, dict):
        return _scalar(value)
    labels = ((_scalar(name), _scalar(value[name])) for name in list(value)[:LABELS])
    return {name: text for name, text in labels if text is not None}


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, list | dict):
        return None
    return str(value)[:LETTERS].replace("\0", "").encode(errors="replace").decode()
