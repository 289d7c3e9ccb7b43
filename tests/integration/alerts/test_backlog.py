"""The backlog of an unhealthy target is released at a limited rate, each alert once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.process import tasks
from services.alerts.rules.delivery import Kind
from services.alerts.targets.breaker import Breaker
from services.alerts.targets.status import release_backlog
from services.alerts.targets.throttle import Throttle
from tests.integration.alerts.conftest import write
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P7")

WAITING = 10_000

_BROUGHT = text("""
    SELECT count(*) AS messages, count(DISTINCT body ->> 'alert_id') AS alerts,
        count(*) FILTER (WHERE routing_key <> 'alerts.slack') AS of_others
    FROM outbox
""")


@pytest.fixture(autouse=True)
async def waiting(engine: AsyncEngine) -> None:
    due = "now() + make_interval(mins => 10, secs => n)"
    tried = {"attempt": "1", "attempts": "1", "error": "'timeout'", "due_at": due}
    for target in ("slack", "monday"):
        await write(engine, WAITING, target=f"'{target}'", **tried)


@asynccontextmanager
async def draining(engine: AsyncEngine, per_second: int) -> AsyncIterator[Breaker]:
    breaker = Breaker("slack", fail_max=1, reset_timeout=60)
    throttle = Throttle(breaker)
    throttle.follow(0, 1)
    task = asyncio.create_task(release_backlog(engine, "slack", throttle, per_second))
    yield breaker
    await tasks.end(task)


def settle(breaker: Breaker, kind: Kind) -> None:
    admission = breaker.admit()
    assert admission is not None
    admission.kind = kind
    breaker.record(admission)


def heal(breaker: Breaker) -> None:
    settle(breaker, Kind.FAILED)
    breaker.reset()


async def brought(engine: AsyncEngine) -> int:
    async with engine.connect() as tx:
        messages, alerts, of_others = (await tx.execute(_BROUGHT)).one()
    assert messages == alerts  # no duplicates
    assert of_others == 0
    return int(messages)


async def drained(engine: AsyncEngine) -> bool:
    return await brought(engine) == WAITING


async def test_a_backlog_of_ten_thousand_is_released_at_the_rate_and_once(
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
                heal(breaker)  # a flapping breaker releases nothing a second time
            before = now
            await asyncio.sleep(0.1)
        assert loop.time() - start >= WAITING / rate - 1
    async with engine.connect() as tx:
        generations = await tx.execute(
            text("SELECT DISTINCT generation FROM delivery WHERE target = 'slack'")
        )
        assert [row.generation for row in generations] == [1]


async def test_critical_alerts_are_released_first(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        last = "SELECT alert_id FROM delivery WHERE target = 'slack' ORDER BY due_at DESC LIMIT 1"
        await tx.execute(
            text(
                "UPDATE delivery SET severity = 'critical'"
                f" WHERE target = 'slack' AND alert_id = ({last})"
            )
        )
    async with draining(engine, 10) as breaker:
        heal(breaker)
        await eventually(lambda: brought(engine))
    async with engine.connect() as tx:
        first = await tx.execute(text("SELECT headers FROM outbox ORDER BY id LIMIT 10"))
        assert sum("x-priority" in row.headers for row in first) == 1


async def test_a_database_stall_does_not_end_the_release(engine: AsyncEngine) -> None:
    async with draining(engine, WAITING // 2) as breaker:
        async with engine.begin() as tx:
            await tx.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
            heal(breaker)
            # Longer than the statement time-out, shorter than the idle-transaction time-out.
            await asyncio.sleep(postgres.STATEMENT_SECONDS + 1)
        await eventually(partial(drained, engine), 60)


async def test_a_breaker_that_opens_again_ends_the_release(engine: AsyncEngine) -> None:
    async with draining(engine, 100) as breaker:
        heal(breaker)
        await eventually(lambda: brought(engine))
        settle(breaker, Kind.FAILED)
        stopped_at = await brought(engine)
        await asyncio.sleep(2.5)  # time for two more rounds, which must not come
        assert await brought(engine) - stopped_at <= 100
