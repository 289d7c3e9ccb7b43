"""Every page with every link: what it may do, and what it says."""

import html
import re
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from tests.integration.consent.conftest import ANNA, Consent, agreement
from tests.integration.consent.test_optin import AGREED

PAGES = ("/unsubscribe", "/preferences", "/opt-in/confirm", "/erasure/confirm")
LANGUAGES = ("pl", "en")
WORDING = "Zgadzam się na <b>oferty</b>.\nTak."


@dataclass
class Links:
    """Every kind of token that may reach a page."""

    valid: dict[str, str]
    broken: dict[str, str]


@pytest.fixture
async def links(consent: Consent) -> Links:
    await consent.post("/api/revoke-consent", {"email": ANNA})
    erasure = await consent.mailed_token("erasure")
    await consent.post("/api/opt-in", AGREED)
    confirm = await consent.mailed_token("opt-in")
    unsubscribe = consent.link(ANNA)
    erasure_id = UUID(str(await consent.scalar("SELECT id FROM erasure")))
    return Links(
        valid={
            "/unsubscribe": unsubscribe,
            "/preferences": unsubscribe,
            "/opt-in/confirm": confirm,
            "/erasure/confirm": erasure,
        },
        broken={
            "expired erasure": consent.erasure_link(ANNA, erasure_id, timedelta(hours=25)),
            "expired opt-in": consent.link(ANNA, "opt-in", timedelta(days=8)),
            "cut": unsubscribe[:-3],
            "none": "",
            "markup": '"><script>alert(1)</script>',
        },
    )


async def test_get_and_head_of_every_page_with_every_token_change_nothing(
    consent: Consent, links: Links
) -> None:
    trail = await consent.entries(ANNA)  # by a key, and so recorded
    before = await consent.everything()
    tokens = {*links.valid.values(), *links.broken.values()}
    for path in PAGES:
        for each in tokens:
            for method in ("GET", "HEAD"):
                query = {"token": each, "List-Unsubscribe": "One-Click", "purpose": "marketing"}
                async with consent.client.request(method, path, params=query) as answer:
                    assert answer.status in {200, 400}
    assert await consent.everything() == before
    assert await consent.entries(ANNA) == trail


async def test_every_page_has_the_same_strict_headers(consent: Consent, links: Links) -> None:
    for path in PAGES:
        for each in (links.valid[path], *links.broken.values()):
            async with consent.client.get(path, params={"token": each}) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert re.fullmatch(
                    r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; "
                    r"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
                    policy,
                )
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Robots-Tag"] == "noindex, nofollow, noarchive"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "Set-Cookie" not in answer.headers
                page = await answer.text()
                assert "<script" not in page
                assert page.count("<h1>") == 1


@pytest.mark.parametrize("days", [5 * 365, 90])
async def test_the_page_of_an_erasure_says_what_stays_and_until_when(
    consent: Consent, days: int
) -> None:
    """In each language the same: until the suppression of that address ends."""
    async with consent.with_settings(suppression_retention_days=days).serving() as client:
        await client.post("/api/revoke-consent", {"email": ANNA})
        token = await consent.mailed_token("erasure")
        asked = {
            each: await client.seen(
                "GET", "/erasure/confirm", params={"token": token, "lang": each}
            )
            for each in LANGUAGES
        }
        assert (await client.seen("POST", f"/erasure/confirm?token={token}"))[0] == 200
    at = await consent.scalar("SELECT max(keep_until) FROM suppression")
    end = at.astimezone(ZoneInfo("Europe/Warsaw"))
    said = {
        "pl": (f"Do {end:%d.%m.%Y} zachowamy jedynie skrót adresu", "oraz daty zgód"),
        "en": (f"Until {end.day} {end:%B %Y} we keep only a hash of the address", "the dates of"),
    }
    for language, (status, page) in asked.items():
        assert status == 200
        for words in said[language]:
            assert words in page


