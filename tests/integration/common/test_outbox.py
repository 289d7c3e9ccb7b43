import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.messaging import inbox, outbox
from libs.common.messaging.broker import HIGH, Broker, Unconfirmed, message
from libs.common.messaging.consumer import Consumer
from libs.common.messaging.topology import work_queue
from libs.common.process import tasks
from libs.domain import acts as actions
from libs.domain import acts_outbox
from tests.conftest import NewDatabase
from tests.integration.common.conftest import ALERTS, DLX, QUEUE, recorded
from tests.support.consumers import Recorder, depth, until
from tests.support.databases import DatabaseUrl
from tests.support.eventually import becomes


class Operations:
    """Runs the migrations' statements as the owner."""

    def __init__(self, url: DatabaseUrl) -> None:
        self.url = url

    def execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self.url.owner_url)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()


@pytest.fixture
async def owner(database: NewDatabase) -> Operations:
    made = await database("alerts", migrated=False)
    operations = Operations(made)
    for table in ("outbox", "inbox"):
        operations.execute(Path(outbox.__file__).with_name(f"{table}_table.sql").read_text())
    return operations


@pytest.fixture
def url(owner: Operations) -> str:
    return owner.url


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    async with postgres.connect(url, application_name="test") as opened:
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


async def eventually_left(engine: AsyncEngine, count: int) -> None:
    await becomes(lambda: left(engine), count, seconds=30)


async def eventually_empty(engine: AsyncEngine) -> None:
    await eventually_left(engine, 0)


def relayed(outcome: str) -> float:
    return float(outbox.RELAYED.labels(outcome)._value.get())


@asynccontextmanager
async def relaying(engine: AsyncEngine, broker: Broker, url: str) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.Relay(engine, broker, url).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_message_arrives_as_it_was_added(
    engine: AsyncEngine, url: str, broker: Broker
) -> None:
    body, own = {"zażółć": [1, None]}, {"x-own": "1"}
    sent = message("test", body, request_id="request-1", headers=own, priority=HIGH)
    async with engine.begin() as tx:
        await outbox.add(tx, "alerts", QUEUE, sent)
    recorder = Recorder()
    assert await outbox.Relay(engine, broker, url).relay() is False
    async with Consumer(broker, QUEUE, recorder, prefetch=1):
        await recorder.until_count(1)
    (got,) = recorder.messages
    assert replace(got, headers=own) == sent
    assert got.headers == own | {"x-request-id": "request-1"}


async def test_a_statement_that_waits_for_a_lock_does_not_stop_the_relay(
    engine: AsyncEngine, broker: Broker, owner: Operations
) -> None:
    sent = await write(engine, 1)
    got = Recorder()
    owner_url = owner.url.owner_url.replace("postgresql:", "postgresql+aiopg:")
    async with (
        postgres.connect(owner.url, application_name="relay", statement_timeout=0.2) as impatient,
        postgres.connect(owner_url, application_name="owner") as other,
        Consumer(broker, QUEUE, got, prefetch=50),
    ):
        relay = asyncio.create_task(outbox.Relay(impatient, broker, owner.url).run())
        async with other.begin() as tx:
            await tx.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
            done, _ = await asyncio.wait({relay}, timeout=1)
        assert not done
        await got.until_count(len(sent))
        await tasks.end(relay)


async def test_only_committed_messages_are_published(
    engine: AsyncEngine, broker: Broker, url: str
) -> None:
    async with engine.connect() as tx:
        await outbox.add(tx, "alerts", QUEUE, message("test", {}))
        await tx.rollback()
    sent = await write(engine, 250)
    async with recorded(broker, prefetch=50) as got, relaying(engine, broker, url):
        await got.until_count(250)
        await eventually_empty(engine)
    assert set(got.ids) == sent


