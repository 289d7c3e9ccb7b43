"""Opt-in: what counts at once, what waits for a mailed confirmation, and what a link may do."""

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db
from libs.common.broker import Message
from libs.common.consume import Ack, Delivery
from libs.common.tokens import Tokens
from services.consent.consent import wording_hash
from services.consent.consumers import Consumers
from services.consent.optin import OptIns
from services.consent.settings import ConsentSettings
from services.consent.vault import Vault
from tests.integration.consent.conftest import (
    ENVIRONMENT,
    Link,
    grant,
    somebody_waits,
    unsubscribe,
    withdraw,
)
from tests.integration.consent.test_erasure import PAGE as ERASURE_PAGE
from tests.integration.consent.test_erasure import mails
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    client,
    entries,
    everything,
    get,
    post,
    serving,
)
from tests.support.databases import DatabaseUrl

__all__ = ["client"]  # a fixture

PAGE = "/opt-in/confirm?token="
WORDING = "Zgadzam się na wiadomości o ofercie.\nMogę to <zawsze> cofnąć."
AGREED = {"email": ANNA, "text": WORDING, "language": "pl", "source": "form", "session_id": "s-9"}


async def again(client: Client, engine: AsyncEngine, **more: Any) -> str:
    """Let Anna withdraw and agree anew; the token that is mailed to her."""
    await post(client, "/api/unsubscribe", {"email": ANNA})
    answer = await post(client, "/api/opt-in", AGREED | more)
    assert answer == (200, {"success": True, "email": ANNA})
    return await token(engine)


async def token(engine: AsyncEngine) -> str:
    plain = (await mails(engine))[-1]["payload"]["text"]
    found = re.search(r"https://ostoja\.example\.com/opt-in/confirm\?token=(\S+)", plain)
    assert found is not None
    return found[1]


async def look(client: Client, token: str, method: str = "GET") -> tuple[int, str]:
    async with client.request(method, PAGE + token, headers={"User-Agent": "Chromium"}) as page:
        return page.status, await page.text()


async def agreed(client: Client) -> bool:
    status = await get(client, f"/api/unsubscribe/status/{ANNA}", ADMIN)
    return bool(status["consents"]["marketing"])