async def test_the_page_of_a_broken_or_expired_link_asks_for_the_address_and_no_more(
    consent: Consent, links: Links
) -> None:
    for path in PAGES:
        for each in links.broken.values():
            status, page = await consent.seen("GET", path, params={"token": each})
            assert (status, '<form method="post"' in page) == (400, False)
            asks = '<form method="get" action="unsubscribe">' in page
            assert asks == (path in {"/unsubscribe", "/preferences"})


async def test_preferences_show_date_and_wording_of_the_agreement(consent: Consent) -> None:
    assert await consent.grant(ANNA, agreement(WORDING))
    url = f"/preferences?token={consent.link(ANNA)}&lang="
    _, page = await consent.seen("GET", f"{url}pl")
    assert re.search(r"Zgoda udzielona \d\d\.\d\d\.\d{4}:", page)
    assert (
        '<blockquote lang="pl">Zgadzam się na &lt;b&gt;oferty&lt;/b&gt;.\nTak.</blockquote>' in page
    )
    assert page.count("<button") == 2
    _, page = await consent.seen("GET", f"{url}en")
    assert re.search(r"Consent given on \d{1,2} [A-Z][a-z]+ \d{4}:", page)
    assert ">Withdraw consent</button>" in page


async def test_preferences_do_not_show_a_wording_that_never_counted(consent: Consent) -> None:
    assert await consent.grant(ANNA, agreement(WORDING))
    forced = agreement("Zgadzam się na wszystko.", "a stranger")
    assert not await consent.grant(ANNA, forced, double_opt_in=True)
    _, page = await consent.seen("GET", f"/preferences?token={consent.link(ANNA)}")
    assert "oferty" in page
    assert "na wszystko" not in page


async def test_the_preferences_of_an_unknown_address_are_empty_and_create_nothing(
    consent: Consent,
) -> None:
    status, page = await consent.seen(
        "GET", f"/preferences?token={consent.link('nobody@example.com')}&lang=en"
    )
    assert (status, "No consent. We do not send anything." in page) == (200, True)
    assert await consent.scalar("SELECT count(*) FROM data_subject") == 0


@pytest.mark.parametrize("path", ["/unsubscribe", "/preferences"])
async def test_the_page_names_a_message_in_flight(consent: Consent, path: str) -> None:
    assert await consent.grant(ANNA, agreement(WORDING))
    await consent.permit()
    status, page = await consent.seen("POST", f"{path}?token={consent.link(ANNA)}&lang=en", data={})
    assert (status, "may still arrive" in page) == (202, True)


async def test_an_unsubscribe_link_works_repeatedly_and_for_years(consent: Consent) -> None:
    old = consent.link(ANNA, age=timedelta(days=3 * 365))
    for _ in range(2):
        await consent.later(2)
        assert (await consent.seen("POST", f"/unsubscribe?token={old}", data={}))[0] == 200


@pytest.mark.parametrize("body", [{}, {"List-Unsubscribe": "One-Click"}])
async def test_a_link_that_only_names_an_address_withdraws_and_shows_nothing_of_it(
    consent: Consent, body: dict[str, str]
) -> None:
    old = "/unsubscribe?email=Anna%40Example.com&token=from-another-system"
    await consent.post("/api/opt-in", AGREED)
    trail, before = await consent.entries(ANNA), await consent.everything()
    pages = [await consent.seen("GET", old + f"&lang={each}") for each in LANGUAGES]
    unknown = await consent.seen("GET", "/unsubscribe?email=nobody%40example.com&lang=pl")
    assert [status for status, _ in (*pages, unknown)] == [200] * 3
    assert await consent.everything() == before
    assert unknown[1].replace("nobody@", "anna@").replace("nobody%40", "anna%40") == pages[0][1]
    assert ("preferences" in pages[0][1], pages[0][1].count("<form")) == (False, 1)
    (action,) = re.findall(r'<form method="post" action="([^"]*)"', pages[0][1])
    status, _ = await consent.seen("POST", "/unsubscribe" + html.unescape(action), data=body)
    assert (status, len(await consent.entries(ANNA))) == (200, len(trail) + 1)
    assert await consent.seen("GET", old + "&lang=pl") == pages[0]  # as before it
    assert (await consent.seen("GET", old.replace("/unsubscribe", "/preferences")))[0] == 400
