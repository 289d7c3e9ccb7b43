"""Erasure: asked for, proved by a mailed link, ordered, reported back."""

import asyncio
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Dead
from services.consent.consumers import Consumers
from services.consent.settings import ConsentSettings
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import Link, give_back, grant, make_consumers, scalar
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    client,
    entries,
    everything,
    get,
    permit,
    post,
    seen,
)

__all__ = ["client"]  # a fixture

PAGE = "/erasure/confirm?token="


async def mails(engine: AsyncEngine) -> list[dict[str, Any]]:
    """Return the mails that were handed to alerts, oldest first."""
    async with engine.begin() as tx:
        found = await tx.execute(
            text("SELECT body FROM outbox WHERE routing_key = 'alerts.intake' ORDER BY id")
        )
        return list(found.scalars())


async def mailed_token(engine: AsyncEngine) -> str:
    text_ = (await mails(engine))[-1]["payload"]["text"]
    found = re.search(r"https://ostoja\.example\.com/erasure/confirm\?token=(\S+)", text_)
    assert found is not None
    return found[1]


async def erasure(client: Client, email: str = ANNA) -> Any:
    return (await get(client, f"/api/consent/audit/{email}", ADMIN))["erasure"]


async def orders(engine: AsyncEngine) -> list[Any]:
    async with engine.begin() as tx:
        found = await tx.execute(
            text("SELECT routing_key, body FROM outbox WHERE type = 'person.erased' ORDER BY id")
        )
        return [tuple(row) for row in found]


