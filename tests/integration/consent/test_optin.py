"""Opt-in: what counts at once, what waits for a mailed confirmation, and what a link may do."""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest

from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.database import postgres
from libs.common.messaging.consumer import Ack
from libs.domain import company, forms
from services.consent.rules import wording_hash
from tests.integration.consent.conftest import (
    ADMIN,
    ANNA,
    Consent,
    until_one_waits,
)
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P4")


PAGE = "/opt-in/confirm?token="
SERVICE = {"X-Caller": "service"}
CONTACT = forms.load(EXAMPLE_CONFIG / "forms.toml")["contact"]
NEWEST = company.load(EXAMPLE_CONFIG / "company.toml").asking("form", "pl")
WORDING = "Zgadzam się na wiadomości o ofercie.\nMogę to <zawsze> cofnąć."
AGREED = {"email": ANNA, "text": WORDING, "language": "pl", "source": "form", "session_id": "s-9"}


async def again(consent: Consent, **more: Any) -> str:
    """Let Anna withdraw and agree again; return the token that is mailed to her."""
    await consent.post("/api/unsubscribe", {"email": ANNA})
    answer = await consent.post("/api/opt-in", AGREED | more)
    assert answer == (200, {"success": True, "email": ANNA})
    return await consent.mailed_token("opt-in")


async def look(consent: Consent, token: str, method: str = "GET") -> tuple[int, str]:
    return await consent.seen(method, PAGE + token, headers={"User-Agent": "Chromium"})


@pytest.mark.parametrize(
    ("language", "subject", "nothing"),
    [
        (
            "pl",
            "Prosimy o potwierdzenie zgody na wiadomości",
            "nie trzeba nic robić: nic się nie zmieni",
        ),
        ("en-GB", "Confirm your consent to messages", "do nothing and nothing changes"),
    ],
)
async def test_a_withdrawn_address_is_mailed_the_exact_wording_and_a_link(
    consent: Consent, language: str, subject: str, nothing: str
) -> None:
    link = await again(consent, language=language)
    (mail,) = await consent.mails()
    assert (mail["event_type"], mail["payload"]["to"]) == ("consent.mail", ANNA)
    assert mail["once"] == {"address": ANNA, "purpose": "opt-in", "reference": mail["id"]}
    assert mail["payload"]["subject"] == subject
    plain, html = mail["payload"]["text"], mail["payload"]["html"]
    assert "> Zgadzam się na wiadomości o ofercie.\n> Mogę to <zawsze> cofnąć." in plain
    assert "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć." in html
    assert nothing in plain
    assert nothing in html
    assert f'href="https://ostoja.example.com{PAGE}{link}"' in html
    waits = (await consent.entries(ANNA))[-1]["evidence"]
    assert (waits["counts"], waits["confirmation"]) == (False, mail["id"])


async def test_the_button_confirms_the_opt_in_and_the_evidence_says_how(consent: Consent) -> None:
    link = await again(consent)
    shown = "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć."
    assert shown in (await look(consent, link))[1]
    assert not await consent.agreed()
    status, page = await look(consent, link, "POST")
    assert (status, "<button" in page) == (200, False)
    assert await consent.agreed()
    asked, confirmed = (await consent.entries(ANNA))[-2:]
    assert confirmed["action"] == "opt-in"
    assert (confirmed["ip_address"], confirmed["user_agent"]) == ("203.0.113.9", "Chromium")
    assert confirmed["session_id"] == "s-9"
    assert confirmed["evidence"] == asked["evidence"] | {
        "counts": True, "confirmed_by": "mailed link",
    }  # fmt: skip
    assert (await consent.sent())[-1] == "consent.granted"
    # It counts from now on, as for someone who never withdrew.
    await consent.post("/api/opt-in", AGREED)
    assert (await consent.entries(ANNA))[-1]["evidence"]["counts"] is True


