from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.consent.rules import (
    Agreement,
    Consequence,
    Permit,
    PermitDecision,
    consequence,
    preferred_language,
)

OPEN, RETURNED = Permit(0, returned=False), Permit(0, returned=True)
GRANTED, DENIED, CLOSED = PermitDecision


NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGREED = Agreement("Tak.", "pl", "test", NOON, "form", version="v1")


def _follows(agreement: Agreement = AGREED, **more: Any) -> Consequence:
    nothing = {"confirmed": False, "double_opt_in": False, "suppressed": False}
    return consequence(agreement, **{**nothing, "withdrawn_at": None, **more})


def test_an_import_from_the_future_is_younger_than_no_withdrawal() -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    imported = replace(AGREED, place="import", version=None, given_at=later)
    assert _follows(imported) is Consequence.CONFIRM
    assert _follows(imported, withdrawn_at=NOON) is Consequence.WITHDRAWN_SINCE
    # By the clock of a gateway that is ahead.
    assert _follows(replace(AGREED, given_at=later), withdrawn_at=NOON) is Consequence.COUNTS


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