async def later(engine: AsyncEngine, hours: float) -> None:
    """Let time pass for the count of mails."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE link_mail SET first_at = first_at - make_interval(secs => :s),"
                " last_at = last_at - make_interval(secs => :s)"
            ),
            {"s": hours * 3600},
        )


@pytest.mark.parametrize(
    ("language", "subject", "nothing"),
    [
        ("pl", "Potwierdź zgodę na wiadomości", "nie rób nic: nic się nie zmieni"),
        ("en-GB", "Confirm your consent to messages", "do nothing: nothing changes"),
    ],
)
async def test_a_withdrawn_address_is_mailed_the_exact_wording_and_a_link(
    client: Client, engine: AsyncEngine, language: str, subject: str, nothing: str
) -> None:
    link = await again(client, engine, language=language)
    (mail,) = await mails(engine)
    assert (mail["event_type"], mail["once"], mail["payload"]["to"]) == ("consent.mail", None, ANNA)
    assert mail["payload"]["subject"] == subject
    plain, html = mail["payload"]["text"], mail["payload"]["html"]
    assert "> Zgadzam się na wiadomości o ofercie.\n> Mogę to <zawsze> cofnąć." in plain
    assert "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć." in html
    assert nothing in plain
    assert nothing in html
    assert f'href="https://ostoja.example.com{PAGE}{link}"' in html
    assert not await agreed(client)


async def test_one_mail_has_one_id_however_often_it_is_sent(
    client: Client, engine: AsyncEngine
) -> None:
    """Alerts makes its Message-ID of it; the trail and the link name it as well."""
    await again(client, engine)
    (mail,) = await mails(engine)
    waits = (await entries(client, ANNA))[-1]["evidence"]
    assert (waits["counts"], waits["confirmation"]) == (False, mail["id"])


async def test_looking_at_the_link_shows_the_wording_and_changes_nothing(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    before = await everything(engine)
    status, page = await look(client, link)
    assert status == 200
    assert "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć." in page
    assert (await look(client, link, "HEAD"))[0] == 200
    assert await everything(engine) == before
    assert not await agreed(client)


async def test_the_button_makes_it_count_and_the_evidence_says_how(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    status, page = await look(client, link, "POST")
    assert (status, "<button" in page) == (200, False)
    assert await agreed(client)
    asked, confirmed = (await entries(client, ANNA))[-2:]
    assert confirmed["action"] == "opt-in"
    assert (confirmed["ip_address"], confirmed["user_agent"]) == ("203.0.113.9", "Chromium")
    assert confirmed["session_id"] == "s-9"
    given_at = confirmed["evidence"].pop("given_at")
    assert abs(datetime.fromisoformat(given_at) - datetime.now(UTC)) < timedelta(minutes=1)
    assert confirmed["evidence"] == asked["evidence"] | {
        "counts": True, "confirmed_by": "mailed link",
    }  # fmt: skip
    async with engine.begin() as tx:
        told = (await tx.execute(text("SELECT routing_key FROM outbox ORDER BY id"))).scalars()
        assert list(told)[-1] == "consent.granted"
    # It counts from now on, as for somebody who never withdrew.
    await post(client, "/api/opt-in", AGREED)
    assert (await entries(client, ANNA))[-1]["evidence"]["counts"] is True


async def test_the_link_works_once(client: Client, engine: AsyncEngine) -> None:
    link = await again(client, engine)
    both = await asyncio.gather(*(look(client, link, "POST") for _ in range(4)))
    assert sorted(status for status, _ in both) == [200, 410, 410, 410]
    before = await everything(engine)
    for method in ("GET", "HEAD", "POST"):
        assert (await look(client, link, method))[0] == 410
    assert await everything(engine) == before


async def test_after_a_later_withdrawal_an_old_link_does_nothing(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    await post(client, "/api/unsubscribe", {"email": ANNA})
    before = await everything(engine)
    for method in ("GET", "POST"):
        assert (await look(client, link, method))[0] == 410
    assert await everything(engine) == before


async def test_a_used_link_does_not_undo_the_withdrawal_that_followed(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    assert (await look(client, link, "POST"))[0] == 200
    await post(client, "/api/unsubscribe", {"email": ANNA})
    assert (await look(client, link, "POST"))[0] == 410
    assert not await agreed(client)


async def test_a_click_during_a_withdrawal_waits_for_it_and_then_does_nothing(
    client: Client,
    engine: AsyncEngine,
    vault: Vault,
    consent_database: DatabaseUrl,
) -> None:
    link = await again(client, engine)
    watcher = psycopg2.connect(consent_database.superuser_url)
    try:
        with watcher.cursor() as cursor:
            async with engine.begin() as tx:
                await withdraw(tx, vault, unsubscribe(ANNA))
                click = asyncio.create_task(look(client, link, "POST"))
                await somebody_waits(cursor)
            assert (await click)[0] == 410
    finally:
        watcher.close()
    assert not await agreed(client)


async def test_an_erasure_voids_the_link_and_what_was_agreed_goes_with_the_person(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert (await look(client, link, "POST"))[0] == 410
    async with engine.begin() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM opt_in")) == 0
    # The address may come back, as somebody new.
    await later(engine, 1.1)
    await post(client, "/api/opt-in", AGREED)
    assert (await look(client, link, "POST"))[0] == 410
    assert (await look(client, await token(engine), "POST"))[0] == 200
    assert await agreed(client)


async def test_a_link_of_another_kind_person_wording_or_too_old_confirms_nothing(
    client: Client, engine: AsyncEngine, link: Link
) -> None:
    good = await again(client, engine)
    await post(client, "/api/unsubscribe", {"email": "jan@example.com"})
    opt_in_id = (await mails(engine))[-1]["id"]
    hashed = wording_hash(WORDING)
    tokens, now = Tokens(ENVIRONMENT["TOKEN_KEYS"]), datetime.now(UTC)

    def signed(
        email: str = ANNA, about: str = f"marketing.{opt_in_id}.{hashed}", days: float = 0
    ) -> str:
        return tokens.sign(email, about, "opt-in", now - timedelta(days=days))

    before = await everything(engine)
    for forged, status in (
        (link(ANNA), 400),
        (link.erasure(ANNA, UUID(opt_in_id)), 400),
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
            assert (await look(client, forged, method))[0] == status, forged
    for path in ("/unsubscribe?token=", "/preferences?token=", ERASURE_PAGE):
        async with client.post(path + good) as page:
            assert page.status == 400
    assert await everything(engine) == before
    assert (await look(client, signed(), "POST"))[0] == 200


async def test_with_double_opt_in_every_agreement_waits_and_an_older_one_stands(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    double = settings.model_copy(update={"double_opt_in": True})
    async with serving(engine, vault, double) as client:
        await post(client, "/api/opt-in", AGREED)
        assert not await agreed(client)
        assert (await look(client, await token(engine), "POST"))[0] == 200
        assert await agreed(client)
        await later(engine, 1.1)
        await post(client, "/api/opt-in", AGREED | {"text": "Inna zgoda."})
        assert (await entries(client, ANNA))[-1]["evidence"]["counts"] is False
        assert await agreed(client)
        assert len(await mails(engine)) == 2


async def test_without_it_opt_in_and_unsubscribe_send_no_mail(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/opt-in", AGREED)
    await post(client, "/api/unsubscribe", {"email": ANNA})
    assert await mails(engine) == []


async def test_a_consent_given_in_chat_by_a_withdrawn_address_is_confirmed_by_mail_as_well(
    client: Client, engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    await post(client, "/api/unsubscribe", {"email": ANNA})
    broker: Any = None
    opt_ins = OptIns(vault, Tokens(ENVIRONMENT["TOKEN_KEYS"]), settings)
    consumers = Consumers(engine, broker, vault, settings, opt_ins)
    given_at = "2026-11-25T10:15:30+00:00"
    body = {
        "email": ANNA, "purpose": "marketing", "wording": "Yes, write to me.", "language": "en",
        "source": "chat", "session_id": "chat-1", "ip_address": "203.0.113.5", "at": given_at,
    }  # fmt: skip
    message = Message(str(uuid4()), "grant.record", body)
    delivery = Delivery(redelivered=False, death_count=0)
    for _ in range(2):
        assert isinstance(await consumers.commands(message, delivery), Ack)
    (mail,) = await mails(engine)
    assert "> Yes, write to me." in mail["payload"]["text"]
    assert mail["payload"]["subject"] == "Confirm your consent to messages"
    assert (await look(client, await token(engine), "POST"))[0] == 200
    confirmed = (await entries(client, ANNA))[-1]
    assert (confirmed["session_id"], confirmed["evidence"]["source"]) == ("chat-1", "chat")
    assert confirmed["evidence"]["given_at"] == given_at
    assert await agreed(client)


@pytest.mark.parametrize(
    "wording",
    ["Tak. Więcej na https://zly.example", "Kliknij zly-sklep.pl!", "x" * 2_001, "Pisz: a@b.pl"],
)
async def test_a_stranger_s_wording_carries_no_link_into_a_mail_but_stands_on_the_page(
    client: Client, engine: AsyncEngine, wording: str
) -> None:
    link = await again(client, engine, text=wording)
    (mail,) = await mails(engine)
    assert wording not in mail["payload"]["text"] + mail["payload"]["html"]
    assert "Dokładna treść zgody jest na stronie" in mail["payload"]["text"]
    status, page = await look(client, link)
    assert (status, wording in page) == (200, True)
    assert page.count("<a ") == 1  # the switch of the language


KINDS = {"/api/revoke-consent": {"email": ANNA}, "/api/opt-in": AGREED}


@pytest.mark.parametrize("paths", [["/api/revoke-consent"], ["/api/opt-in"], list(KINDS)])
async def test_nobody_is_bombed_through_many_processes_addresses_spellings_and_routes(
    consent_database: DatabaseUrl,
    engine: AsyncEngine,
    vault: Vault,
    settings: ConsentSettings,
    paths: list[str],
) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for name in ("one", "another"):
            own = db.connect(consent_database, application_name=name, pool_size=8)
            clients.append(
                await stack.enter_async_context(
                    serving(await stack.enter_async_context(own), vault, settings)
                )
            )
        await post(clients[0], "/api/unsubscribe", {"email": ANNA})
        answers = await asyncio.gather(
            *(
                post(
                    clients[number % 2],
                    path,
                    KINDS[path] | {"email": (ANNA, ANNA.upper())[number // 2 % 2]},
                    **{"X-Client-Address": f"198.51.100.{number}"},
                )
                for number in range(80)
                for path in (paths[number % len(paths)],)
            )
        )
    # One lock for all of them: who waits too long for a connection may ask again.
    assert {200} <= {status for status, _ in answers} <= {200, 503}
    for path in paths:
        told = [
            {**body, "email": None}
            for number, (status, body) in enumerate(answers)
            if status == 200 and paths[number % len(paths)] == path
        ]
        assert all(body == told[0] for body in told)
    assert len(await mails(engine)) == len(paths)


async def test_an_address_is_mailed_once_an_hour_and_three_times_a_day(
    client: Client, engine: AsyncEngine
) -> None:
    await again(client, engine)
    for hours, count in ((0.9, 1), (0.2, 2), (1.1, 3), (1.1, 3), (19, 3), (2.1, 4)):
        await later(engine, hours)
        answer = await post(client, "/api/opt-in", AGREED)
        assert answer == (200, {"success": True, "email": ANNA})
        assert len(await mails(engine)) == count, hours


async def test_one_kind_of_mail_does_not_keep_the_other_from_the_person(
    client: Client, engine: AsyncEngine
) -> None:
    """Else whoever opts somebody in all day keeps the link that erases from them."""
    await again(client, engine)
    await post(client, "/api/revoke-consent", {"email": ANNA})
    kinds = [re.search(r"/(opt-in|erasure)/", m["payload"]["text"]) for m in await mails(engine)]
    assert [kind and kind[1] for kind in kinds] == ["opt-in", "erasure"]


async def test_a_link_held_back_is_no_dead_end(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    """Who asks twice within the hour has the first mail; its link is as good as before."""
    assert await grant(engine, vault, ANNA)
    link = await again(client, engine)
    await post(client, "/api/opt-in", AGREED)
    assert "confirmation" not in (await entries(client, ANNA))[-1]["evidence"]
    assert (await look(client, link, "POST"))[0] == 200
    assert await agreed(client)