async def test_an_opt_in_link_works_once_and_undoes_no_later_withdrawal(consent: Consent) -> None:
    link = await again(consent)
    both = await asyncio.gather(*(look(consent, link, "POST") for _ in range(4)))
    assert sorted(status for status, _ in both) == [200, 410, 410, 410]
    await consent.post("/api/unsubscribe", {"email": ANNA})
    before = await consent.everything()
    for method in ("GET", "HEAD", "POST"):
        assert (await look(consent, link, method))[0] == 410
    assert await consent.everything() == before


async def test_a_click_during_a_withdrawal_waits_and_then_does_nothing(
    consent: Consent, consent_database: DatabaseUrl
) -> None:
    link = await again(consent)
    with closing(psycopg2.connect(consent_database.superuser_url)) as watcher:
        async with consent.engine.begin() as tx:
            await consent.withdraw(tx=tx)
            click = asyncio.create_task(look(consent, link, "POST"))
            await until_one_waits(watcher.cursor())
        assert (await click)[0] == 410
    assert (await look(consent, link))[0] == 410
    assert not await consent.agreed()


async def test_an_erasure_voids_the_link_and_deletes_the_agreement(consent: Consent) -> None:
    link = await again(consent)
    await consent.post("/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert (await look(consent, link, "POST"))[0] == 410
    assert await consent.scalar("SELECT count(*) FROM opt_in") == 0
    # The address may come back, as a new subject.
    await consent.later(1.1)
    await consent.post("/api/opt-in", AGREED)
    assert (await look(consent, link, "POST"))[0] == 410
    assert (await look(consent, await consent.mailed_token("opt-in"), "POST"))[0] == 200
    assert await consent.agreed()


async def test_a_foreign_or_expired_link_confirms_nothing(consent: Consent) -> None:
    good = await again(consent)
    await consent.post("/api/unsubscribe", {"email": "jan@example.com"})
    opt_in_id = (await consent.mails())[-1]["id"]
    hashed = wording_hash(WORDING)
    now = datetime.now(UTC)

    def signed(
        email: str = ANNA, about: str = f"marketing.{opt_in_id}.{hashed}", days: float = 0
    ) -> str:
        return consent.tokens.sign(email, about, "opt-in", now - timedelta(days=days))

    before = await consent.everything()
    for forged, status in (
        (consent.link(ANNA), 400),
        (consent.erasure_link(ANNA, UUID(opt_in_id)), 400),
        (signed(days=7.01), 400),
        (good[:-1], 400),
        ("", 400),
        (signed("jan@example.com"), 410),
        (signed("nobody@example.com"), 410),
        (signed(about=f"marketing.{uuid4()}.{hashed}"), 410),
        (signed(about=f"marketing.{opt_in_id}.{wording_hash('Zgadzam się na wszystko.')}"), 410),
        (signed(about=f"newsletter.{opt_in_id}.{hashed}"), 410),
    ):
        for method in ("GET", "HEAD", "POST"):
            assert (await look(consent, forged, method))[0] == status, forged
    for path in ("/unsubscribe?token=", "/preferences?token=", "/erasure/confirm?token="):
        assert (await consent.seen("POST", path + good))[0] == 400
    assert await consent.everything() == before
    assert (await look(consent, signed(), "POST"))[0] == 200


async def test_double_opt_in_makes_every_agreement_wait_and_keeps_an_older_one(
    consent: Consent,
) -> None:
    async with consent.with_settings(double_opt_in=True).serving() as client:
        await client.post("/api/opt-in", AGREED)
        assert not await client.agreed()
        assert (await look(client, await consent.mailed_token("opt-in"), "POST"))[0] == 200
        assert await client.agreed()
        await consent.later(1.1)
        await client.post("/api/opt-in", AGREED | {"text": "Inna zgoda."})
        assert (await client.entries(ANNA))[-1]["evidence"]["counts"] is False
        assert await client.agreed()
        assert len(await consent.mails()) == 2


STRANGE = ["Tak. Więcej na https://zly.example", "Wygrana w evil。com", "Tak, na konto 12 3456."]


@pytest.mark.parametrize("key", [{}, SERVICE, ADMIN])
@pytest.mark.parametrize("wording", [*STRANGE, "x" * 2_001])
async def test_an_unpublished_wording_is_refused_with_any_key_and_reaches_no_mail_page_or_row(
    consent: Consent, wording: str, key: dict[str, str]
) -> None:
    before = await consent.everything()
    for said in ({"text": wording}, {"text": WORDING, "wording": wording_hash(wording)}):
        status, problem = await consent.post("/api/opt-in", AGREED | said, **key)
        assert status == 422
        assert [fault["field"] for fault in problem["errors"]] == [[*said][-1]]
    assert await consent.everything() == before


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (WORDING, "test-7"),
        (CONTACT.consents[0].versions[0].en, "contact/2026-11"),
    ],
)
async def test_the_hash_of_a_wording_of_either_file_stands_for_its_text(
    consent: Consent, text: str, version: str
) -> None:
    said = {"email": ANNA, "wording": wording_hash(text)}
    assert (await consent.post("/api/opt-in", said))[0] == 200
    (entry,) = await consent.entries(ANNA)
    evidence = entry["evidence"]
    assert (evidence["wording"], evidence["wording_version"]) == (text, version)


