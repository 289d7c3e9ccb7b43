"""Exports of a person's records, requested by consent over a real broker."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.common.messaging.broker import Broker
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.rpc import Requester
from services.followups import consumers, topology
from services.followups.consumers import Consumers
from tests.integration.followups.conftest import GOOD_LEAD, World
from tests.support.brokers import Vhost
from tests.support.consumers import connected


@pytest.fixture
async def consent(vhost: Vhost, world: World) -> AsyncIterator[Requester]:
    """Consent's side of an export, with followups answering."""
    async with (
        Broker.connect(vhost.url("followups"), "followups") as mine,
        Broker.connect(vhost.url("consent"), "consent") as theirs,
    ):
        await connected(mine)
        await mine.declare(*topology.EXCHANGES, *topology.QUEUES)
        handler = Consumers(world.engine, mine, world.forms).requests
        async with (
            Consumer(mine, topology.REQUESTS_QUEUE, handler, prefetch=5),
            Requester(theirs, "consent") as requester,
        ):
            yield requester


async def everything(consent: Requester, email: str | None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    after: Any = None
    while True:
        body = {"email": email, "after": after}
        answer = await consent.ask(
            "followups.commands", "export.request", "export.request", body, timeout=10
        )
        for kind, records in answer["records"].items():
            found.setdefault(kind, []).extend(records)
        if (after := answer["next"]) is None:
            return found


async def test_an_export_has_all_records_of_a_person_and_no_one_else(
    consent: Requester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "EXPORT_PAGE", 2)
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    await world.say("Jeszcze jedno pytanie")
    await world.say(f"{GOOD_LEAD}, ala@example.com", "s2")
    await world.enrol("jan@example.com", steps=3)
    found = await everything(consent, "JAN@example.com")
    assert [conversation["session_id"] for conversation in found["conversations"]] == ["s1"]
    assert [message["author"] for message in found["messages"]] == ["lead", "bot"] * 2
    assert "jan@example.com" in found["messages"][0]["body"]
    assert {step["email"] for step in found["followups"]} == {"jan@example.com"}
    assert [lead["known"]["email"] for lead in found["leads"]] == ["jan@example.com"]
    assert len(found["followups"]) == len(await world.steps("jan@example.com"))


async def test_an_export_of_an_unknown_person_is_empty(consent: Requester) -> None:
    found = await everything(consent, "nobody@example.com")
    kinds = {
        "conversations", "messages", "followups", "leads", "lead_acts", "submissions",
        "dead_letters", "mails",
    }  # fmt: skip
    assert found == {kind: [] for kind in kinds}


async def test_the_export_of_addresses_names_each_once(
    consent: Requester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "EXPORT_PAGE", 2)
    for name in ("jan", "ala", "ewa"):
        await world.say(f"{GOOD_LEAD}, {name}@example.com", name)
    await world.enrol("jan@example.com", steps=3)
    await world.say("Dzień dobry", "nobody yet")
    found = await everything(consent, None)
    assert [each["address"] for each in found["addresses"]] == [
        "ala@example.com",
        "ewa@example.com",
        "jan@example.com",
    ]
