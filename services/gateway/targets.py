"""The gateway's own small reading of alerts.toml: the names that a request may use."""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# Raised by services: a follow-up goes through its permit, consent's and alerts' own mails have
# their own recipients. Posted from outside they would pass all of that by.
INTERNAL_EVENTS = frozenset({"followup", "consent.mail", "escalation"})


@dataclass(frozen=True, slots=True)
class Targets:
    names: frozenset[str]
    events: tuple[str, ...]
    """Event types and patterns (`lead.*`) that lead to a target."""

    @classmethod
    def read(cls, path: Path) -> "Targets":
        """:raises SystemExit: the file is missing, malformed, or a route leads nowhere."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            names = frozenset(document["targets"])
            routes = {str(event): list(targets) for event, targets in document["routes"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"ALERTS_CONFIG {path}: {type(error).__name__}: {error}") from None
        unknown = {target for targets in routes.values() for target in targets} - names
        if unknown:
            raise SystemExit(f"ALERTS_CONFIG {path}: routes to unknown targets {sorted(unknown)}")
        return cls(names, tuple(routes))

    def knows_event(self, event_type: str) -> bool:
        """Say whether a caller may raise it; what only services raise is none of a caller's."""
        return event_type not in INTERNAL_EVENTS and any(
            fnmatchcase(event_type, pattern) for pattern in self.events
        )
