"""Every page with every link: what it may do, and what it says."""

import html
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.domain.signed_links import Tokens
from services.consent import changes
from services.consent.settings import ConsentSettings
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import (
    ENVIRONMENT,
    Link,
    agreement,
    opt_in,
    scalar,
)
from tests.integration.consent.test_erasure import mailed_token
from tests.integration.consent.test_http import (
    ANNA,
    Client,
    client,
    entries,
    everything,
    permit,
    post,
    seen,
    serving,
)
from tests.integration.consent.test_optin import AGREED, later, token

__all__ = ["client"]  # a fixture

PAGES = ("/unsubscribe", "/preferences", "/opt-in/confirm", "/erasure/confirm")
LANGUAGES = ("pl", "en")
WORDING = "Zgadzam się na <b>oferty</b>.\nTak."


@dataclass
class Links:
    """Every kind of token that may reach a page."""

    valid: dict[str, str]
    broken: dict[str, str]


@pytest.fixture
async def links(client: Client, engine: AsyncEngine, link: Link) -> Links:
    await post(client, "/api/revoke-consent", {"email": ANNA})
    erasure = await mailed_token(engine)
    await post(client, "/api/opt-in", AGREED)
    confirm = await token(engine)
    unsubscribe = link(ANNA)
    async with engine.begin() as tx:
        erasure_id = UUID(str(await tx.scalar(text("SELECT id FROM erasure"))))
    old = Tokens(ENVIRONMENT["TOKEN_KEYS"]).sign(
        ANNA, "marketing", "opt-in", datetime.now(UTC) - timedelta(days=8)
    )
    return Links(
        valid={
            "/unsubscribe": unsubscribe,
            "/preferences": unsubscribe,
            "/opt-in/confirm": confirm,
            "/erasure/confirm": erasure,
        },
        broken={
            "expired erasure": link.erasure(ANNA, erasure_id, timedelta(hours=25)),
            "expired opt-in": old,
            "cut": unsubscribe[:-3],
            "none": "",
            "markup": '"><script>alert(1)</script>',
        },
    )


async def test_get_and_head_of_every_page_with_every_token_change_nothing(
    client: Client, engine: AsyncEngine, links: Links
) -> None:
    trail = await entries(client, ANNA)  # by a key, and so recorded
    before = await everything(engine)
    tokens = {*links.valid.values(), *links.broken.values()}
    for path in PAGES:
        for each in tokens:
            for method in ("GET", "HEAD"):
                query = {"token": each, "List-Unsubscribe": "One-Click", "purpose": "marketing"}
                async with client.request(method, path, params=query) as answer:
                    assert answer.status in {200, 400}
    assert await everything(engine) == before
    assert await entries(client, ANNA) == trail


async def test_every_page_has_the_same_strict_headers(client: Client, links: Links) -> None:
    for path in PAGES:
        for each in (links.valid[path], *links.broken.values()):
            async with client.get(path, params={"token": each}) as answer:
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
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings, days: int
) -> None:
    """In each language the same: until the suppression of that address ends."""
    ours = settings.model_copy(update={"suppression_retention_days": days})
    async with serving(engine, vault, ours) as client:
        await post(client, "/api/revoke-consent", {"email": ANNA})
        token = await mailed_token(engine)
        asked = {
            each: await seen(
                client, "GET", "/erasure/confirm", params={"token": token, "lang": each}
            )
            for each in LANGUAGES
        }
        assert (await seen(client, "POST", f"/erasure/confirm?token={token}"))[0] == 200
    at = await scalar(engine, "SELECT max(keep_until) FROM suppression")
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
    client: Client, links: Links
) -> None:
    for path in PAGES:
        for each in links.broken.values():
            status, page = await seen(client, "GET", path, params={"token": each})
            assert (status, '<form method="post"' in page) == (400, False)
            asks = '<form method="get" action="unsubscribe">' in page
            assert asks == (path in {"/unsubscribe", "/preferences"})