@pytest.fixture
def consumers(engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> Consumers:
    return make_consumers(engine, vault, settings)


async def receipt(consumers: Consumers, erasure_id: str, service: str) -> Any:
    body = {"erasure_id": erasure_id, "service": service, "at": "2026-11-25T10:15:30+00:00"}
    message = Message(str(uuid4()), "erasure.receipt", body)
    return await consumers.commands(message)


async def test_a_revocation_over_the_public_budget_is_recorded_and_mails_nothing(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    assert await grant(engine, vault, ANNA)
    over = {"X-Over-Budget": "1"}
    answer = await client.post("/api/revoke-consent", json={"email": ANNA}, headers=over)
    assert (answer.status, (await answer.json())["erasure"]) == (200, {"status": "ask_again_later"})
    assert await mails(engine) == []
    status = await client.get(f"/api/unsubscribe/status/{ANNA}")
    assert (await status.json())["unsubscribed"]
    answer = await client.post("/api/revoke-consent", json={"email": ANNA})  # asked again, later
    assert (await answer.json())["erasure"] == {"status": "awaiting_confirmation"}
    assert len(await mails(engine)) == 1


async def test_a_revocation_by_anyone_gets_the_same_answer_and_mails_a_link(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    assert await grant(engine, vault, ANNA)
    answers = []
    for email in (ANNA, "nobody@example.com"):
        status, body = await post(client, "/api/revoke-consent", {"email": email})
        assert body == {
            "success": True, "email": email, "consents_revoked": ["marketing"],
            "erasure": {"status": "awaiting_confirmation"},
        }  # fmt: skip
        answers.append(status)
        (mail,) = [each for each in await mails(engine) if each["payload"]["to"] == email]
        assert (mail["event_type"], mail["once"]) == ("consent.mail", None)
    assert answers == [200, 200]
    assert (await entries(client, ANNA))[-1]["action"] == "revoke-consent"
    assert (await erasure(client))["status"] == "awaiting_confirmation"


async def test_an_erasure_does_not_reset_the_hourly_limit_of_links(
    client: Client, engine: AsyncEngine
) -> None:
    await post(client, "/api/revoke-consent", {"email": ANNA})
    await client.post(PAGE + await mailed_token(engine))
    await post(client, "/api/revoke-consent", {"email": ANNA})
    assert len(await mails(engine)) == 1


async def test_the_button_erases_once_and_uses_up_the_link(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    assert await grant(engine, vault, ANNA)
    await post(client, "/api/revoke-consent", {"email": ANNA})
    token = await mailed_token(engine)
    assert (await seen(client, "POST", PAGE + token))[0] == 200
    assert await entries(client, ANNA) == []
    assert (await erasure(client))["status"] == "in_progress"
    sent = await orders(engine)
    assert [key for key, _ in sent] == ["person.erased.followups"]
    assert {body["email"] for _, body in sent} == {ANNA}
    assert await scalar(engine, "SELECT subject_id FROM erasure") is None  # nor to the trail

    await post(client, "/api/opt-in", {"email": ANNA, "text": "tak"})  # a new subject
    for method in ("get", "head", "post"):
        assert (await seen(client, method, PAGE + token))[0] == 410
    assert len(await entries(client, ANNA)) == 1
    assert len(await orders(engine)) == 1


async def test_two_clicks_at_once_erase_once(client: Client, engine: AsyncEngine) -> None:
    await post(client, "/api/revoke-consent", {"email": ANNA})
    token = await mailed_token(engine)

    async def click() -> int:
        async with client.post(PAGE + token) as page:
            return page.status

    assert set(await asyncio.gather(click(), click())) <= {200, 410}
    assert await scalar(engine, "SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0


async def test_a_foreign_or_expired_link_erases_no_one(
    client: Client, engine: AsyncEngine, link: Link
) -> None:
    for email in (ANNA, "jan@example.com"):
        await post(client, "/api/revoke-consent", {"email": email})
    async with engine.begin() as tx:
        ids = (await tx.execute(text("SELECT id FROM erasure ORDER BY requested_at"))).scalars()
        anna, jan = (UUID(str(found)) for found in ids)
    before = await everything(engine)
    for token, status in (
        (link(ANNA), 400),
        (link.erasure(ANNA, anna, timedelta(hours=25)), 400),
        (link.erasure(ANNA, anna) + "A", 400),
        ("", 400),
        (link.erasure(ANNA, jan), 410),
        (link.erasure(ANNA, uuid4()), 410),
    ):
        assert (await seen(client, "POST", PAGE + token))[0] == status
    assert await everything(engine) == before
    assert (await seen(client, "POST", "/unsubscribe?token=" + link.erasure(ANNA, anna)))[0] == 400


async def test_an_open_permit_delays_the_erasure_and_the_link_stays_valid(
    client: Client, engine: AsyncEngine, vault: Vault
) -> None:
    assert await grant(engine, vault, ANNA)
    message = await permit(engine, vault, ANNA)
    assert (await post(client, "/api/revoke-consent", {"email": ANNA}))[0] == 202
    token = await mailed_token(engine)
    status, page = await seen(client, "POST", PAGE + token)
    assert (status, "<button" in page) == (202, True)
    assert (await erasure(client))["status"] == "awaiting_confirmation"
    async with engine.begin() as tx:
        await give_back(tx, message)
    assert (await seen(client, "POST", PAGE + token))[0] == 200
    assert (await erasure(client))["status"] == "in_progress"


async def test_an_erasure_is_done_once_every_service_has_reported(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    erasure_id = (await orders(engine))[0][1]["erasure_id"]
    await receipt(consumers, erasure_id, "alerts")  # out of turn
    assert (await erasure(client))["waiting_for"] == ["followups", "alerts"]
    for _ in range(2):
        assert isinstance(await receipt(consumers, erasure_id, "followups"), Ack)
        assert (await erasure(client))["waiting_for"] == ["alerts"]
    assert isinstance(await receipt(consumers, erasure_id, "gateway"), Dead)
    assert (await erasure(client))["status"] == "in_progress"
    await receipt(consumers, erasure_id, "alerts")
    done = await erasure(client)
    assert (done["status"], done["waiting_for"]) == ("done", [])
    assert done["finished_at"] >= done["confirmed_at"] >= done["requested_at"]


async def test_alerts_gets_its_order_after_the_receipt_of_followups_with_the_trace(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
    ((key, order),) = await orders(engine)
    assert (key, order["conversations"]) == ("person.erased.followups", [])
    erasure_id = order["erasure_id"]
    found = {"conversations": [str(uuid4())], "phones": ["+48601234567"]}
    trace = Message(str(uuid4()), "erasure.trace", {"erasure_id": erasure_id} | found)
    await consumers.commands(trace)
    key, order = (await orders(engine))[-1]
    assert key == "person.erased.followups"
    assert order.items() >= found.items()
    await receipt(consumers, erasure_id, "followups")
    key, order = (await orders(engine))[-1]
    assert key == "person.erased.alerts"
    assert order.items() >= found.items()


async def test_erasing_again_repeats_the_order_of_the_same_erasure(
    client: Client, engine: AsyncEngine
) -> None:
    for _ in range(2):
        status, body = await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
        assert (status, body["erasure"]) == (200, {"status": "in_progress"})
    sent = await orders(engine)
    assert len(sent) == 2
    assert len({body["erasure_id"] for _, body in sent}) == 1
