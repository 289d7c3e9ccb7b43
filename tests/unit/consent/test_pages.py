import re
from typing import Any

import pytest

from libs.domain.company import load
from services.consent.http import pages
from services.consent.rules import LANGUAGES, WithdrawalResult
from tests.support.shipped import EXAMPLE

COMPANY = load(EXAMPLE / "company.toml").company
OUTCOMES = (WithdrawalResult.DONE, WithdrawalResult.IN_FLIGHT, WithdrawalResult.SUPERSEDED)
NAMES = (
    "unsubscribe", "already_unsubscribed", "preferences", "invalid",
    *(f"unsubscribe_{outcome}" for outcome in OUTCOMES),
    "opt_in", "opt_in_done", "opt_in_refused", "opt_in_invalid", "opt_in_used",
    "erasure", "erasure_invalid", "erasure_used", *(f"erasure_{outcome}" for outcome in OUTCOMES),
)  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_every_page_exists_in_every_language_without_external_resources(
    name: str, language: str
) -> None:
    html = pages.render(name, language, company=COMPANY, email="anna@example.com", token="k.t.s")
    assert f'<html lang="{language}">' in html
    assert not re.search(r"<script|<link|\bsrc=|@import|url\(", html)
    assert set(re.findall(r"https?://[^\"<]+", html)) == {COMPANY.privacy_url}
    buttons = 2 if name == "opt_in" else 1  # agreeing, and never being asked again
    assert len(re.findall("<button", html)) <= buttons
    for said in (COMPANY.name, COMPANY.legal_name, COMPANY.nip, COMPANY.contact):
        assert said in html  # whom one deals with


def test_an_address_cannot_inject_markup() -> None:
    html = pages.render(
        "unsubscribe", "en", company=COMPANY, email='"<script>x</script>"@example.com', token="t"
    )
    assert "<script>" not in html


def test_preferences_offer_each_granted_purpose_and_all_of_several() -> None:
    def choice(purpose: str, *, granted: bool) -> dict[str, Any]:
        shown = {"purpose": purpose, "name": purpose.title(), "state": "…", "granted": granted}
        return shown | {"wording": None, "offer": None, "paused": "", "days": None}

    def buttons(*choices: dict[str, Any]) -> list[str]:
        html = pages.render("preferences", "en", company=COMPANY, token="t", choices=choices)
        found = re.findall(r"(?s)<form.*?</form>", html)
        return [each for each in found if "prefer" not in each]

    marketing, surveys = (choice(purpose, granted=True) for purpose in ("marketing", "surveys"))
    (only,) = buttons(marketing, choice("surveys", granted=False))
    assert 'name="purpose" value="marketing"' in only
    first, second, every = buttons(marketing, surveys)
    assert 'value="marketing"' in first
    assert 'value="surveys"' in second
    assert "Withdraw all consents" in every
    assert 'name="purpose"' not in every


def test_polish_pages_use_one_form_of_address() -> None:
    familiar = r"Ty|Twoj\w*|Twój|Ciebie|Tobie|musisz|możesz|chcesz|podaj|kliknij|naciśnij"
    words = rf"\b(?:{familiar}|Państw\w*)\b"
    for name in NAMES:
        html = pages.render(name, "pl", company=COMPANY, token="k.t.s")
        assert not re.search(words, html), name
