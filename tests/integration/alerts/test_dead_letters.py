"""A dead letter of intake holds an accepted alert: it is exported, erased, and retried."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from libs.common.messaging.topology import dead_name
from services.alerts.topology import INTAKE_QUEUE
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted
from tests.integration.alerts.test_dead_letter_moved_back import dead_letters, move
from tests.integration.alerts.test_privacy import ANNA, Consent, consent
from tests.support.consumers import until
from tests.support.eventually import eventually

__all__ = ["consent"]  # a fixture

DEAD = dead_name(INTAKE_QUEUE)
CONVERSATION = str(uuid4())


async def publish(subject: Alerts, queue: str, type_: str, *bodies: bytes) -> None:
    async with await aio_pika.connect(subject.vhost.admin_url()) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, type=type_, message_id=str(uuid4()))
            await channel.default_exchange.publish(message, queue)


async def dead(subject: Alerts, count: int) -> None:
    await eventually(lambda: subject.depth(DEAD), so=lambda found: found == count)


HERS = {
    "an alert": json.dumps(
        accepted("slack_alert", "x", payload={"from": "ANNA@example.com"})
    ).encode(),
    "cut": f'{{"id": "x", "payload": {{"text": "dzwoń do {ANNA}'.encode(),
    "of her conversation": f"conversation_id: {CONVERSATION}, no JSON".encode(),
    "in Latin-2": f"żółw {ANNA}".encode("iso8859-2"),
}


@pytest.mark.parametrize("hers", HERS.values(), ids=HERS)
async def test_an_unreadable_alert_is_exported_and_erased(
    alerts: StartAlerts, consent: Consent, hers: bytes
) -> None:
    subject = await alerts()
    others = accepted("slack_alert", payload={"text": f"do jo{ANNA}"})
    unreadable = json.dumps(others | {"severity": "unheard of"}).encode()
    await publish(subject, INTAKE_QUEUE, "alert.accepted", unreadable, hers)

    await dead(subject, 2)
    about: dict[str, Any] = {"conversations": [CONVERSATION]}
    (shown,) = await consent._all("dead_letters", ANNA, **about)
    assert shown["queue"] == DEAD
    assert shown["reason"]
    assert shown["body"] == hers.decode(errors="replace")
    await dead(subject, 2)  # reading removes nothing

    await consent.erased(**about)
    assert await consent._all("dead_letters", ANNA, **about) == []
    ((_, left),) = await dead_letters(subject, DEAD)
    assert left["id"] == others["id"]
    await publish(subject, DEAD, "alert.accepted", json.dumps(others).encode())
    await move(subject, DEAD)
    await subject.until(others["id"], "delivered")


async def test_the_other_alerts_of_an_erased_batch_are_accepted(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    hers, others = (accepted("slack_alert", payload={"text": each}) for each in (ANNA, "x@y.pl"))
    batch = json.dumps({"alerts": [hers, others]}).encode()
    await publish(subject, DEAD, "alerts.accepted", batch)
    (shown,) = await consent._all("dead_letters", ANNA)
    assert json.loads(shown["body"]) == hers
    await consent.erased()
    await subject.until(others["id"], "delivered")
    assert await subject.row(hers["id"]) is None
    assert await subject.depth(DEAD) == 0


async def test_a_dead_letter_about_somebody_else_is_accepted_without_the_mention(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    ewas = accepted("slack_alert", payload={"text": ANNA, "email": "ewa@example.com"})
    batch = json.dumps({"alerts": [ewas]}).encode()
    await publish(subject, DEAD, "alerts.accepted", batch)
    assert await consent._all("dead_letters", ANNA) == []
    await consent.erased()
    row = await subject.until(ewas["id"], "delivered")
    assert row.payload == {"text": "[…]", "email": "ewa@example.com"}
    assert await subject.depth(DEAD) == 0


async def test_a_dead_letter_that_was_set_aside_is_erased_too(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    await publish(subject, DEAD, "alert.accepted", HERS["cut"])
    await move(subject, DEAD, f"{INTAKE_QUEUE}.set-aside")
    (shown,) = await consent._all("dead_letters", ANNA)
    assert shown["queue"] == f"{INTAKE_QUEUE}.set-aside"
    await consent.erased()
    assert await subject.depth(f"{INTAKE_QUEUE}.set-aside") == 0


async def test_a_kill_during_an_erasure_loses_no_other_dead_letter(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    many = [json.dumps(accepted("slack_alert", "no uuid")).encode() for _ in range(300)]
    await publish(subject, DEAD, "alert.accepted", *many, HERS["cut"])
    await consent.order()

    await eventually(lambda: subject.depth(DEAD), so=lambda found: found < 301)  # it is looking
    await asyncio.to_thread(subject.kill9)
    await subject.start()
    await until(lambda: bool(consent.receipts))
    await dead(subject, 300)
