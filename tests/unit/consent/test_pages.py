import re

import pytest

from services.consent import pages
from services.consent.consent import LANGUAGES, Outcome

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
    html = pages.render(name, language, address="anna@example.com", token="k.t.s")
    assert f'<html lang="{language}">' in html
    assert not re.search(r"https?://|<script|\bsrc=|@import|url\(", html)
    assert len(re.findall("<button", html)) <= 1


def test_an_address_cannot_bring_markup_into_the_page() -> None:
    html = pages.render("unsubscribe", "en", address='"<script>x</script>"@example.com', token="t")
    assert "<script>" not in html


def test_the_policy_allows_exactly_the_page_s_own_style() -> None:
    policy = pages.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/]{43}='", policy)
