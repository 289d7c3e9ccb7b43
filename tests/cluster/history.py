"""What callers did and what was done to the hosts, as JSON lines on one clock.

An operation has an `invoke` and later one of `ok` (answered so), `fail` (refused: it had no
effect) and `unknown` (no answer, or one that says nothing of its effect).
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any, Literal

Kind = Literal["invoke", "ok", "fail", "unknown", "begin", "end"]


@dataclass(frozen=True)
class Event:
    at: float
    """Seconds since the history began."""
    kind: Kind
    what: str
    """Of an operation its name; of `begin` and `end` the fault."""
    key: str
    """Of an operation what names it; of a fault its host."""
    details: dict[str, Any] = field(default_factory=dict)


class History:
    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.began_at = datetime.now(UTC)
        self._began = monotonic()
        self._file = path.open("w", encoding="utf-8")

    def add(self, kind: Kind, what: str, key: str, **details: Any) -> None:
        event = Event(round(monotonic() - self._began, 3), kind, what, key, details)
        self.events.append(event)
        self._file.write(json.dumps(asdict(event)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def summary(self) -> str:
        """Return how many operations of each kind ended how."""
        ends = Counter(
            f"{one.what} {one.kind}" for one in self.events if one.kind not in {"begin", "end"}
        )
        return ", ".join(f"{number} {name}" for name, number in sorted(ends.items()))

    def silence(self) -> str:
        """Return the longest time in which alerts were asked for and none was accepted."""
        asked = [one.at for one in self.events if (one.kind, one.what) == ("invoke", "alert")]
        accepted = [one.at for one in self.events if (one.kind, one.what) == ("ok", "alert")]
        times = [0.0, *(at for at in accepted if at <= asked[-1])]
        longest, since = max((b - a, a) for a, b in pairwise(times))
        return f"the longest time without an accepted alert: {longest:.1f} s, from {since:.2f}"

    def timeline(self) -> str:
        """Return the faults, for whoever reads a failure."""
        faults = (event for event in self.events if event.kind in {"begin", "end"})
        return "\n".join(f"{one.at:8.2f} {one.kind:<5} {one.what} ({one.key})" for one in faults)


@dataclass(frozen=True)
class Operation:
    what: str
    key: str
    invoked: float
    ended: float | None
    outcome: Kind | None
    details: dict[str, Any]
    """Of its invocation and its end."""


def operations(events: list[Event], what: str) -> Iterator[Operation]:
    """Yield each operation of this name; a key is used once."""
    ends = {(one.what, one.key): one for one in events if one.kind in {"ok", "fail", "unknown"}}
    for event in events:
        if event.kind == "invoke" and event.what == what:
            end = ends.get((what, event.key))
            yield Operation(
                what,
                event.key,
                event.at,
                end.at if end else None,
                end.kind if end else None,
                event.details | (end.details if end else {}),
            )