async def test_a_notification_wakes_the_relay_without_its_poll(
    engine: AsyncEngine, broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.outbox.POLL_SECONDS", 3600.0)
    async with recorded(broker, prefetch=50) as got, relaying(engine, broker, url):
        for number in range(1, 4):
            await write(engine, 1)
            await got.until_count(number)


async def test_the_poll_finds_rows_without_a_notification(
    engine: AsyncEngine,
    broker: Broker,
    url: str,
    owner: Operations,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner.execute("ALTER TABLE outbox DISABLE TRIGGER outbox_notify")
    monkeypatch.setattr("libs.common.messaging.outbox.POLL_SECONDS", 0.05)
    async with recorded(broker, prefetch=50) as got, relaying(engine, broker, url):
        await write(engine, 1)
        await got.until_count(1)
        await write(engine, 1)
        await got.until_count(2)


async def test_unroutable_rows_do_not_delay_others(
    engine: AsyncEngine, broker: Broker, url: str
) -> None:
    nowhere = await write(engine, outbox.BATCH + 1, key="alerts.nowhere")
    sent = await write(engine, 5)
    async with recorded(broker, prefetch=50) as got, relaying(engine, broker, url):
        await got.until_count(5)
        await eventually_left(engine, len(nowhere))
    assert set(got.ids) == sent


@pytest.fixture
def held(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name a queue that confirms nothing, as one without a leader."""
    publish = broker.publish

    async def publish_or_hold(exchange: str, key: str, *args: Any, timeout: float = 5) -> None:  # noqa: ASYNC109
        if key == "held":
            await asyncio.sleep(timeout)
            raise Unconfirmed
        await publish(exchange, key, *args, timeout=timeout)

    monkeypatch.setattr(broker, "publish", publish_or_hold)
    return "held"


async def test_a_queue_without_confirms_does_not_delay_others(
    engine: AsyncEngine, broker: Broker, url: str, held: str
) -> None:
    got = Recorder()
    await write(engine, 5_000, held)
    async with Consumer(broker, QUEUE, got, prefetch=50), relaying(engine, broker, url):
        await asyncio.sleep(7)  # all that was tried first has stepped aside, and is due again
        sent = await write(engine, 1)
        async with asyncio.timeout(2):
            await got.until_count(1)
    assert set(got.ids) == sent


async def test_confirmed_rows_leave_the_outbox_before_the_slowest_of_their_batch(
    engine: AsyncEngine, broker: Broker, url: str, held: str
) -> None:
    await write(engine, 1, held)
    await write(engine, 10)
    async with relaying(engine, broker, url), asyncio.timeout(outbox.CONFIRM_SECONDS - 2):
        await eventually_left(engine, 1)


async def test_a_row_that_cannot_be_encoded_does_not_stop_others(
    engine: AsyncEngine, broker: Broker, url: str
) -> None:
    await write(engine, 1, key="k" * 300)
    sent = await write(engine, 5)
    async with recorded(broker, prefetch=50) as got, relaying(engine, broker, url):
        await got.until_count(5)
        await eventually_left(engine, 1)
    assert set(got.ids) == sent


async def test_an_unroutable_message_is_retried_and_arrives(
    engine: AsyncEngine, broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.outbox.UNROUTABLE_SECONDS", 0.1)
    monkeypatch.setattr("libs.common.messaging.outbox.POLL_SECONDS", 0.05)
    sent = await write(engine, 3, key="alerts.later")
    got = Recorder()
    async with relaying(engine, broker, url):
        await until(lambda: relayed("Unroutable") >= 3)
        await broker.declare(*work_queue("alerts.later", exchange=ALERTS, dlx=DLX))
        async with Consumer(broker, "alerts.later", got, prefetch=10):
            await got.until_count(3)
    assert set(got.ids) == sent


async def test_two_relays_share_the_rows_and_publish_none_twice(
    engine: AsyncEngine, broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CONFIRM_SECONDS", 60.0)  # without a confirm it would be rightly
    sent = await write(engine, 600)
    got = Recorder()
    async with relaying(engine, broker, url), relaying(engine, broker, url):
        await eventually_empty(engine)
    assert await depth(broker, QUEUE) == 600
    async with Consumer(broker, QUEUE, got, prefetch=100):
        await got.until_count(600)
    assert set(got.ids) == sent


async def test_without_a_broker_the_rows_wait_untouched(engine: AsyncEngine, url: str) -> None:
    await write(engine, 3)
    async with Broker.connect("amqp://a:b@127.0.0.1:1/", "alerts") as away:
        assert not await outbox.Relay(engine, away, url).relay()
    assert await left(engine) == 3
    async with engine.begin() as tx:
        due = await tx.execute(text("SELECT count(*) FROM outbox WHERE due_at > now()"))
        assert due.scalar_one() == 0


async def test_the_lag_is_the_age_of_the_oldest_row(
    engine: AsyncEngine, broker: Broker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.messaging.outbox.POLL_SECONDS", 0.05)
    await write(engine, 1, key="alerts.nowhere")
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE outbox SET created_at = now() - interval '1 hour'"))
    async with relaying(engine, broker, url):
        await until(lambda: outbox.LAG._value.get() >= 3600)
        async with engine.begin() as tx:
            await tx.execute(text("DELETE FROM outbox"))
        await until(lambda: outbox.LAG._value.get() == 0)


async def test_exactly_one_of_many_concurrent_duplicates_is_first(engine: AsyncEngine) -> None:
    async def once() -> bool:
        async with engine.begin() as tx:
            return await inbox.first_time(tx, "consumer", "message-1")

    assert sum(await asyncio.gather(*(once() for _ in range(10)))) == 1


async def test_a_rolled_back_message_counts_as_new(engine: AsyncEngine) -> None:
    async with engine.connect() as tx:
        assert await inbox.first_time(tx, "consumer", "message-1")
        await tx.rollback()
    async with engine.begin() as tx:
        assert await inbox.first_time(tx, "consumer", "message-1")
        assert await inbox.first_time(tx, "other", "message-1")


async def test_purge_deletes_old_messages_and_keeps_new_ones(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO inbox (consumer, message_id, received_at) "
                "SELECT 'consumer', number::text, now() - number * interval '1 hour' "
                "FROM generate_series(1, 48) AS number"
            )
        )
    assert await inbox.purge(engine, keep=timedelta(hours=24, minutes=30)) == 24
    async with engine.begin() as tx:
        assert not await inbox.first_time(tx, "consumer", "24")
        assert await inbox.first_time(tx, "consumer", "25")


async def test_an_act_in_many_transactions_is_one_record_with_what_was_done(
    engine: AsyncEngine,
) -> None:
    """Of each kill: the record says what was committed until then."""
    act = acts_outbox.Counted(actions.Act.of({}, "alert.retry", "alert", "target=slack"))
    counts = text("SELECT CAST(body->>'count' AS int), due_at > now() + interval '5 s' FROM outbox")

    async def waiting() -> list[tuple[int, bool]]:
        async with engine.connect() as tx:
            return [tuple(row) for row in await tx.execute(counts)]

    async with engine.connect() as tx:
        await act.add(tx, 9)
        await tx.rollback()
    for done in (0, 3, 4):
        async with engine.begin() as tx:
            await act.add(tx, done)
    assert await waiting() == [(7, True)]
    async with engine.begin() as tx:  # the relay waits for the confirm of what it has sent
        await tx.execute(text("UPDATE outbox SET due_at = now() + interval '6 s'"))
        await act.add(tx, 5)
    assert sorted(await waiting()) == [(5, True), (7, True)]
    async with engine.begin() as tx:
        await tx.execute(text("DELETE FROM outbox"))  # the relay has published it
        await act.add(tx, 2)
        await act.end(tx)
    assert await waiting() == [(2, False)]
