"""Erasures outlast lost orders and late messages, within a month of the request."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from services.consent import erasure_orders
from services.consent.consumers import Consumers
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import grant, scalar
from tests.integration.consent.test_erasure import client, consumers, erasure, orders, receipt
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    entries,
    post,
)

__all__ = ["client", "consumers"]  # fixtures

JAN = "jan@example.com"


async def erase(client: Client, email: str = ANNA) -> None:
    status, body = await post(client, "/api/consent/erase", {"email": email}, **ADMIN)
    assert (status, body["erasure"]["status"]) == (200, "in_progress")


def agreed(at: datetime) -> Message:
    body = {
        "email": ANNA,
        "purpose": "marketing",
        "wording": "Zgadzam się.",
        "source": "chat",
        "at": at.isoformat(),
    }
    return Message(str(uuid4()), "grant.record", body)


async def test_an_older_agreement_does_not_make_an_erased_subject_known(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    await grant(engine, vault, ANNA)
    before = datetime.now(UTC)
    await erase(client)
    late = agreed(before)
    for _ in range(2):  # it comes again, and is dropped again
        outcome = await consumers.commands(late)
        assert isinstance(outcome, Ack)
    said = {"email": ANNA, "text": "Zgadzam się."}
    answer = await post(client, "/api/opt-in", said, **{"X-Accepted-At": before.isoformat()})
    assert answer == (200, {"success": True, "email": ANNA})
    assert await scalar(engine, "SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0
    now = datetime.now(UTC) + timedelta(seconds=1)
    await consumers.commands(agreed(now))
    assert [entry["action"] for entry in await entries(client, ANNA)] == ["opt-in"]


async def test_a_lost_order_is_repeated_to_services_that_have_not_reported(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    await erase(client)
    ((_, first),) = await orders(engine)
    await receipt(consumers, first["erasure_id"], "followups")
    await scalar(engine, "DELETE FROM outbox RETURNING 1")

    await erasure_orders.follow_up(engine, vault, 3600)
    assert await orders(engine) == []  # not yet
    await erasure_orders.follow_up(engine, vault, 0)
    ((routing_key, order),) = await orders(engine)
    assert routing_key == "person.erased.alerts"
    assert (order["email"], order["erasure_id"]) == (ANNA, first["erasure_id"])


async def test_the_subject_of_an_order_is_sealed_and_deleted_with_the_last_receipt(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    await erase(client)
    sealed = "SELECT encode(sealed_subject, 'escape') FROM erasure"
    assert "anna" not in await scalar(engine, sealed)
    ((_, order),) = await orders(engine)
    for service in ("followups", "alerts"):
        await receipt(consumers, order["erasure_id"], service)
    assert await scalar(engine, sealed) is None


async def test_an_erasure_is_due_a_month_after_its_request(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    async with engine.begin() as tx:
        assert (await run(tx, "open_erasures")).one() == (0, None, 0)
    await erase(client)
    requested = "UPDATE erasure SET requested_at = now() - interval '25 days' RETURNING 1"
    await scalar(engine, requested)
    async with engine.begin() as tx:
        count, days, awaiting = (await run(tx, "open_erasures")).one()
    assert (count, awaiting) == (1, 0)
    assert 2 < days < 7
    found = await erasure(client)
    month = datetime.fromisoformat(found["due_at"]) - datetime.fromisoformat(found["requested_at"])
    assert timedelta(days=28) <= month <= timedelta(days=31)


async def test_a_lapsed_request_does_not_set_the_deadline_of_a_later_one(
    client: Client, engine: AsyncEngine
) -> None:
    for days, is_new in ((3, False), (8, True)):
        await post(client, "/api/revoke-consent", {"email": ANNA})
        aged = f"UPDATE erasure SET requested_at = now() - interval '{days} days' RETURNING 1"
        await scalar(engine, aged)
        await post(client, "/api/revoke-consent", {"email": ANNA})
        age = await scalar(engine, "SELECT now() - requested_at FROM erasure")
        assert (age < timedelta(hours=1)) is is_new
