"""The mail that wakes the person on call has all that is needed, and only what is true."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from services.alerts.store.incidents import IncidentKind
from services.alerts.upkeep.digests import compose

AT = datetime(2026, 11, 25, 2, 13, 5, tzinfo=UTC)
NOW: dict[str, Any] = {
    "pending": 123,
    "oldest_pending_seconds": 2460,
    "failed": 4,
    "in_doubt": 1,
    "last_error": "timeout",
    "rota_fault": None,
    "settings": (),
    "unanswered": 1,
    "cases": (),
}


@dataclass
class Unsent:
    count: int
    reasons: dict[str, int]
    first_at: datetime = AT
    first_error: str = "first error"
    last_at: datetime = AT
    last_error: str = "last error"
    alerts: Sequence[Any] = ()


UNSENT = Unsent(12, {"gone": 2, "exhausted": 10})
NOTHING = Unsent(0, {})
URL = "https://ostoja.example"


def an_incident(kind: IncidentKind, number: int | None = None) -> Any:
    given = (0 if kind is IncidentKind.BREAKER else 7) if number is None else number
    return SimpleNamespace(kind=kind, since=AT, number=given)


@pytest.mark.parametrize(
    ("kind", "subject", "call"),
    [
        (IncidentKind.BREAKER, "nothing gets through to slack", "/api/breakers/slack/reset"),
        (IncidentKind.PENDING, "7 pending for slack", "/api/dlq/pending?target=slack"),
        (IncidentKind.IN_DOUBT, "7 for slack in doubt", "/api/dlq/resolve"),
        (IncidentKind.ROTA, "the rota slack is not as its file says", "/api/oncall"),
        (IncidentKind.UNREAD, "7 accepted messages could not be read", "/api/ledger/check"),
    ],
)
def test_an_incident_says_what_since_when_and_how_to_look(
    kind: IncidentKind, subject: str, call: str
) -> None:
    subject_line, text = compose("slack", NOTHING, [an_incident(kind)], NOW, URL)
    assert subject_line == f"Ostoja: {subject}"
    assert text.lower().startswith(subject.lower())
    assert "since   2026-11-25 02:13:05 UTC" in text
    assert f"{URL}{call}" in text


def test_each_alert_is_in_it_with_its_first_line_and_no_contact() -> None:
    said: list[dict[str, Any]] = [
        {"id": "a1", "event_type": "pump.alarm", "said": "Pump 7 stopped, call +48600700800\nmore"},
        {"id": "a2", "event_type": "lead.qualified", "said": "Anna Nowak wants a bathroom"},
        {"id": "a3", "event_type": "staff.mail", "said": "https://ostoja.example/join/secret"},
        {"id": "a4", "event_type": "pump.alarm", "said": None},
    ]
    _, text = compose("slack", replace(UNSENT, alerts=said), [], NOW, URL)
    lines = [line.strip() for line in text.splitlines()]
    for line in (
        "a1  pump.alarm: Pump 7 stopped, call […]",
        "a2  lead.qualified",
        "a3  staff.mail",
    ):
        assert line in lines
    assert "a4  pump.alarm" in lines
