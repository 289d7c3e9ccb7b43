import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, inbox, outbox
from libs.common.broker import Broker, Message, message
from libs.common.consume import Ack, Delivery, Outcome, consume
from libs.common.topology import Exchange, work_queue
from tests.conftest import NewDatabase
from tests.support.databases import DatabaseUrl

ALERTS = Exchange("alerts", "direct")
DLX = Exchange("alerts.dlx", "direct")
QUEUE = "alerts.test"
TOPOLOGY = (ALERTS, DLX, *work_queue(QUEUE, exchange=ALERTS, dlx=DLX))


class Operations:
    """Runs the migrations' statements as the owner."""

    def __init__(self, url: str) -> None:
        self._url = url

    def execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self._url)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()


@pytest.fixture
async def url(database: NewDatabase) -> DatabaseUrl:
    made = cast("DatabaseUrl", await database("alerts", migrated=False))
    operations = Operations(made.owner_url)
    outbox.upgrade(operations)
    inbox.upgrade(operations)
    return made


@pytest.fixture
async def engine(url: DatabaseUrl) -> AsyncIterator[AsyncEngine]:
    async with db.connect(url, application_name="test") as opened:
        yield opened


@pytest.fixture
async def broker(amqp_url: Callable[[str], str]) -> AsyncIterator[Broker]:
    async with Broker.connect(amqp_url("alerts"), "alerts") as opened:
        async with asyncio.timeout(20):
            while not opened.connected:  # noqa: ASYNC110 - polls what sets no event
                await asyncio.sleep(0.02)
        await opened.declare(*TOPOLOGY)
        yield opened


async def write(engine: AsyncEngine, count: int, key: str = QUEUE) -> set[str]:
    messages = [message("test", {"number": number}) for number in range(count)]
    async with engine.begin() as tx:
        await outbox.add_all(tx, [("alerts", key, one) for one in messages])
    return {one.id for one in messages}


async def left(engine: AsyncEngine) -> int:
    async with engine.begin() as tx:
        return int(
            (await tx.execute(select(func.count()).select_from(text("outbox")))).scalar_one()
        )


class Taker:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.changed = asyncio.Event()

    async def take(self, message: Message, _: Delivery) -> Outcome:
        self.ids.append(message.id)
        self.changed.set()
        return Ack()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def test_what_rolls_back_is_never_published_and_what_commits_is(
    engine: AsyncEngine, broker: Broker, url: DatabaseUrl
) -> None:
    async with engine.connect() as tx:
        await outbox.add(tx, "alerts", QUEUE, message("test", {}))
        await tx.rollback()
    sent = await write(engine, 250)
    taker = Taker()
    relay = asyncio.create_task(outbox.Relay(engine, broker, url).run())
    async with consume(broker, QUEUE, taker.take, prefetch=50):
        await taker.until(lambda: len(taker.ids) >= 250)
    relay.cancel()
    assert set(taker.ids) == sent
    assert await left(engine) == 0


async def test_a_notification_wakes_the_relay_long_before_its_poll(
    engine: AsyncEngine, broker: Broker, url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.outbox.POLL_SECONDS", 3600.0)
    taker = Taker()
    relay = asyncio.create_task(outbox.Relay(engine, broker, url).run())
    async with consume(broker, QUEUE, taker.take, prefetch=50):
        for number in range(1, 4):
            await write(engine, 1)
            await taker.until(lambda number=number: len(taker.ids) == number)
    relay.cancel()


async def test_a_row_that_nobody_can_route_blocks_no_other(
    engine: AsyncEngine, broker: Broker, url: DatabaseUrl
) -> None:
    await write(engine, outbox.BATCH, key="alerts.nowhere")
    sent = await write(engine, 5)
    relay = outbox.Relay(engine, broker, url)
    assert await relay.relay() == (0, outbox.BATCH)
    assert await relay.relay() == (5, outbox.BATCH - 5)
    taker = Taker()
    async with consume(broker, QUEUE, taker.take, prefetch=50):
        await taker.until(lambda: set(taker.ids) == sent)


async def test_two_relays_share_the_rows_and_publish_none_twice(
    engine: AsyncEngine, broker: Broker, url: DatabaseUrl
) -> None:
    sent = await write(engine, 600)
    relays = [outbox.Relay(engine, broker, url) for _ in range(2)]

    async def drain(relay: outbox.Relay) -> None:
        while await left(engine):
            await relay.relay()

    await asyncio.gather(*(drain(relay) for relay in relays))
    taker = Taker()
    async with consume(broker, QUEUE, taker.take, prefetch=100):
        await taker.until(lambda: len(taker.ids) >= 600)
    assert len(taker.ids) == 600
    assert set(taker.ids) == sent


async def test_without_a_broker_the_rows_wait(engine: AsyncEngine, url: DatabaseUrl) -> None:
    await write(engine, 3)
    async with Broker.connect("amqp://a:b@127.0.0.1:1/", "alerts") as away:
        assert await outbox.Relay(engine, away, url).relay() == (0, 1)
    assert await left(engine) == 3


KILLED_AFTER_THE_CONFIRM = """
import asyncio, os, signal, sys
from libs.common import db, outbox
from libs.common.broker import Broker

class Dying(outbox.Relay):
    async def _publish(self, row):
        await super()._publish(row)
        os.kill(os.getpid(), signal.SIGKILL)

async def main(database_url, amqp_url):
    async with (
        db.connect(database_url, application_name="dying") as engine,
        Broker.connect(amqp_url, "alerts") as broker,
    ):
        while not broker.connected:
            await asyncio.sleep(0.01)
        await Dying(engine, broker, database_url).relay()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_relay_killed_between_confirm_and_commit_loses_nothing(
    engine: AsyncEngine, broker: Broker, url: DatabaseUrl, amqp_url: Callable[[str], str]
) -> None:
    sent = await write(engine, 1)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED_AFTER_THE_CONFIRM, url, amqp_url("alerts")],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert killed.returncode == -signal.SIGKILL
    relay = outbox.Relay(engine, broker, url)
    async with asyncio.timeout(30):
        while await left(engine):
            await relay.relay()  # skips the row until the server noticed the death
    taker = Taker()
    async with consume(broker, QUEUE, taker.take, prefetch=10):
        await taker.until(lambda: len(taker.ids) == 2)  # at least once: here, twice
    assert set(taker.ids) == sent


async def test_of_many_twins_at_once_exactly_one_is_the_first(engine: AsyncEngine) -> None:
    async def once() -> bool:
        async with engine.begin() as tx:
            return await inbox.first_time(tx, "consumer", "message-1")

    assert sum(await asyncio.gather(*(once() for _ in range(10)))) == 1


async def test_a_first_time_that_rolls_back_was_none(engine: AsyncEngine) -> None:
    async with engine.connect() as tx:
        assert await inbox.first_time(tx, "consumer", "message-1")
        await tx.rollback()
    async with engine.begin() as tx:
        assert await inbox.first_time(tx, "consumer", "message-1")
        assert await inbox.first_time(tx, "other", "message-1")
