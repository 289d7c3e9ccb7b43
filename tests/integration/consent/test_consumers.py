"""The queues, as alerts and followups use them, under their own accounts."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from libs.common.messaging.broker import Broker, Message
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.rpc import Requester
from services.consent import topology
from services.consent.dead_letters import SubjectDeadLetters
from tests.integration.consent.conftest import ANNA, Consent
from tests.support.brokers import Vhost
from tests.support.consumers import connected
from tests.support.contracts import golden
from tests.support.eventually import eventually

COMMANDS = topology.COMMANDS.name
CHAT = golden("grant.record.chat")
WITHDRAWN = golden("withdrawal.record")
REPORT = golden("address.report")


@pytest.fixture
async def broker(vhost: Vhost) -> AsyncIterator[Broker]:
    async with Broker.connect(vhost.url("consent"), "consent") as opened:
        await opened.declare(*topology.EXCHANGES, *topology.QUEUES)
        yield await connected(opened)


@pytest.fixture
async def consumers(broker: Broker, consent: Consent) -> AsyncIterator[None]:
    dead_letters = SubjectDeadLetters(consent.engine, broker, consent.vault)
    handlers = consent.consuming(broker, dead_letters)
    async with (
        Consumer(broker, topology.REQUESTS_QUEUE, handlers.permits, prefetch=10),
        Consumer(broker, topology.PERMITS_QUEUE, handlers.permits, prefetch=10),
        Consumer(broker, topology.COMMANDS_QUEUE, handlers.commands, prefetch=10),
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
async def test_alerts_requests_a_permit_and_returns_it(consent: Consent, alerts: Broker) -> None:
    assert await consent.grant(ANNA)
    message = str(uuid4())

    async with Requester(alerts, "alerts") as requester:

        async def ask(address: str = ANNA) -> dict[str, Any]:
            body = {"message": message, "attempt": 1, "address": address, "purpose": "marketing"}
            return await requester.ask(
                COMMANDS, "permit.request", "permit.request", body, timeout=5
            )

        assert await ask() == {"answer": "granted", "seconds": 20}
        stranger = await ask("stranger@example.com")
        assert (stranger["answer"], stranger["reason"]) == ("closed", "no_consent")

        body = {"message": message, "attempt": 1, "address": ANNA}
        returned = Message(str(uuid4()), "permit.return", body)
        await alerts.publish(COMMANDS, "permit.return", returned)

        await eventually(ask, so=lambda found: found["answer"] == "closed")


@pytest.mark.usefixtures("consumers")
async def test_an_erasure_request_in_chat_mails_the_confirmation_link(
    consent: Consent, followups: Broker
) -> None:
    body = WITHDRAWN | {"erase": True, "language": "en"}
    event = Message(str(uuid4()), "withdrawal.record", body)
    await followups.publish(COMMANDS, "withdrawal.record", event)
    (mail,) = await eventually(consent.mails)
    assert mail["payload"]["to"] == WITHDRAWN["email"]
    assert mail["payload"]["subject"] == "Confirm the erasure of your data"
    assert "/erasure/confirm?token=" in mail["payload"]["text"]


@pytest.mark.usefixtures("consumers")
async def test_a_redelivered_consent_or_withdrawal_from_chat_is_recorded_once(
    consent: Consent, followups: Broker
) -> None:
    async def entries(count: int) -> list[Any]:
        seen = await consent.scalar("SELECT count(*) FROM inbox")
        return await consent.entries(CHAT["email"]) if seen == count else []

    for kind, body, count in (("grant.record", CHAT, 2), ("withdrawal.record", WITHDRAWN, 4)):
        duplicate, other = str(uuid4()), str(uuid4())
        for message_id in (duplicate, duplicate, other):
            await followups.publish(COMMANDS, kind, Message(message_id, kind, body))
        found = await eventually(partial(entries, count))
    assert [each["action"] for each in found] == ["opt-in"] * 2 + ["unsubscribe"] * 2
    agreed, withdrawn = found[0], found[-1]
    for name in ("ip_address", "session_id"):
        assert (agreed[name], withdrawn[name]) == (CHAT.get(name), WITHDRAWN.get(name)), name
    said = {"wording": CHAT["wording"], "source": "chat", "given_at": CHAT["at"], "counts": True}
    said["ip_address_from"] = CHAT["ip_address_from"]
    assert agreed["evidence"].items() >= said.items()
    assert withdrawn["evidence"]["source"] == "chat"


@pytest.mark.usefixtures("consumers")
async def test_no_permit_is_given_while_mail_to_an_address_comes_back(
    consent: Consent, followups: Broker
) -> None:
    async def answers(wanted: str) -> bool:
        return await consent.ask(email=CHAT["email"]) == wanted

    async def tell(kind: str, **body: Any) -> None:
        await followups.publish(COMMANDS, kind, Message(str(uuid4()), kind, body))

    report = REPORT | {"email": CHAT["email"]}
    await tell("grant.record", **CHAT)
    await eventually(partial(answers, "granted"))
    await tell("address.report", **report)
    await eventually(partial(answers, "denied"))
    earlier = {"takes_mail": True, "at": "2026-11-25T10:15:29+00:00"}
    await tell("address.report", **report | earlier)
    await tell("address.report", **report)
    await eventually(partial(answers, "denied"))
    later = {"takes_mail": True, "at": "2026-11-25T10:15:31+00:00"}
    await tell("address.report", **report | later)
    await eventually(partial(answers, "granted"))


@pytest.mark.usefixtures("consumers")
@pytest.mark.parametrize(
    ("key", "body", "queue"),
    [
        ("grant.record", CHAT | {"email": "no address"}, topology.COMMANDS_QUEUE),
        ("withdrawal.record", CHAT | {"email": "no address"}, topology.COMMANDS_QUEUE),
        ("address.report", REPORT | {"email": "no address"}, topology.COMMANDS_QUEUE),
        ("grant.record", CHAT | {"purpose": "anything"}, topology.COMMANDS_QUEUE),
        ("grant.record", CHAT | {"wording": ""}, topology.COMMANDS_QUEUE),
        ("permit.return", {}, topology.PERMITS_QUEUE),
    ],
)
async def test_an_unreadable_message_becomes_a_dead_letter_and_changes_nothing(
    consent: Consent, vhost: Vhost, followups: Broker, key: str, body: dict[str, Any], queue: str
) -> None:
    await followups.publish(COMMANDS, key, Message(str(uuid4()), key, body))
    (buried,) = await eventually(lambda: dead(vhost, queue))
    assert json.loads(buried["payload"]) == body
    for table in ("data_subject", "inbox"):
        assert await consent.scalar(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.usefixtures("consumers")
async def test_a_dead_permit_request_keeps_only_ids_and_the_reason(
    vhost: Vhost, alerts: Broker
) -> None:
    asked = Message(str(uuid4()), "permit.request", {"message": "no uuid", "address": ANNA})
    await alerts.publish(COMMANDS, "permit.request", asked)
    (buried,) = await eventually(lambda: dead(vhost, topology.REQUESTS_QUEUE))
    assert buried["properties"]["message_id"] == asked.id
    assert buried["properties"]["headers"]["x-reason"].startswith("malformed")
    assert buried["payload"] == "{}"


@pytest.mark.usefixtures("consumers")
async def test_dead_letters_are_exported_to_their_subject_and_removed_with_an_erasure(
    consent: Consent, vhost: Vhost, broker: Broker, followups: Broker
) -> None:
    hers, others = (
        Message(str(uuid4()), "grant.record", CHAT | {"email": email, "purpose": "anything"})
        for email in ("Anna@Example.com", f"jo{ANNA}")
    )
    for each in (hers, others):
        await followups.publish(COMMANDS, "grant.record", each)

    async def buried() -> list[Any]:
        return [each["properties"]["message_id"] for each in await dead(vhost, "consent.commands")]

    async def ids(*expected: str) -> bool:
        return await buried() == list(expected)

    await eventually(partial(ids, hers.id, others.id))
    dead_letters = SubjectDeadLetters(consent.engine, broker, consent.vault)
    (shown,) = await dead_letters.naming(ANNA)
    assert (shown["id"], shown["queue"]) == (hers.id, "consent.commands.dead")
    assert "Anna@Example.com" in shown["body"]
    assert await dead_letters.remove_erased() == 0

    await consent.erase()
    ((_, order),) = await consent.orders()
    for service in ("followups", "alerts"):
        body = {"erasure_id": order["erasure_id"], "service": service}
        receipt = Message(str(uuid4()), "erasure.receipt", body)
        await followups.publish(COMMANDS, receipt.type, receipt)
    await eventually(partial(ids, others.id))
    assert await dead_letters.naming(ANNA) == []
