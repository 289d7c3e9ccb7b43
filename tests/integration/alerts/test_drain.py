"""What waited for a sick target comes back at a limited rate, each alert once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, tasks
from services.alerts.alert import Kind
from services.alerts.breaker import Breaker
from services.alerts.drain import drain
from services.alerts.valve import Valve
from tests.conftest import NewDatabase
from tests.support.eventually import eventually

WAITING = 10_000

_FILL = text("""
    INSERT INTO delivery (alert_id, target, event_type, severity, source, payload, accepted_at,
        state, attempt, spent, error, due_at)
    SELECT gen_random_uuid(), target, 'slack_alert', 'info', 'test', '{"text": "text"}', now(),
        'pending', 1, 1, 'timeout', now() + make_interval(mins => 10, secs => n)
    FROM generate_series(1, :rows) AS n, unnest(ARRAY['slack', 'monday']) AS target
""")
_BROUGHT = text("""
    SELECT count(*) AS messages, count(DISTINCT body ->> 'alert_id') AS alerts,
        count(*) FILTER (WHERE routing_key <> 'alerts.slack') AS of_others
    FROM outbox
""")


@pytest.fixture
async def engine(database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    async with db.connect(await database("alerts"), application_name="test") as opened:
        async with opened.begin() as tx:
            await tx.execute(_FILL, {"rows": WAITING})
        yield opened


@asynccontextmanager
async def draining(engine: AsyncEngine, per_second: int) -> AsyncIterator[Breaker]:
    breaker = Breaker("slack", fail_max=1, reset_timeout=60)
    task = asyncio.create_task(drain(engine, "slack", Valve(breaker), per_second=per_second))
    yield breaker
    await tasks.end(task)


def settle(breaker: Breaker, kind: Kind) -> None:
    admission = breaker.admit()
    assert admission is not None
    admission.kind = kind
    breaker.settle(admission)


def heal(breaker: Breaker) -> None:
    settle(breaker, Kind.FAILED)
    breaker.reset()


async def brought(engine: AsyncEngine) -> int:
    async with engine.connect() as tx:
        messages, alerts, of_others = (await tx.execute(_BROUGHT)).one()
    assert messages == alerts  # no twins
    assert of_others == 0
    return int(messages)


async def drained(engine: AsyncEngine) -> bool:
    return await brought(engine) == WAITING


async def test_ten_thousand_that_waited_come_at_the_rate_and_each_once(
    engine: AsyncEngine,
) -> None:
    rate = 2_500
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(180), draining(engine, rate) as breaker:
        heal(breaker)
        start = loop.time()
        before = -1
        while (now := await brought(engine)) < WAITING:
            assert now <= rate * (loop.time() - start + 2)
            if now != before:
                heal(breaker)  # a breaker that flaps brings nothing forward a second time
            before = now
            await asyncio.sleep(0.1)
        assert loop.time() - start >= WAITING / rate - 1
    async with engine.connect() as tx:
        turns = await tx.execute(text("SELECT DISTINCT turn FROM delivery WHERE target = 'slack'"))
        assert [row.turn for row in turns] == [1]


async def test_a_database_that_stalls_for_a_moment_does_not_end_the_drain(
    engine: AsyncEngine,
) -> None:
    async with draining(engine, WAITING // 2) as breaker:
        async with engine.begin() as tx:
            await tx.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
            heal(breaker)
            # Longer than a statement may take, shorter than a transaction may rest.
            await asyncio.sleep(db.STATEMENT_SECONDS + 1)
        await eventually(partial(drained, engine), 60)


async def test_a_breaker_that_opens_again_ends_the_drain(engine: AsyncEngine) -> None:
    async with draining(engine, 100) as breaker:
        heal(breaker)
        await eventually(lambda: brought(engine))
        settle(breaker, Kind.FAILED)
        stopped_at = await brought(engine)
        await asyncio.sleep(2.5)  # two more rounds, if there were any: nothing tells of their lack
        assert await brought(engine) - stopped_at <= 100