async def test_an_unpublished_wording_from_chat_is_recorded_without_effect(
    consent: Consent,
) -> None:
    body = {
        "email": ANNA, "purpose": "marketing", "wording": STRANGE[0], "source": "chat",
        "at": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    for earlier in ({}, {"vouched": True}):  # of a release that took the company's word for it
        assert await consent.takes("grant.record", body | earlier) == Ack()
        assert not await consent.agreed()
    assert await consent.mails() == []


IMPORTED = {
    "email": ANNA, "purpose": "marketing", "wording": WORDING, "source": "import: targi",
    "place": "import", "proven": True, "at": "2024-05-01T00:00:00+00:00",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({}, True),
        ({"wording": f" {WORDING}\n"}, True),
        ({"at": "2018-01-01T00:00:00+00:00"}, True),
        ({"at": "2017-12-31T23:59:59+00:00"}, False),
        ({"at": "2999-01-01T00:00:00+00:00"}, False),
        ({"wording": "zgoda"}, False),
        ({"wording": "zgoda", "proven": False}, False),
    ],
)
async def test_an_import_counts_in_published_words_with_a_possible_date_and_else_asks_for_them(
    consent: Consent, said: dict[str, Any], *, counts: bool
) -> None:
    assert await consent.takes("grant.record", IMPORTED | said) == Ack()
    assert await consent.agreed() is counts
    kept = (await consent.entries(ANNA))[-1]["evidence"]
    assert kept["counts"] is counts
    if counts:
        assert (kept["wording_sha256"], await consent.mails()) == (wording_hash(WORDING), [])
        return
    assert kept["wording"] == (IMPORTED | said)["wording"]
    assert kept["given_at"] == (IMPORTED | said)["at"]
    assert (await look(consent, await consent.mailed_token("opt-in"), "POST"))[0] == 200
    assert await consent.agreed()
    confirmed = (await consent.entries(ANNA))[-1]["evidence"]
    assert (confirmed["wording"], confirmed["wording_version"]) == (NEWEST.text, NEWEST.version)


