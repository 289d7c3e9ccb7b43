import hashlib
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
    wording_hash,
)


def test_a_new_permit_is_granted_for_its_whole_lifetime() -> None:
    fresh = Permit(age=0, returned=False)
    assert decide_permit(State.GRANTED, fresh, 20) == PermitAnswer(PermitDecision.GRANTED, 20)


def test_a_repeated_request_is_granted_the_remaining_time() -> None:
    answer = decide_permit(State.GRANTED, Permit(age=12.5, returned=False), 20)
    assert answer == PermitAnswer(PermitDecision.GRANTED, 7)


@pytest.mark.parametrize("permit", [Permit(0, returned=True), Permit(19.5, returned=False)])
def test_a_returned_or_expired_permit_stays_closed(permit: Permit) -> None:
    assert decide_permit(State.GRANTED, permit, 20).decision is PermitDecision.CLOSED


@pytest.mark.parametrize("permit", [None, Permit(0, returned=False), Permit(0, returned=True)])
def test_a_request_after_a_withdrawal_is_denied(permit: Permit | None) -> None:
    assert decide_permit(State.WITHDRAWN, permit, 20).decision is PermitDecision.DENIED


def test_a_request_without_recorded_consent_is_closed_and_may_be_repeated() -> None:
    assert decide_permit(None, None, 20) == PermitAnswer(PermitDecision.CLOSED, 20, no_consent=True)


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


def _settle(
    *, version: int = 3, unreturned: int = 0, withdrawn_for: float = 0, waited: float = 0
) -> WithdrawalResult:
    seen = ConsentState({"marketing": version}, unreturned, withdrawn_for)
    return withdrawal_result({"marketing": 3}, seen, waited=waited, patience=25, quarantine=600)


def test_a_withdrawal_with_every_permit_returned_is_done() -> None:
    assert _settle() is WithdrawalResult.DONE


def test_a_withdrawal_waits_for_a_permit_and_then_reports_it_in_flight() -> None:
    assert _settle(unreturned=1, waited=24.9) is WithdrawalResult.WAIT
    assert _settle(unreturned=1, waited=25) is WithdrawalResult.IN_FLIGHT


def test_an_unreturned_permit_counts_as_returned_after_the_quarantine() -> None:
    assert _settle(unreturned=1, withdrawn_for=599.9, waited=25) is WithdrawalResult.IN_FLIGHT
    assert _settle(unreturned=1, withdrawn_for=600) is WithdrawalResult.DONE


def test_a_newer_grant_supersedes_a_withdrawal_even_with_every_permit_returned() -> None:
    assert _settle(version=4) is WithdrawalResult.SUPERSEDED


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


def test_the_sha256_of_a_wording_proves_it() -> None:
    proof = hashlib.sha256("Zgadzam się".encode()).hexdigest()
    assert wording_hash("Zgadzam się") == proof
