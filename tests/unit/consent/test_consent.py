import hashlib

import pytest

from services.consent.consent import (
    Outcome,
    Permit,
    PermitAnswer,
    Standing,
    State,
    Verdict,
    answer_permit,
    preferred_language,
    settle,
    wording_hash,
)


def test_a_fresh_permit_is_granted_for_its_whole_life() -> None:
    fresh = Permit(age=0, returned=False)
    assert answer_permit(State.GRANTED, fresh, 20) == PermitAnswer(Verdict.GRANTED, 20)


def test_a_repeated_request_is_granted_only_what_is_left() -> None:
    open_for_a_while = Permit(age=12.5, returned=False)
    assert answer_permit(State.GRANTED, open_for_a_while, 20) == PermitAnswer(Verdict.GRANTED, 7)


@pytest.mark.parametrize("permit", [Permit(0, returned=True), Permit(19.5, returned=False)])
def test_a_returned_or_expired_permit_stays_closed(permit: Permit) -> None:
    assert answer_permit(State.GRANTED, permit, 20).verdict is Verdict.CLOSED


@pytest.mark.parametrize("state", [State.WITHDRAWN, None])
@pytest.mark.parametrize("permit", [None, Permit(0, returned=False), Permit(0, returned=True)])
def test_without_a_grant_every_request_is_denied(
    state: State | None, permit: Permit | None
) -> None:
    assert answer_permit(state, permit, 20).verdict is Verdict.DENIED


def _settle(
    *, version: int = 3, unreturned: int = 0, withdrawn_for: float = 0, waited: float = 0
) -> Outcome:
    seen = Standing({"marketing": version}, unreturned, withdrawn_for)
    return settle({"marketing": 3}, seen, waited=waited, patience=25, quarantine=600)


def test_a_withdrawal_with_every_permit_returned_is_done() -> None:
    assert _settle() is Outcome.DONE


def test_a_withdrawal_waits_for_a_permit_and_then_tells_that_one_is_in_flight() -> None:
    assert _settle(unreturned=1, waited=24.9) is Outcome.WAIT
    assert _settle(unreturned=1, waited=25) is Outcome.IN_FLIGHT


def test_a_permit_that_nobody_returned_counts_as_returned_after_the_quarantine() -> None:
    assert _settle(unreturned=1, withdrawn_for=599.9, waited=25) is Outcome.IN_FLIGHT
    assert _settle(unreturned=1, withdrawn_for=600) is Outcome.DONE


def test_a_newer_grant_supersedes_a_withdrawal_even_with_every_permit_returned() -> None:
    assert _settle(version=4) is Outcome.SUPERSEDED


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "pl"),
        ("pl-PL,pl;q=0.9,en;q=0.8", "pl"),
        ("en-GB,en;q=0.9", "en"),
        ("de,en;q=0.5,pl;q=0.4", "en"),
        ("de", "pl"),
        ("en;q=0", "pl"),
        ("en;q=nonsense", "pl"),
        ("EN", "en"),
        ("en ; q=0.2, pl ; q=0.9", "pl"),
    ],
)
def test_the_page_speaks_the_language_that_the_browser_prefers(header: str, language: str) -> None:
    assert preferred_language(header) == language


def test_the_wording_is_proved_by_its_sha256() -> None:
    proof = hashlib.sha256("Zgadzam się".encode()).hexdigest()
    assert wording_hash("Zgadzam się") == proof
