"""Dead letters: moved back by an operator, of rows that were lost, of what kills its sender."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiohttp
import pytest
from aiohttp import web

from services.alerts import messages
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

pytestmark = pytest.mark.promise("P1")


DEAD = "alerts.slack.dead"
INTAKE_DEAD = "alerts.intake.dead"
LIMIT = 100  # requeues after which a message counts as poison


async def dead_letters(subject: Alerts, queue: str) -> list[tuple[Any, Any]]:
    """Return `x-reason` and body of each dead letter, read as the UI does, with requeue."""
    asked = {"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"}
    found = await asyncio.to_thread(subject.vhost.call, "POST", "queues", f"{queue}/get", asked)
    return [
        (each["properties"]["headers"].get("x-reason"), json.loads(each["payload"]))
        for each in found
    ]


async def move(subject: Alerts, dead: str, to: str | None = None) -> None:
    """Do what "Move messages" does, and wait until the shovel has ended."""
    uri = f"amqp:///{subject.vhost.name}"
    value = {
        "src-uri": uri,
        "src-queue": dead,
        "src-protocol": "amqp091",
        "src-prefetch-count": 1000,
        "src-delete-after": "queue-length",
        "dest-protocol": "amqp091",
        "dest-uri": uri,
        "dest-add-forward-headers": False,
        "ack-mode": "on-confirm",
        "dest-queue": to or dead.removesuffix(".dead"),
    }
    call, name = subject.vhost.call, f"Move%20from%20{dead}"
    await asyncio.to_thread(call, "PUT", "parameters/shovel", name, {"value": value})
    await eventually(
        lambda: asyncio.to_thread(call, "GET", "parameters/shovel"),
        20,
        every=0.1,
        so=lambda found: not found,
    )


async def test_a_dead_letter_moved_back_is_retried_and_counted_once(subject: Alerts) -> None:
    await subject.sandbox.behave("slack", status=400)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed")
    await eventually(lambda: dead_letters(subject, DEAD))

    await move(subject, DEAD)  # too early
    await subject.until(alert_id, "failed", attempt=2)
    ((reason, dead_letter),) = await eventually(lambda: dead_letters(subject, DEAD))
    assert (reason, dead_letter["alert_id"]) == ("refused", alert_id)

    await subject.sandbox.behave("slack", status=200)
    await move(subject, DEAD)
    await subject.until(alert_id, "delivered", attempt=3, operator="rabbitmq")
    assert await dead_letters(subject, DEAD) == []
    check = await subject.check()
    assert (check["ok"], check["accepted"], check["delivered"]) == (True, 1, 1)
    assert len(await subject.sandbox.received("slack")) == 1


async def test_a_dead_letter_of_a_row_that_ended_otherwise_changes_nothing(subject: Alerts) -> None:
    await subject.sandbox.behave("slack", status=400)
    ids = [await subject.accept() for _ in range(3)]
    delivered, discarded, erased = ids
    for alert_id in ids:
        await subject.until(alert_id, "failed")

    async def all_of(queue: str) -> list[Any]:
        found = await dead_letters(subject, queue)
        return found if len(found) == len(ids) else []

    await eventually(lambda: all_of(DEAD))
    await subject.sandbox.behave("slack", status=200)
    await subject.http("POST", "/api/dlq/retry", {"ids": [delivered]})
    await subject.until(delivered, "delivered")
    await subject.http("POST", "/api/dlq/discard", {"ids": [discarded]})
    await subject.execute("UPDATE delivery SET payload = NULL WHERE alert_id = :id", id=erased)
    before = [await subject.row(alert_id) for alert_id in ids]

    await move(subject, DEAD, "alerts.monday")  # by mistake
    found = await eventually(lambda: all_of("alerts.monday.dead"))
    assert {reason for reason, _ in found} == {"of another target"}
    await move(subject, "alerts.monday.dead", "alerts.slack")
    other = await subject.accept()
    await subject.until(other, "delivered")  # behind the dead dead_letters in the queue
    assert [await subject.row(alert_id) for alert_id in ids] == before
    assert len(await subject.sandbox.received("slack")) == 2
    check = await subject.check()
    assert (check["ok"], check["accepted"], check["failed"]) == (True, 4, 1)
    assert (
        'broker_consumed_total{outcome="retry",queue="alerts.slack"} 0.0' in await subject.metrics()
    )


async def test_unread_messages_moved_back_are_delivered_or_return_to_dead(subject: Alerts) -> None:
    good = accepted("slack_alert")
    async with await aio_pika.connect(subject.vhost.admin_url()) as connection:
        channel = await connection.channel()
        for body in (good, good | {"id": "no uuid"}):
            message = aio_pika.Message(
                json.dumps(body).encode(), type="alert.accepted", message_id=body["id"]
            )
            await channel.default_exchange.publish(message, INTAKE_DEAD)
    for _ in range(LIMIT + 2):  # reading them often does not make them poison
        assert len(await dead_letters(subject, INTAKE_DEAD)) == 2
    check = await subject.check()
    assert (check["ok"], check["unread"], check["accepted"]) == (False, 2, 0)

    await move(subject, INTAKE_DEAD)
    await subject.until(good["id"], "delivered")
    ((reason, body),) = await eventually(lambda: dead_letters(subject, INTAKE_DEAD))
    assert (reason, body["id"]) == ("malformed: 1 faults", "no uuid")

    async def unread(count: int) -> bool:  # queue depths may be a second old
        return bool((await subject.check())["unread"] == count)

    await eventually(partial(unread, 1))
    check = await subject.check()
    assert (check["accepted"], check["delivered"]) == (1, 1)
    assert (
        'broker_consumed_total{outcome="retry",queue="alerts.intake"} 0.0'
        in await subject.metrics()
    )

    await asyncio.to_thread(
        subject.vhost.call, "DELETE", "queues", f"{INTAKE_DEAD}/contents"
    )  # which an operator judged to be nothing
    await eventually(partial(unread, 0))
    assert (await subject.check())["ok"]


async def publish(subject: Alerts, alert_id: str, age: timedelta = timedelta()) -> None:
    message = messages.work(UUID(alert_id), "slack", 0, None, datetime.now(UTC) - age)
    await subject.gateway.publish("alerts", "alerts.slack", message)


async def test_an_alert_whose_row_was_lost_is_kept_and_reported(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"retry_delays": [2.0]})
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    await subject.until(alert_id, "pending", attempt=1)
    # as after a failover to a lagging replica
    await subject.execute("DELETE FROM delivery")
    await subject.execute("DELETE FROM ledger_total")

    await eventually(subject.check, 20, so=lambda terms: terms["unread"] == 1 and not terms["ok"])
    ((reason, body),) = await dead_letters(subject, INTAKE_DEAD)
    assert (reason, body["alert_id"], body["target"]) == ("no row", alert_id, "slack")
    assert 'alerts_missing_row_total{target="slack"} 1.0' in await subject.metrics()


async def test_a_late_duplicate_of_a_purged_row_is_acknowledged(subject: Alerts) -> None:
    alert_id = await subject.accept()
    await subject.until(alert_id, "delivered")
    before = datetime.now(UTC)
    status, answer = await subject.http("POST", "/api/dlq/cleanup", {"older_than_hours": 0})
    assert (status, answer) == (200, {"deleted": 1})
    await publish(subject, alert_id, age=timedelta(hours=1))
    # A row written after the last purge cannot have been purged.
    await publish(subject, lost := str(uuid4()), age=datetime.now(UTC) - before)

    async def kept() -> list[str]:
        return [body["alert_id"] for _, body in await dead_letters(subject, INTAKE_DEAD)]

    assert await eventually(kept) == [lost]
    await subject.until_empty("slack", "slack.retry")
    assert await kept() == [lost]


POISON = "poison"


class Sink:
    """A target that responds as Slack does, but kills the process that sends it poison."""

    def __init__(self) -> None:
        self.victim: Alerts | None = None
        self.kills = 0
        self.texts: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = str((await request.json())["text"])
        if POISON in text and self.victim is not None:
            self.kills += 1
            self.victim.kill9()
        else:
            self.texts.append(text)
        return web.Response(text="ok")


@asynccontextmanager
async def listening(sink: Sink, port: int) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", sink.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield f"http://{HOST}:{port}/"
    finally:
        await runner.cleanup()


@pytest.mark.promise("P6")
async def test_poison_fails_with_an_escalation_and_delays_no_other(
    alerts: StartAlerts, ports: Ports
) -> None:
    sink = Sink()
    async with listening(sink, ports.take()) as url:
        subject = await alerts(
            SLACK_WEBHOOK_URL=url, slack={"retry_delays": [1.5] * 3}, ALERTS_RECONCILE_SECONDS="1"
        )
        sink.victim = subject
        before = [await subject.accept(payload={"text": f"before {n}"}) for n in range(5)]
        poison = await subject.accept(payload={"text": POISON})
        after = [await subject.accept(payload={"text": f"after {n}"}) for n in range(5)]

        async def failed() -> bool:
            if subject.process.poll() is not None:  # as a supervisor would
                with suppress(aiohttp.ClientError, AssertionError):
                    await subject.start()
            row = await subject.row(poison)
            return row is not None and row.state == "failed"

        await eventually(failed, 90)
        row = await subject.row(poison)
        assert (row.reason, row.attempt) == ("exhausted", 4)
        assert sink.kills == 4
        for alert_id in (*before, *after):
            await subject.until(alert_id, "delivered")
        assert await subject.scalar("SELECT array_agg(alert_id) FROM escalation") == [row.alert_id]
        ((reason, letter),) = await eventually(lambda: dead_letters(subject, DEAD))
        assert (letter["alert_id"], reason) == (poison, "exhausted")
        assert (await subject.check())["ok"]
