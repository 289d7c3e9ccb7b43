import re

import pytest

from services.consent import pages
from services.consent.consent import LANGUAGES, Outcome, preferred_language
from services.consent.pages import Choice

SITE = "ostoja.example.com"
OUTCOMES = (Outcome.DONE, Outcome.IN_FLIGHT, Outcome.SUPERSEDED)
NAMES = (
    "unsubscribe", "unsubscribed", "preferences", "invalid", *OUTCOMES,
    "opt_in", "opt_in_done", "opt_in_invalid", "opt_in_used",
    "erasure", "erasure_invalid", "erasure_used", *(f"erasure_{outcome}" for outcome in OUTCOMES),
)  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_every_page_exists_in_every_language_and_needs_nothing_from_outside(
    name: str, language: str
) -> None:
    html = pages.render(name, language, site=SITE, address="anna@example.com", token="k.t.s")
    assert f'<html lang="{language}">' in html
    assert not re.search(r"https?://|<script|\bsrc=|@import|url\(", html)
    assert len(re.findall("<button", html)) <= 1
    assert SITE in html  # whom one deals with


def test_an_address_cannot_bring_markup_into_the_page() -> None:
    html = pages.render(
        "unsubscribe", "en", site=SITE, address='"<script>x</script>"@example.com', token="t"
    )
    assert "<script>" not in html


def test_the_policy_allows_exactly_the_page_s_own_style() -> None:
    policy = pages.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/]{43}='", policy)


def test_preferences_offer_each_purpose_that_is_agreed_to_and_all_of_several() -> None:
    def choice(purpose: str, *, granted: bool) -> Choice:
        return Choice(purpose, purpose.title(), "…", granted, f"Withdraw {purpose}")

    def buttons(*choices: Choice) -> list[str]:
        html = pages.render("preferences", "en", site=SITE, token="t", choices=choices)
        return re.findall(r"(?s)<form.*?</form>", html)

    marketing, surveys = (choice(purpose, granted=True) for purpose in ("marketing", "surveys"))
    (only,) = buttons(marketing, choice("surveys", granted=False))
    assert 'name="purpose" value="marketing"' in only
    first, second, every = buttons(marketing, surveys)
    assert 'value="marketing"' in first
    assert 'value="surveys"' in second
    assert "Withdraw every consent" in every
    assert 'name="purpose"' not in every


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "pl"), ("pl", "pl"), ("en", "en"), ("en-GB,en;q=0.9,pl;q=0.8", "en"),
        ("de-DE,de;q=0.9,en;q=0.8", "en"), ("de", "pl"), ("en, pl", "en"), ("pl, en", "pl"),
        ("en; q=0.2, pl; q=0.1", "en"), ("en;q=0", "pl"), ("pl;q=0.5, en;q=nan", "pl"),
        ("*", "pl"), ("EN-us", "en"), ("english", "pl"), (";q=1,,", "pl"),
    ],
)  # fmt: skip
def test_the_page_is_in_the_language_that_the_browser_prefers(accepted: str, language: str) -> None:
    assert preferred_language(accepted) == language


@pytest.mark.parametrize(
    ("wording", "quotable"),
    [
        ("Zgadzam się na wiadomości firmy Dom sp. z o.o., ul. Długa 5.", True),
        ("Tak. Nie. Może.", True),
        ("Zgadzam się…\n1. na oferty\n2. na promocje", True),
        ("patrz https://example.com", False),
        ("patrz www.example", False),
        ("patrz example.pl/zgoda", False),
        ("patrz zły-sklep.рф", False),
        ("pisz na anna@example", False),
        ("a" * 2_001, False),
    ],
)
def test_a_mail_quotes_only_what_no_mail_program_makes_a_link_of(
    wording: str,
    quotable: bool,  # noqa: FBT001 - a row of the table above
) -> None:
    assert pages.quotable(wording) is quotable
