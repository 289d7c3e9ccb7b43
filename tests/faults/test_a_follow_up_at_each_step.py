"""kill -9 of followups and of alerts at each step of a follow-up's hand-over.

Each test holds one of them at a step, kills it there, looks at what is left and starts it again.
At the end the sandbox has the mail once, the step is `sent` and every permit is returned; where
the dot may have been out, the step is `in_doubt` and the mail is there at most once.

Duplicated and reordered messages, and many processes, are in test_many_follow_ups.py; a worker that
dies with the dot out is in tests/integration/alerts/test_at_most_once.py.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.faults.conftest import ACK, Rig, through
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import UP, Proxy
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P3")]


class HandOver(Rig):
    """Both services behind proxies of their own; `slack` is the one before the mail server."""

    service = "followups"
    alerts_broker: Proxy

    async def start(self, **alerts: Any) -> None:
        """:param alerts: its settings"""
        stack = self.stack
        self.proxies.append(self.alerts_broker)
        for name, broker in (("followups", self.broker), ("alerts", self.alerts_broker)):
            await stack.stop(name)
            amqp_url = through(broker, stack.rabbitmq.port, stack.vhost.url(name))
            stack.changes[name] = {"AMQP_URL": amqp_url}
        stack.changes["alerts"] |= {"SMTP_PORT": str(self.slack.port), **alerts}
        database = through(self.database, stack.postgres.port, str(stack.database.of("followups")))
        stack.changes["followups"] |= {"DATABASE_URL": database}
        for name, queue in (("alerts", "alerts.intake"), ("followups", "followups.consent-events")):
            await stack.start(name)
            await self.flowing(queue)

    async def agreed(self) -> str:
        """Return a new address that agreed, when followups was told so and has acked that."""
        address = fresh_address()
        acks = self.broker.stall_before(UP, ACK)
        await self.stack.opt_in(address)
        await acks.wait()
        await self.broker.resume()
        return address

    async def enrol(self, address: str = "") -> str:
        """Schedule somebody who agreed; the address."""
        address = address or await self.agreed()
        await self.stack.follow_up(address)
        return address

    async def step(self, address: str, *wanted: str) -> Any:
        """Wait until the first step of this address is so."""
        first = "SELECT * FROM followups.followup_event WHERE email = %s AND step = 1"

        async def so() -> Any:
            (row,) = self.query(first, address)
            return row if row.status in wanted else None

        return await eventually(so, 40)

    async def delivery(self, address: str, state: str) -> None:
        of_address = "SELECT 1 FROM alerts.delivery WHERE once_address = %s AND state = %s"
        await until(lambda: self.query(of_address, address, state), 30)

    async def sent_once(self, address: str) -> None:
        step = await self.step(address, "sent")
        await self.quiet()
        assert self.open_permits(step) == []
        assert len(await self.stack.sandbox.mails(address)) == 1

    def open_permits(self, step: Any) -> list[Any]:
        return self.query(
            "SELECT 1 FROM consent.permit WHERE message = %s AND returned_at IS NULL", step.id
        )

    async def quiet(self) -> None:
        """Wait until nothing is on its way any more that could make a second mail."""

        async def quiet() -> bool:
            outboxes = [
                self.query(f"SELECT 1 FROM {schema}.outbox")
                for schema in ("followups", "alerts", "consent")
            ]
            queues = ("alerts.intake", "alerts.email", "alerts.email.retry", "followups.outcomes")
            depths = [await self.depth(queue) for queue in queues]
            return not any(outboxes) and not any(depths)

        await eventually(quiet, 40)


H = TypeVar("H", bound=HandOver)


@asynccontextmanager
async def started(kind: type[H], stack: Stack, folder: Path) -> AsyncIterator[H]:
    await stack.sandbox.reset()
    async with AsyncExitStack() as open_:
        broker, alerts_broker, database, mail = [
            await open_.enter_async_context(Proxy(port))
            for port in (
                stack.rabbitmq.port, stack.rabbitmq.port, stack.postgres.port,
                stack.sandbox.smtp_port,
            )
        ]  # fmt: skip
        made = kind(stack, folder, broker, database, mail)
        made.alerts_broker = alerts_broker
        await made.start()
        yield made
        for name in ("followups", "alerts"):  # left so: the next one is started by the next rig
            await stack.kill9(name)


@pytest.fixture
async def rig(stack: Stack, tmp_path: Path) -> AsyncIterator[HandOver]:
    async with started(HandOver, stack, tmp_path) as made:
        yield made


async def test_a_claim_that_has_not_committed_is_made_again(rig: HandOver) -> None:
    async with rig.dies_at("outbox", "INSERT INTO outbox"):
        address = await rig.enrol()
    await rig.step(address, "scheduled")
    await rig.restart()
    await rig.sent_once(address)


async def test_a_claimed_step_that_was_not_published_leaves(rig: HandOver) -> None:
    address = await rig.agreed()
    rig.broker.stall(UP)
    await rig.enrol(address)
    await rig.step(address, "handed_over")
    await rig.kill()
    assert await rig.stack.sandbox.mails(address) == []
    await rig.restart()
    await rig.sent_once(address)


async def test_a_step_published_twice_leaves_once(rig: HandOver) -> None:
    address = await rig.agreed()
    rig.broker.stall(UP)
    await rig.enrol(address)
    await rig.step(address, "handed_over")
    async with rig.dies_at("outbox", "DELETE FROM outbox"):
        await rig.broker.resume()
        await rig.delivery(address, "delivered")
    assert rig.query("SELECT 1 FROM followups.outbox")
    await rig.restart()
    await rig.sent_once(address)


async def test_an_unrecorded_outcome_is_published_again(rig: HandOver) -> None:
    address = await rig.agreed()
    async with rig.dies_at("inbox", "INSERT INTO inbox"):
        await rig.enrol(address)
    await rig.step(address, "handed_over")
    await rig.restart()
    await rig.sent_once(address)


async def test_an_outcome_that_was_not_acked_is_recorded_once(rig: HandOver) -> None:
    address = await rig.agreed()
    held = rig.broker.stall_before(UP, ACK)
    await rig.enrol(address)
    await held.wait()
    before = await rig.step(address, "sent")
    await rig.kill()
    await rig.until_depth("followups.outcomes", 1)
    await rig.restart()
    await rig.until_depth("followups.outcomes", 0)
    assert await rig.step(address, "sent") == before
    await rig.sent_once(address)


async def test_alerts_killed_before_it_has_published_its_work_sends_once(rig: HandOver) -> None:
    held = rig.alerts_broker.stall_before(UP, b"alert.work")
    address = await rig.enrol()
    await held.wait()
    await rig.kill("alerts")
    assert await rig.stack.sandbox.mails(address) == []
    await rig.restart("alerts")
    await rig.sent_once(address)


async def test_alerts_killed_before_it_publishes_an_outcome_publishes_it_later(
    rig: HandOver,
) -> None:
    address = await rig.agreed()
    # By its address: at its start alerts tells a person of the doubt that an earlier test left.
    held = rig.slack.stall_before(UP, address.encode())
    await rig.enrol(address)
    await held.wait()
    rig.alerts_broker.stall(UP)
    await rig.slack.resume()
    await rig.delivery(address, "delivered")
    await rig.kill("alerts")
    await rig.step(address, "handed_over")
    await rig.restart("alerts")
    await rig.sent_once(address)
