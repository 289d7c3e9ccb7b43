"""The mail that wakes somebody: it must say all that is needed, and nothing that is not so."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.alerts.digests import Now, compose
from services.alerts.store.escalations import Untold
from services.alerts.store.troubles import Standing, Trouble

AT = datetime(2026, 11, 25, 2, 13, 5, tzinfo=UTC)
NOW = Now(pending=123, oldest_seconds=2460, failed=4, in_doubt=1, last_error="timeout")
UNTOLD = Untold(12, {"gone": 2, "exhausted": 10}, AT, "first error", AT, "last error")
URL = "https://ostoja.example"


def standing(kind: Trouble) -> Standing:
    return Standing(kind, AT, 7)


@pytest.mark.parametrize(
    ("kind", "subject", "call"),
    [
        (Trouble.BREAKER, "nothing gets through to slack", "/api/breakers/slack/reset"),
        (Trouble.PENDING, "7 wait for slack", "/api/dlq/pending?target=slack"),
        (Trouble.IN_DOUBT, "7 for slack in doubt", "/api/dlq/resolve"),
        (Trouble.UNREAD, "accepted, but not to be read: 7", "/api/ledger/check"),
    ],
)
def test_a_trouble_says_what_since_when_and_how_to_look(
    kind: Trouble, subject: str, call: str
) -> None:
    told, text = compose("slack", None, [standing(kind)], NOW, URL)
    assert told == f"Ostoja: {subject}"
    assert text.lower().startswith(subject.lower())
    assert "since   2026-11-25 02:13:05 UTC" in text
    assert f"{URL}{call}" in text


def test_the_numbers_are_those_of_now_and_the_error_the_targets_own() -> None:
    _, text = compose("slack", None, [standing(Trouble.BREAKER)], NOW, URL)
    assert "now     123 wait, the oldest for 41 min; 4 failed, 1 in doubt" in text
    assert "error   timeout" in text


def test_all_that_is_to_be_told_of_a_target_is_one_mail() -> None:
    kinds = [standing(kind) for kind in (Trouble.BREAKER, Trouble.PENDING)]
    told, text = compose("slack", UNTOLD, kinds, NOW, URL)
    assert told == "Ostoja: 12 for slack did not arrive, and 2 more"
    places = [
        text.index(part)
        for part in ("12 for slack did not", "exhausted 10, gone 2", "Nothing gets", "7 wait")
    ]
    assert places == sorted(places)


def test_mails_cancelled_without_consents_answer_say_that_no_list_has_them() -> None:
    _, text = compose("email", replace(UNTOLD, reasons={"no_permit": 12}), [], NOW, URL)
    assert "delivery.cancelled" in text
    _, text = compose("email", UNTOLD, [], NOW, URL)
    assert "delivery.cancelled" not in text


@pytest.mark.parametrize("kind", list(Trouble))
def test_a_mail_is_readable_on_a_narrow_screen(kind: Trouble) -> None:
    untold = replace(UNTOLD, reasons=UNTOLD.reasons | {"no_permit": 1})
    _, text = compose("slack", untold, [standing(kind)], NOW, URL)
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("curl"))