@pytest.mark.parametrize("at", ["2019-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
async def test_an_import_makes_nobody_known_who_was_erased(consent: Consent, at: str) -> None:
    await consent.post("/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert await consent.takes("grant.record", IMPORTED | {"at": at}) == Ack()
    assert await consent.scalar("SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0
    assert await consent.mails() == []


KINDS = {"/api/revoke-consent": {"email": ANNA}, "/api/opt-in": AGREED}


@pytest.mark.parametrize("paths", [["/api/revoke-consent"], ["/api/opt-in"], list(KINDS)])
async def test_concurrent_requests_of_any_spelling_and_route_mail_one_link(
    consent_database: DatabaseUrl, consent: Consent, paths: list[str]
) -> None:
    async with (
        postgres.connect(consent_database, application_name="another", pool_size=8) as own,
        consent.serving(engine=own) as another,
    ):
        await consent.post("/api/unsubscribe", {"email": ANNA})
        answers = await asyncio.gather(
            *(
                (consent, another)[number % 2].post(
                    path,
                    KINDS[path] | {"email": (ANNA, ANNA.upper())[number // 2 % 2]},
                    **{
                        "X-Client-Address": f"198.51.100.{number}",
                        # Later than every withdrawal beside it: else an agreement is void.
                        "X-Accepted-At": "2100-01-01T00:00:00+00:00",
                    },
                )
                for number in range(80)
                for path in (paths[number % len(paths)],)
            )
        )
    # One lock for all of them: who waits too long for a connection may ask again.
    assert {200} <= {status for status, _ in answers} <= {200, 503}
    for path in paths:
        found = [
            {**body, "email": None}
            for number, (status, body) in enumerate(answers)
            if status == 200 and paths[number % len(paths)] == path
        ]
        assert all(body == found[0] for body in found)
    assert len(await consent.mails()) == len(paths)


async def test_an_address_gets_one_link_an_hour_and_three_a_day(consent: Consent) -> None:
    await again(consent)
    for hours, count in ((0.9, 1), (0.2, 2), (1.1, 3), (1.1, 3), (19, 3), (2.1, 4)):
        await consent.later(hours)
        answer = await consent.post("/api/opt-in", AGREED)
        assert answer == (200, {"success": True, "email": ANNA})
        assert len(await consent.mails()) == count, hours


async def test_an_agreement_from_before_a_withdrawal_has_no_effect(consent: Consent) -> None:
    """It waited in a queue, or at a frozen process; the suppression has had its time meanwhile."""
    before = datetime.now(UTC)
    await consent.post("/api/unsubscribe", {"email": ANNA})
    for purged in (False, True):
        if purged:
            await consent.rows("DELETE FROM suppression")
        body = {
            "email": ANNA, "purpose": "marketing", "wording": WORDING, "source": "chat",
            "at": before.isoformat(),
        }  # fmt: skip
        assert await consent.takes("grant.record", body) == Ack()
        answer = await consent.post("/api/opt-in", AGREED, **{"X-Accepted-At": before.isoformat()})
        assert answer == (200, {"success": True, "email": ANNA})
        assert not await consent.agreed()
        assert await consent.mails() == []


async def test_an_opt_in_mail_says_where_the_agreement_was_given_and_nothing_of_a_stranger(
    consent: Consent,
) -> None:
    body = {
        "email": ANNA, "purpose": "marketing", "wording": WORDING, "language": "pl",
        "source": "kliknij evil.com", "at": datetime.now(UTC).isoformat(), "place": "chat",
    }  # fmt: skip
    await consent.with_settings(double_opt_in=True).takes("grant.record", body)
    (mail,) = await consent.mails()
    assert "w rozmowie na czacie na stronie ostoja.example.com" in mail["payload"]["text"]
    assert "evil.com" not in mail["payload"]["text"] + mail["payload"]["html"]


@pytest.mark.parametrize("first", ["waits", "used", "void", "old"])
async def test_an_address_that_refuses_is_never_asked_again(consent: Consent, first: str) -> None:
    link = await again(consent)
    if first == "used":
        assert (await look(consent, link, "POST"))[0] == 200
    elif first == "void":
        await consent.post("/api/unsubscribe", {"email": ANNA})
    elif first == "old":
        opt_in_id = (await consent.mails())[-1]["id"]
        about = f"marketing.{opt_in_id}.{wording_hash(WORDING)}"
        link = consent.tokens.sign(ANNA, about, "opt-in", datetime.now(UTC) - timedelta(days=60))
    else:
        assert (await look(consent, link))[1].count("<button") == 2
    status, page = await consent.seen("POST", PAGE + link, data={"refuse": "1"})
    assert (status, "Nie będziemy pytać" in page) == (200, True)
    sent = len(await consent.mails())
    for _ in range(2):
        await consent.later(25)
        await consent.post("/api/opt-in", AGREED)
        await consent.post("/api/unsubscribe", {"email": ANNA})  # forgets nothing
    assert len(await consent.mails()) == sent
    assert not await consent.agreed()
    assert (await look(consent, link, "POST"))[0] in {400, 410}