async def test_preferences_show_date_and_wording_of_the_agreement(
    client: Client, engine: AsyncEngine, vault: Vault, link: Link
) -> None:
    async with engine.begin() as tx:
        assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING))
    url = f"/preferences?token={link(ANNA)}&lang="
    _, page = await seen(client, "GET", f"{url}pl")
    assert re.search(r"Zgoda udzielona \d\d\.\d\d\.\d{4}:", page)
    assert (
        '<blockquote lang="pl">Zgadzam się na &lt;b&gt;oferty&lt;/b&gt;.\nTak.</blockquote>' in page
    )
    assert page.count("<button") == 2
    _, page = await seen(client, "GET", f"{url}en")
    assert re.search(r"Consent given on \d{1,2} [A-Z][a-z]+ \d{4}:", page)
    assert "Withdraw consent: Commercial information" in page


async def test_preferences_do_not_show_a_wording_that_never_counted(
    client: Client, engine: AsyncEngine, vault: Vault, link: Link
) -> None:
    async with engine.begin() as tx:
        assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING))
        forced = agreement("Zgadzam się na wszystko.", "a stranger")
        assert not await changes.grant(tx, vault, opt_in(ANNA), forced, double_opt_in=True)
    _, page = await seen(client, "GET", f"/preferences?token={link(ANNA)}")
    assert "oferty" in page
    assert "na wszystko" not in page


async def test_the_preferences_of_an_unknown_address_are_empty_and_create_nothing(
    client: Client, engine: AsyncEngine, link: Link
) -> None:
    status, page = await seen(
        client, "GET", f"/preferences?token={link('nobody@example.com')}&lang=en"
    )
    assert (status, "No consent. We do not send anything." in page) == (200, True)
    assert await scalar(engine, "SELECT count(*) FROM data_subject") == 0


@pytest.mark.parametrize("path", ["/unsubscribe", "/preferences"])
async def test_the_page_names_a_message_in_flight(
    client: Client, engine: AsyncEngine, vault: Vault, link: Link, path: str
) -> None:
    async with engine.begin() as tx:
        assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING))
    await permit(engine, vault, ANNA)
    status, page = await seen(client, "POST", f"{path}?token={link(ANNA)}&lang=en", data={})
    assert (status, "may still arrive" in page) == (202, True)


async def test_an_unsubscribe_link_works_repeatedly_and_for_years(
    client: Client, engine: AsyncEngine
) -> None:
    old = Tokens(ENVIRONMENT["TOKEN_KEYS"]).sign(
        ANNA, "marketing", "unsubscribe", datetime.now(UTC) - timedelta(days=3 * 365)
    )
    for _ in range(2):
        await later(engine, 2)
        assert (await seen(client, "POST", f"/unsubscribe?token={old}", data={}))[0] == 200


@pytest.mark.parametrize("body", [{}, {"List-Unsubscribe": "One-Click"}])
async def test_a_link_that_only_names_an_address_withdraws_and_shows_nothing_of_it(
    client: Client, engine: AsyncEngine, body: dict[str, str]
) -> None:
    old = "/unsubscribe?email=Anna%40Example.com&token=from-another-system"
    await post(client, "/api/opt-in", AGREED)
    trail, before = await entries(client, ANNA), await everything(engine)
    pages = [await seen(client, "GET", old + f"&lang={each}") for each in LANGUAGES]
    unknown = await seen(client, "GET", "/unsubscribe?email=nobody%40example.com&lang=pl")
    assert [status for status, _ in (*pages, unknown)] == [200] * 3
    assert await everything(engine) == before
    assert unknown[1].replace("nobody@", "anna@").replace("nobody%40", "anna%40") == pages[0][1]
    assert ("preferences" in pages[0][1], pages[0][1].count("<form")) == (False, 1)
    (action,) = re.findall(r'<form method="post" action="([^"]*)"', pages[0][1])
    status, _ = await seen(client, "POST", "/unsubscribe" + html.unescape(action), data=body)
    assert (status, len(await entries(client, ANNA))) == (200, len(trail) + 1)
    assert await seen(client, "GET", old + "&lang=pl") == pages[0]  # as before it
    assert (await seen(client, "GET", old.replace("/unsubscribe", "/preferences")))[0] == 400
