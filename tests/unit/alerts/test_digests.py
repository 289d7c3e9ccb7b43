"""The mail that wakes the person on call has all that is needed, and only what is true."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.alerts.store.incidents import IncidentKind, OpenIncident
from services.alerts.store.ledger.escalations import Unsent
from services.alerts.upkeep.digests import Now, compose

AT = datetime(2026, 11, 25, 2, 13, 5, tzinfo=UTC)
NOW = Now(pending=123, oldest_seconds=2460, failed=4, in_doubt=1, last_error="timeout")
UNSENT = Unsent(12, {"gone": 2, "exhausted": 10}, AT, "first error", AT, "last error")
URL = "https://ostoja.example"


def an_incident(kind: IncidentKind) -> OpenIncident:
    return OpenIncident(kind, AT, 0 if kind is IncidentKind.BREAKER else 7)


def test_a_target_that_refuses_us_is_said_to_with_its_settings() -> None:
    now = replace(NOW, settings=("SMTP_USERNAME", "SMTP_PASSWORD"))
    refuses = OpenIncident(IncidentKind.BREAKER, AT, 1)
    subject_line, text = compose("email", None, [refuses], now, URL)
    assert subject_line == "Ostoja: email refuses us"
    assert "SMTP_USERNAME, SMTP_PASSWORD" in text
    assert f"{URL}/api/breakers/email/reset" in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("curl"))


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
    subject_line, text = compose("slack", None, [an_incident(kind)], NOW, URL)
    assert subject_line == f"Ostoja: {subject}"
    assert text.lower().startswith(subject.lower())
    assert "since   2026-11-25 02:13:05 UTC" in text
    assert f"{URL}{call}" in text


def test_an_incident_shows_current_numbers_and_the_targets_error() -> None:
    _, text = compose("slack", None, [an_incident(IncidentKind.BREAKER)], NOW, URL)
    assert "now     123 pending, the oldest 41 min; 4 failed, 1 in doubt" in text
    assert "error   timeout" in text


def test_one_mail_reports_everything_about_a_target() -> None:
    kinds = [an_incident(kind) for kind in (IncidentKind.BREAKER, IncidentKind.PENDING)]
    subject_line, text = compose("slack", UNSENT, kinds, NOW, URL)
    assert subject_line == "Ostoja: 12 for slack did not arrive, and 2 more"
    positions = [
        text.index(part)
        for part in ("12 for slack did not", "exhausted 10, gone 2", "Nothing gets", "7 pending")
    ]
    assert positions == sorted(positions)


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


def test_a_mail_about_missing_permits_names_the_log_event() -> None:
    _, text = compose("email", replace(UNSENT, reasons={"no_permit": 12}), [], NOW, URL)
    assert "delivery.cancelled" in text
    _, text = compose("email", UNSENT, [], NOW, URL)
    assert "delivery.cancelled" not in text


@pytest.mark.parametrize("kind", list(IncidentKind))
def test_a_mail_is_readable_on_a_narrow_screen(kind: IncidentKind) -> None:
    unsent = replace(UNSENT, reasons=UNSENT.reasons | {"no_permit": 1})
    _, text = compose("slack", unsent, [an_incident(kind)], NOW, URL)
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("curl"))
