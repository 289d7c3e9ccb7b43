"""The event types and targets of alerts.toml that a request may name."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from libs.domain import shipped

# Only for services: follow-ups need a permit, and the mails of consent, alerts and the console have
# fixed recipients. Posted by a client, they would bypass both.
INTERNAL_EVENTS = frozenset(
    {
        "followup", "consent.mail", "staff.mail", "escalation", "case.step", "case.update",
        "heartbeat.missed",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Targets:
    names: frozenset[str]
    events: tuple[str, ...]
    """Event types and patterns (`lead.*`) with a route."""

    @classmethod
    def read(cls, path: Path) -> "Targets":
        """:raises SystemExit: the file is missing, malformed, or a route leads nowhere."""
        try:
            document = shipped.read(path, "alerts").whole
            names = frozenset(document["targets"])
            routes = {str(event): list(targets) for event, targets in document["routes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"ALERTS_CONFIG {path}: {type(error).__name__}: {error}") from None
        unknown = {target for targets in routes.values() for target in targets} - names
        if unknown:
            raise SystemExit(f"ALERTS_CONFIG {path}: routes to unknown targets {sorted(unknown)}")
        return cls(names, tuple(routes))

    def knows_event(self, event_type: str) -> bool:
        """Return whether a caller may post it: it has a route and is not internal."""
        return event_type not in INTERNAL_EVENTS and any(
            fnmatchcase(event_type, pattern) for pattern in self.events
        )
