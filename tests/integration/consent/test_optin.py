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

from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.database import postgres
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from libs.domain import company, forms
from libs.domain.signed_links import Tokens
from services.consent.consumers import Consumers
from services.consent.rules import wording_hash
from services.consent.settings import ConsentSettings
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import (
    ENVIRONMENT,
    Link,
    make_consumers,
    rows,
    scalar,
    unsubscribe,
    until_one_waits,
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
    seen,
    serving,
)
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P4")

__all__ = ["client"]  # a fixture

PAGE = "/opt-in/confirm?token="
SERVICE = {"X-Caller": "service"}
CONTACT = forms.load(EXAMPLE_CONFIG / "forms.toml")["contact"]
NEWEST = company.load(EXAMPLE_CONFIG / "company.toml").asking("form", "pl")
WORDING = "Zgadzam się na wiadomości o ofercie.\nMogę to <zawsze> cofnąć."
AGREED = {"email": ANNA, "text": WORDING, "language": "pl", "source": "form", "session_id": "s-9"}


@pytest.fixture
def consumers(engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> Consumers:
    return make_consumers(engine, vault, settings)


async def again(client: Client, engine: AsyncEngine, **more: Any) -> str:
    """Let Anna withdraw and agree again; return the token that is mailed to her."""
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
    return await seen(client, method, PAGE + token, headers={"User-Agent": "Chromium"})


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
        (
            "pl",
            "Prosimy o potwierdzenie zgody na wiadomości",
            "nie trzeba nic robić: nic się nie zmieni",
        ),
        ("en-GB", "Confirm your consent to messages", "do nothing and nothing changes"),
    ],
)
async def test_a_withdrawn_address_is_mailed_the_exact_wording_and_a_link(
    client: Client, engine: AsyncEngine, language: str, subject: str, nothing: str
) -> None:
    link = await again(client, engine, language=language)
    (mail,) = await mails(engine)
    assert (mail["event_type"], mail["payload"]["to"]) == ("consent.mail", ANNA)
    assert mail["once"] == {"address": ANNA, "purpose": "opt-in", "reference": mail["id"]}
    assert mail["payload"]["subject"] == subject
    plain, html = mail["payload"]["text"], mail["payload"]["html"]
    assert "> Zgadzam się na wiadomości o ofercie.\n> Mogę to <zawsze> cofnąć." in plain
    assert "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć." in html
    assert nothing in plain
    assert nothing in html
    assert f'href="https://ostoja.example.com{PAGE}{link}"' in html
    waits = (await entries(client, ANNA))[-1]["evidence"]
    assert (waits["counts"], waits["confirmation"]) == (False, mail["id"])


