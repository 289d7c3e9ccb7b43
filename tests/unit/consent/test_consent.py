from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.consent.rules import (
    Agreement,
    ConsentState,
    Consequence,
    Permit,
    PermitAnswer,
    PermitDecision,
    State,
    WithdrawalResult,
    consequence,
    decide_permit,
    preferred_language,
    withdrawal_result,
)

OPEN, RETURNED = Permit(0, returned=False), Permit(0, returned=True)
GRANTED, DENIED, CLOSED = PermitDecision


@pytest.mark.parametrize(
    ("state", "permit", "answer"),
    [
        (State.GRANTED, OPEN, PermitAnswer(GRANTED, 20)),
        (State.GRANTED, Permit(12.5, returned=False), PermitAnswer(GRANTED, 7)),  # what is left
        (State.GRANTED, Permit(19.5, returned=False), PermitAnswer(CLOSED, 20)),
        (State.GRANTED, RETURNED, PermitAnswer(CLOSED, 20)),
        (State.WITHDRAWN, None, PermitAnswer(DENIED, 20)),
        (State.WITHDRAWN, OPEN, PermitAnswer(DENIED, 20)),
        (State.WITHDRAWN, RETURNED, PermitAnswer(DENIED, 20)),
        (None, None, PermitAnswer(CLOSED, 20, no_consent=True)),  # and may be asked for again
    ],
)
def test_a_permit_is_decided_by_the_state_and_what_is_left_of_it(
    state: State | None, permit: Permit | None, answer: PermitAnswer
) -> None:
    assert decide_permit(state, permit, 20) == answer


@pytest.mark.parametrize(
    ("version", "unreturned", "withdrawn_for", "waited", "result"),
    [
        (3, 0, 0, 0, WithdrawalResult.DONE),
        (3, 1, 0, 24.9, WithdrawalResult.WAIT),
        (3, 1, 0, 25, WithdrawalResult.IN_FLIGHT),
        (3, 1, 599.9, 25, WithdrawalResult.IN_FLIGHT),
        (3, 1, 600, 0, WithdrawalResult.DONE),  # the quarantine is over
        (4, 0, 0, 0, WithdrawalResult.SUPERSEDED),
    ],
)
def test_a_withdrawal_waits_for_its_permits_or_for_the_quarantine(
    version: int, unreturned: int, withdrawn_for: float, waited: float, result: WithdrawalResult
) -> None:
    seen = ConsentState({"marketing": version}, unreturned, withdrawn_for)
    times = {"waited": waited, "patience": 25, "quarantine": 600}
    assert withdrawal_result({"marketing": 3}, seen, **times) is result


NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGREED = Agreement("Tak.", "pl", "test", NOON, "form", version="v1")


def _follows(agreement: Agreement = AGREED, **more: Any) -> Consequence:
    nothing = {"confirmed": False, "double_opt_in": False, "suppressed": False}
    return consequence(agreement, **{**nothing, "withdrawn_at": None, **more})


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("suppressed", [True, False])
def test_an_agreement_older_than_a_withdrawal_has_no_effect(
    confirmed: bool,  # noqa: FBT001 - pytest passes them by name
    suppressed: bool,  # noqa: FBT001
) -> None:
    for at in (NOON, NOON + timedelta(days=900)):
        follows = _follows(confirmed=confirmed, suppressed=suppressed, withdrawn_at=at)
        assert follows is Consequence.WITHDRAWN_SINCE
    younger = _follows(confirmed=True, withdrawn_at=NOON - timedelta(microseconds=1))
    assert younger is Consequence.COUNTS


def test_an_import_from_the_future_is_younger_than_no_withdrawal() -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    imported = replace(AGREED, place="import", version=None, given_at=later)
    assert _follows(imported) is Consequence.CONFIRM
    assert _follows(imported, withdrawn_at=NOON) is Consequence.WITHDRAWN_SINCE
    # By the clock of a gateway that is ahead.
    assert _follows(replace(AGREED, given_at=later), withdrawn_at=NOON) is Consequence.COUNTS


def test_an_unpublished_wording_never_counts_and_an_import_of_one_asks() -> None:
    unknown = replace(AGREED, version=None)
    assert _follows(unknown) is Consequence.UNKNOWN_WORDING
    imported = replace(unknown, place="import", proven=True)
    for double_opt_in in (False, True):
        assert _follows(imported, double_opt_in=double_opt_in) is Consequence.CONFIRM
    assert _follows(imported, confirmed=True) is Consequence.UNKNOWN_WORDING
    assert _follows(imported, suppressed=True) is Consequence.NOTHING


def test_double_opt_in_exempts_only_an_import_with_evidence() -> None:
    imported = replace(AGREED, place="import")
    assert _follows(double_opt_in=True) is Consequence.CONFIRM
    assert _follows(imported, double_opt_in=True) is Consequence.CONFIRM
    proven = replace(imported, proven=True)
    assert _follows(proven, double_opt_in=True) is Consequence.COUNTS


def test_a_suppressed_address_must_confirm_and_its_import_is_only_recorded() -> None:
    assert _follows(suppressed=True) is Consequence.CONFIRM
    imported = replace(AGREED, place="import", proven=True)
    assert _follows(imported, suppressed=True) is Consequence.NOTHING


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "pl"), ("pl", "pl"), ("en", "en"), ("en-GB,en;q=0.9,pl;q=0.8", "en"),
        ("pl-PL,pl;q=0.9,en;q=0.8", "pl"), ("de-DE,de;q=0.9,en;q=0.8", "en"), ("de", "pl"),
        ("de,en;q=0.5,pl;q=0.4", "en"), ("en, pl", "en"), ("pl, en", "pl"),
        ("en; q=0.2, pl; q=0.1", "en"), ("en ; q=0.2, pl ; q=0.9", "pl"), ("en;q=0", "pl"),
        ("pl;q=0.5, en;q=nan", "pl"), ("en;q=nonsense", "pl"), ("*", "pl"), ("EN-us", "en"),
        ("EN", "en"), ("english", "pl"), (";q=1,,", "pl"),
    ],
)  # fmt: skip
def test_the_page_uses_the_browser_s_preferred_language(accepted: str, language: str) -> None:
    assert preferred_language(accepted) == language
