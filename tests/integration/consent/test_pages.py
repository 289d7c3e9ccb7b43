"""Every page with every link: what it may do, and what it says."""

import asyncio
import html
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.domain.signed_links import Tokens
from services.consent import changes
from services.consent.changes import WithdrawalRequest
from services.consent.recovery.journal import Journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import State, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.store import consents
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import ENVIRONMENT, Link, agreement, opt_in, scalar
from tests.integration.consent.test_erasure import mailed_token
from tests.integration.consent.test_http import (
    ANNA,
    Client,
    client,
    entries,
    everything,
    get,
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


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_language_switch_leads_to_the_same_page(
    client: Client, links: Links, language: str
) -> None:
    other = LANGUAGES[language == "pl"]
    for path, each in links.valid.items():
        _, page = await seen(client, "GET", path, params={"token": each, "lang": language})
        assert f'<html lang="{language}">' in page
        (switch,) = re.findall(r'<a href="(\?[^"]*)" lang="\w\w" hreflang', page)
        status, page = await seen(client, "GET", path + html.unescape(switch))
        assert (status, f'<html lang="{other}">' in page) == (200, True)


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


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/unsubscribe", ("albo na nią odpowiedzieć", "reply to the message")),
        ("/preferences", ("albo na nią odpowiedzieć", "reply to the message")),
        (
            "/opt-in/confirm",
            ("proszę podać adres na naszej stronie jeszcze raz", "give us your address on"),
        ),
        (
            "/erasure/confirm",
            ("Wystarczy jeszcze raz poprosić o usunięcie danych", "Request the erasure again"),
        ),
    ],
)
async def test_the_page_of_a_broken_or_expired_link_says_what_to_do(
    client: Client, links: Links, path: str, advice: tuple[str, str]
) -> None:
    for each in links.broken.values():
        for language, words in zip(LANGUAGES, advice, strict=True):
            async with client.get(path, params={"token": each, "lang": language}) as answer:
                assert answer.status == 400
                page = await answer.text()
                assert words in page
                assert "<button" not in page


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


async def test_the_preferences_button_withdraws(
    client: Client, engine: AsyncEngine, vault: Vault, link: Link
) -> None:
    async with engine.begin() as tx:
        assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING))
    url = f"/preferences?token={link(ANNA)}&lang=en"
    status, page = await seen(client, "POST", url, data={"purpose": "marketing"})
    assert (status, "Done" in page) == (200, True)
    assert (await get(client, f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"] is True
    assert (await entries(client, ANNA))[-1]["evidence"]["source"] == "preferences"
    _, page = await seen(client, "GET", url)
    assert re.search(r"Consent withdrawn on \d", page)
    assert re.findall("<button.*?>(.*?)<", page) == ["I agree: Commercial information"]


async def test_the_preferences_of_an_unknown_address_are_empty_and_create_nothing(
    client: Client, engine: AsyncEngine, link: Link
) -> None:
    status, page = await seen(
        client, "GET", f"/preferences?token={link('nobody@example.com')}&lang=en"
    )
    assert (status, "No consent. We do not send anything." in page) == (200, True)
    assert await scalar(engine, "SELECT count(*) FROM data_subject") == 0


async def test_the_page_of_an_unsubscribed_address_shows_it_without_a_button(
    client: Client, link: Link
) -> None:
    url = f"/unsubscribe?token={link(ANNA)}&lang=pl"
    assert "<button" in (await seen(client, "GET", url))[1]
    await post(client, "/api/unsubscribe", {"email": ANNA})
    _, page = await seen(client, "GET", url)
    assert "Nie wysyłamy wiadomości na ten adres" in page
    assert "<button" not in page


@pytest.mark.parametrize(
    ("language", "words"), [("pl", "może jeszcze dotrzeć"), ("en", "may still arrive")]
)
@pytest.mark.parametrize("path", ["/unsubscribe", "/preferences"])
async def test_the_page_names_a_message_in_flight_in_the_reader_s_language(
    client: Client,
    engine: AsyncEngine,
    vault: Vault,
    link: Link,
    path: str,
    language: str,
    words: str,
) -> None:
    async with engine.begin() as tx:
        assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING))
    await permit(engine, vault, ANNA)
    status, page = await seen(client, "POST", f"{path}?token={link(ANNA)}&lang={language}", data={})
    assert (status, words in page) == (202, True)


async def test_an_unsubscribe_link_works_repeatedly_and_for_years(
    client: Client, engine: AsyncEngine
) -> None:
    old = Tokens(ENVIRONMENT["TOKEN_KEYS"]).sign(
        ANNA, "marketing", "unsubscribe", datetime.now(UTC) - timedelta(days=3 * 365)
    )
    for _ in range(2):
        await later(engine, 2)
        assert (await seen(client, "POST", f"/unsubscribe?token={old}", data={}))[0] == 200


async def test_withdrawing_one_purpose_keeps_the_others(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    async with engine.begin() as tx:
        for purpose in ("marketing", "surveys"):
            assert await changes.grant(tx, vault, opt_in(ANNA), agreement(WORDING), purpose=purpose)
    withdrawals = Withdrawals(
        engine, vault, settings, asyncio.Event(), Journal(engine, vault, settings)
    )
    outcome, _ = await withdrawals.withdraw(WithdrawalRequest(opt_in(ANNA), ["surveys"]))
    assert outcome is WithdrawalResult.DONE
    async with engine.begin() as tx:
        address_hash = vault.lookup_hash(ANNA)
        assert await consents.states(tx, address_hash) == {
            "marketing": State.GRANTED, "surveys": State.WITHDRAWN,
        }  # fmt: skip
        subject_id, suppressed = uuid4(), vault.suppression_hash(ANNA)
        assert (await consents.restrictions(tx, subject_id, suppressed, "surveys")).suppressed
        assert not (await consents.restrictions(tx, subject_id, suppressed, "marketing")).suppressed
