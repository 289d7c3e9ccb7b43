"""The queues, as alerts and followups use them, under their own accounts."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.broker import Broker, Message
from libs.common.consume import consume
from libs.common.outbox import Relay
from libs.common.requests import Requester
from libs.common.tokens import Tokens
from services.consent import topology, trail
from services.consent.consumers import Consumers
from services.consent.optin import OptIns
from services.consent.settings import ConsentSettings
from services.consent.store import people
from services.consent.vault import Vault
from tests.integration.consent.conftest import ENVIRONMENT, grant
from tests.support.brokers import Vhost
from tests.support.eventually import eventually

ANNA = "anna@example.com"
COMMANDS = topology.COMMANDS.name
CHAT = json.loads(
    (Path(__file__).parents[2] / "contracts/grant.record.chat.json").read_text(encoding="utf-8")
)


async def connected(broker: Broker) -> Broker:
    async def ready() -> bool:
        return broker.connected

    await eventually(ready)
    return broker


@pytest.fixture
async def broker(vhost: Vhost) -> AsyncIterator[Broker]:
    async with Broker.connect(vhost.url("consent"), "consent") as opened:
        await opened.declare(*topology.EXCHANGES, *topology.QUEUES)
        yield await connected(opened)


@pytest.fixture
async def consumers(
    broker: Broker, engine: AsyncEngine, vault: Vault, settings: ConsentSettings
) -> AsyncIterator[None]:
    opt_ins = OptIns(vault, Tokens(ENVIRONMENT["TOKEN_KEYS"]), settings)
    handlers = Consumers(engine, broker, vault, settings, opt_ins)
    async with (
        consume(broker, topology.REQUESTS_QUEUE, handlers.permits, prefetch=10),
        consume(broker, topology.PERMITS_QUEUE, handlers.permits, prefetch=10),
        consume(broker, topology.COMMANDS_QUEUE, handlers.commands, prefetch=10),
    ):
        yield


@pytest.fixture
async def alerts(vhost: Vhost) -> AsyncIterator[Broker]:
    async with Broker.connect(vhost.url("alerts"), "alerts") as opened:
        yield await connected(opened)


@pytest.fixture
async def followups(vhost: Vhost) -> AsyncIterator[Broker]:
    async with Broker.connect(vhost.url("followups"), "followups") as opened:
        yield await connected(opened)


async def dead(vhost: Vhost, queue: str) -> list[Any]:
    body = {"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"}
    found: list[Any] = vhost.call("POST", "queues", f"{queue}.dead/get", body)
    return found


@pytest.mark.usefixtures("consumers")
async def test_alerts_asks_for_a_permit_and_returns_it(
    engine: AsyncEngine, vault: Vault, alerts: Broker
) -> None:
    assert await grant(engine, vault, ANNA)
    message = str(uuid4())

    async with Requester(alerts, "alerts") as requester:

        async def ask(address: str = ANNA) -> dict[str, Any]:
            body = {"message": message, "attempt": 1, "address": address, "purpose": "marketing"}
            return await requester.ask(
                COMMANDS, "permit.request", "permit.request", body, timeout=5
            )

        assert await ask() == {"answer": "granted", "seconds": 20}
        assert (await ask("stranger@example.com"))["answer"] == "denied"

        body = {"message": message, "attempt": 1, "address": ANNA}
        returned = Message(str(uuid4()), "permit.return", body)
        await alerts.publish(COMMANDS, "permit.return", returned)

        async def closed() -> bool:
            return bool((await ask())["answer"] == "closed")

        await eventually(closed)


@pytest.mark.usefixtures("consumers")
async def test_a_consent_given_in_chat_is_recorded_once_however_often_it_comes(
    engine: AsyncEngine, vault: Vault, followups: Broker
) -> None:
    twin, other = str(uuid4()), str(uuid4())
    for message_id in (twin, twin, other):
        given = Message(message_id, "grant.record", CHAT)
        await followups.publish(COMMANDS, "grant.record", given)

    async def recorded() -> list[Any]:
        async with engine.begin() as tx:
            seen = await tx.scalar(text("SELECT count(*) FROM inbox"))
            person = await people.find(tx, vault, CHAT["email"])
            if person is None or seen != 2:
                return []
            return await trail.entries(tx, person.id, person.key(vault))

    entries = await eventually(recorded)
    assert [entry["action"] for entry in entries] == ["opt-in", "opt-in"]
    assert entries[0]["ip_address"] == CHAT["ip_address"]
    assert entries[0]["evidence"]["ip_address_from"] == CHAT["ip_address_from"]
    assert entries[0]["session_id"] == CHAT["session_id"]
    evidence = entries[0]["evidence"]
    assert evidence["wording"] == CHAT["wording"]
    assert evidence["source"] == "chat"
    assert evidence["given_at"] == CHAT["at"]
    assert evidence["counts"] is True


@pytest.mark.usefixtures("consumers")
@pytest.mark.parametrize(
    ("key", "body", "queue"),
    [
        ("grant.record", CHAT | {"email": "no address"}, topology.COMMANDS_QUEUE),
        ("grant.record", CHAT | {"purpose": "anything"}, topology.COMMANDS_QUEUE),
        ("grant.record", CHAT | {"wording": ""}, topology.COMMANDS_QUEUE),
        ("permit.request", {"message": "no uuid"}, topology.REQUESTS_QUEUE),
        ("permit.return", {}, topology.PERMITS_QUEUE),
    ],
)
async def test_what_cannot_be_read_waits_for_a_person_and_changes_nothing(
    engine: AsyncEngine,
    vhost: Vhost,
    followups: Broker,
    key: str,
    body: dict[str, Any],
    queue: str,
) -> None:
    await followups.publish(COMMANDS, key, Message(str(uuid4()), key, body))
    (buried,) = await eventually(lambda: dead(vhost, queue))
    assert buried["payload"] == json.dumps(body) or json.loads(buried["payload"]) == body
    async with engine.begin() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM person")) == 0
        assert await tx.scalar(text("SELECT count(*) FROM inbox")) == 0


async def test_a_change_of_consent_reaches_whoever_is_bound(
    engine: AsyncEngine, vault: Vault, vhost: Vhost, broker: Broker, consent_database: str
) -> None:
    arguments = {"x-queue-type": "quorum"}
    vhost.call("PUT", "queues", "followups.listens", {"durable": True, "arguments": arguments})
    vhost.call(
        "POST", "bindings", f"e/{topology.EVENTS.name}/q/followups.listens",
        {"routing_key": "consent.*"},
    )  # fmt: skip
    assert await grant(engine, vault, ANNA)
    await Relay(engine, broker, consent_database).relay()
    body = {"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"}
    (told,) = vhost.call("POST", "queues", "followups.listens/get", body)
    assert told["routing_key"] == told["properties"]["type"] == "consent.granted"
    assert json.loads(told["payload"])["email"] == ANNA