async def test_the_button_confirms_the_opt_in_and_the_evidence_says_how(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    shown = "Zgadzam się na wiadomości o ofercie.\nMogę to &lt;zawsze&gt; cofnąć."
    assert shown in (await look(client, link))[1]
    assert not await agreed(client)
    status, page = await look(client, link, "POST")
    assert (status, "<button" in page) == (200, False)
    assert await agreed(client)
    asked, confirmed = (await entries(client, ANNA))[-2:]
    assert confirmed["action"] == "opt-in"
    assert (confirmed["ip_address"], confirmed["user_agent"]) == ("203.0.113.9", "Chromium")
    assert confirmed["session_id"] == "s-9"
    assert confirmed["evidence"] == asked["evidence"] | {
        "counts": True, "confirmed_by": "mailed link",
    }  # fmt: skip
    async with engine.begin() as tx:
        found = (await tx.execute(text("SELECT routing_key FROM outbox ORDER BY id"))).scalars()
        told = [each for each in found if each != "action.record"]  # of our own looks, above
        assert told[-1] == "consent.granted"
    # It counts from now on, as for someone who never withdrew.
    await post(client, "/api/opt-in", AGREED)
    assert (await entries(client, ANNA))[-1]["evidence"]["counts"] is True


async def test_an_opt_in_link_works_once_and_undoes_no_later_withdrawal(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    both = await asyncio.gather(*(look(client, link, "POST") for _ in range(4)))
    assert sorted(status for status, _ in both) == [200, 410, 410, 410]
    await post(client, "/api/unsubscribe", {"email": ANNA})
    before = await everything(engine)
    for method in ("GET", "HEAD", "POST"):
        assert (await look(client, link, method))[0] == 410
    assert await everything(engine) == before


async def test_a_click_during_a_withdrawal_waits_and_then_does_nothing(
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
                await until_one_waits(cursor)
            assert (await click)[0] == 410
    finally:
        watcher.close()
    assert (await look(client, link))[0] == 410
    assert not await agreed(client)


async def test_an_erasure_voids_the_link_and_deletes_the_agreement(
    client: Client, engine: AsyncEngine
) -> None:
    link = await again(client, engine)
    await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    assert (await look(client, link, "POST"))[0] == 410
    assert await scalar(engine, "SELECT count(*) FROM opt_in") == 0
    # The address may come back, as a new subject.
    await later(engine, 1.1)
    await post(client, "/api/opt-in", AGREED)
    assert (await look(client, link, "POST"))[0] == 410
    assert (await look(client, await token(engine), "POST"))[0] == 200
    assert await agreed(client)


async def test_a_foreign_or_expired_link_confirms_nothing(
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
        assert (await seen(client, "POST", path + good))[0] == 400
    assert await everything(engine) == before
    assert (await look(client, signed(), "POST"))[0] == 200


async def test_double_opt_in_makes_every_agreement_wait_and_keeps_an_older_one(
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


STRANGE = ["Tak. Więcej na https://zly.example", "Wygrana w evil。com", "Tak, na konto 12 3456."]


@pytest.mark.parametrize("key", [{}, SERVICE, ADMIN])
@pytest.mark.parametrize("wording", [*STRANGE, "x" * 2_001])
async def test_an_unpublished_wording_is_refused_with_any_key_and_reaches_no_mail_page_or_row(
    client: Client, engine: AsyncEngine, wording: str, key: dict[str, str]
) -> None:
    before = await everything(engine)
    for said in ({"text": wording}, {"text": WORDING, "wording": wording_hash(wording)}):
        status, problem = await post(client, "/api/opt-in", AGREED | said, **key)
        assert status == 422
        assert [fault["field"] for fault in problem["errors"]] == [[*said][-1]]
    assert await everything(engine) == before


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (WORDING, "test-7"),
        (CONTACT.consents[0].versions[0].en, "contact/2026-11"),
    ],
)
async def test_the_hash_of_a_wording_of_either_file_stands_for_its_text(
    client: Client, text: str, version: str
) -> None:
    said = {"email": ANNA, "wording": wording_hash(text)}
    assert (await post(client, "/api/opt-in", said))[0] == 200
    (entry,) = await entries(client, ANNA)
    evidence = entry["evidence"]
    assert (evidence["wording"], evidence["wording_version"]) == (text, version)


async def test_an_unpublished_wording_from_chat_is_recorded_without_effect(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    body = {
        "email": ANNA, "purpose": "marketing", "wording": STRANGE[0], "source": "chat",
        "at": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    for earlier in ({}, {"vouched": True}):  # of a release that took the company's word for it
        message = Message(str(uuid4()), "grant.record", body | earlier)
        assert isinstance(await consumers.commands(message), Ack)
        assert not await agreed(client)
    assert await mails(engine) == []


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
    client: Client,
    engine: AsyncEngine,
    consumers: Consumers,
    said: dict[str, Any],
    counts: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    message = Message(str(uuid4()), "grant.record", IMPORTED | said)
    assert isinstance(await consumers.commands(message), Ack)
    assert await agreed(client) is counts
    kept = (await entries(client, ANNA))[-1]["evidence"]
    assert kept["counts"] is counts
    if counts:
        assert (kept["wording_sha256"], await mails(engine)) == (wording_hash(WORDING), [])
        return
    assert kept["wording"] == (IMPORTED | said)["wording"]
    assert kept["given_at"] == (IMPORTED | said)["at"]
    assert (await look(client, await token(engine), "POST"))[0] == 200
    assert await agreed(client)
    confirmed = (await entries(client, ANNA))[-1]["evidence"]
    assert (confirmed["wording"], confirmed["wording_version"]) == (NEWEST.text, NEWEST.version)


@pytest.mark.parametrize("at", ["2019-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
async def test_an_import_makes_nobody_known_who_was_erased(
    client: Client, engine: AsyncEngine, consumers: Consumers, at: str
) -> None:
    await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    message = Message(str(uuid4()), "grant.record", IMPORTED | {"at": at})
    assert isinstance(await consumers.commands(message), Ack)
    assert await scalar(engine, "SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0
    assert await mails(engine) == []


KINDS = {"/api/revoke-consent": {"email": ANNA}, "/api/opt-in": AGREED}


@pytest.mark.parametrize("paths", [["/api/revoke-consent"], ["/api/opt-in"], list(KINDS)])
async def test_concurrent_requests_of_any_spelling_and_route_mail_one_link(
    consent_database: DatabaseUrl,
    engine: AsyncEngine,
    vault: Vault,
    settings: ConsentSettings,
    paths: list[str],
) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for name in ("one", "another"):
            own = postgres.connect(consent_database, application_name=name, pool_size=8)
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
    assert len(await mails(engine)) == len(paths)


async def test_an_address_gets_one_link_an_hour_and_three_a_day(
    client: Client, engine: AsyncEngine
) -> None:
    await again(client, engine)
    for hours, count in ((0.9, 1), (0.2, 2), (1.1, 3), (1.1, 3), (19, 3), (2.1, 4)):
        await later(engine, hours)
        answer = await post(client, "/api/opt-in", AGREED)
        assert answer == (200, {"success": True, "email": ANNA})
        assert len(await mails(engine)) == count, hours


async def test_an_agreement_from_before_a_withdrawal_has_no_effect(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    """It waited in a queue, or at a frozen process; the suppression has had its time meanwhile."""
    before = datetime.now(UTC)
    await post(client, "/api/unsubscribe", {"email": ANNA})
    for purged in (False, True):
        if purged:
            await rows(engine, "DELETE FROM suppression")
        body = {
            "email": ANNA, "purpose": "marketing", "wording": WORDING, "source": "chat",
            "at": before.isoformat(),
        }  # fmt: skip
        late = Message(str(uuid4()), "grant.record", body)
        assert isinstance(await consumers.commands(late), Ack)
        answer = await post(client, "/api/opt-in", AGREED, **{"X-Accepted-At": before.isoformat()})
        assert answer == (200, {"success": True, "email": ANNA})
        assert not await agreed(client)
        assert await mails(engine) == []


async def test_an_opt_in_mail_says_where_the_agreement_was_given_and_nothing_of_a_stranger(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> None:
    double = settings.model_copy(update={"double_opt_in": True})
    body = {
        "email": ANNA, "purpose": "marketing", "wording": WORDING, "language": "pl",
        "source": "kliknij evil.com", "at": datetime.now(UTC).isoformat(), "place": "chat",
    }  # fmt: skip
    consumers = make_consumers(engine, vault, double)
    await consumers.commands(Message(str(uuid4()), "grant.record", body))
    (mail,) = await mails(engine)
    assert "w rozmowie na czacie na stronie ostoja.example.com" in mail["payload"]["text"]
    assert "evil.com" not in mail["payload"]["text"] + mail["payload"]["html"]


@pytest.mark.parametrize("first", ["waits", "used", "void", "old"])
async def test_an_address_that_refuses_is_never_asked_again(
    client: Client, engine: AsyncEngine, first: str
) -> None:
    link = await again(client, engine)
    if first == "used":
        assert (await look(client, link, "POST"))[0] == 200
    elif first == "void":
        await post(client, "/api/unsubscribe", {"email": ANNA})
    elif first == "old":
        opt_in_id = (await mails(engine))[-1]["id"]
        about = f"marketing.{opt_in_id}.{wording_hash(WORDING)}"
        tokens = Tokens(ENVIRONMENT["TOKEN_KEYS"])
        link = tokens.sign(ANNA, about, "opt-in", datetime.now(UTC) - timedelta(days=60))
    else:
        assert (await look(client, link))[1].count("<button") == 2
    status, page = await seen(client, "POST", PAGE + link, data={"refuse": "1"})
    assert (status, "Nie będziemy pytać" in page) == (200, True)
    sent = len(await mails(engine))
    for _ in range(2):
        await later(engine, 25)
        await post(client, "/api/opt-in", AGREED)
        await post(client, "/api/unsubscribe", {"email": ANNA})  # forgets nothing
    assert len(await mails(engine)) == sent
    assert not await agreed(client)
    assert (await look(client, link, "POST"))[0] in {400, 410}
