"""The ledger's statements: what each refuses is what protocols.md says must not happen."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db, migrate
from services.alerts import store
from services.alerts.alert import Claimed, Kind, Outcome, Policy, Reason, State, decide
from services.alerts.store import Filter, NewRow
from tests.conftest import NewDatabase


async def test_the_tables_of_the_code_are_those_of_the_migrations(database: NewDatabase) -> None:
    url = await database("alerts")
    assert migrate.differences(url.owner_url, store.metadata) == []


DELIVERED = Outcome(Kind.DELIVERED, Reason.OK, 200, "ok")
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
POLICY = Policy(retry_delays=(0.001, 0.001), wait_tiers=(), max_age=3600)
DEAD_AT_ONCE = 0.0  # a lease that is over as soon as it begins


@pytest.fixture
async def engine(database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    async with db.connect(await database("alerts"), application_name="test") as opened:
        yield opened


async def new_row(engine: AsyncEngine, *, once: bool = False) -> UUID:
    row = NewRow(
        alert_id=uuid4(),
        target="email",
        event_type="email",
        severity="info",
        source="test",
        payload={"text": "text"},
        dedup_key=None,
        request_id=None,
        accepted_at=datetime.now(UTC),
        once_address="ala@example.com" if once else None,
        once_purpose="marketing" if once else None,
        once_reference="reference" if once else None,
    )
    async with engine.begin() as tx:
        assert await store.accept(tx, [row]) == 1
        assert await store.accept(tx, [row]) == 0
    return row.alert_id


async def claim(
    engine: AsyncEngine, alert_id: UUID, lease: float, retries: int = 5
) -> Claimed | None:
    async with engine.begin() as tx:
        return await store.claim(tx, alert_id, "email", 0, lease=lease, retries=retries)


async def settle(engine: AsyncEngine, job: Claimed, outcome: Outcome) -> bool:
    decision = decide(
        outcome, spent=job.spent, age=job.age, policy=POLICY, once=job.once is not None
    )
    async with engine.begin() as tx:
        return await store.settle(tx, job, outcome, decision, 0.1)


async def state(engine: AsyncEngine, alert_id: UUID) -> State:
    async with engine.connect() as tx:
        seen = await store.see(tx, alert_id, "email")
    assert seen is not None
    return seen.state


async def test_a_row_under_a_lease_is_nobody_elses(engine: AsyncEngine) -> None:
    alert_id = await new_row(engine)
    claims = await asyncio.gather(*(claim(engine, alert_id, 60) for _ in range(8)))
    assert len([job for job in claims if job is not None]) == 1


async def test_a_late_worker_changes_nothing_that_a_newer_one_has_done(
    engine: AsyncEngine,
) -> None:
    alert_id = await new_row(engine)
    late = await claim(engine, alert_id, DEAD_AT_ONCE)
    newer = await claim(engine, alert_id, 60)
    assert late is not None
    assert newer is not None
    assert (late.attempt, newer.attempt) == (1, 2)
    assert not await settle(engine, late, DELIVERED)
    assert await state(engine, alert_id) is State.SENDING
    assert await settle(engine, newer, FAILED)
    assert not await settle(engine, late, DELIVERED)
    assert await state(engine, alert_id) is State.PENDING
    async with engine.connect() as tx:
        _, attempts = await store.find(tx, alert_id)
    assert [one.number for one in attempts] == [1, 2]  # history, whether it counted or not


async def test_a_retry_by_hand_gives_all_attempts_back_but_never_an_old_number(
    engine: AsyncEngine,
) -> None:
    alert_id = await new_row(engine)
    late = await claim(engine, alert_id, DEAD_AT_ONCE)
    assert late is not None
    async with engine.begin() as tx:
        assert await store.exhaust(tx, alert_id, "email", 0, retries=0) is not None
    async with engine.begin() as tx:
        rows = await store.page(tx, "failed", Filter(ids=[alert_id]), None, 10, lock=True)
        await store.hand_out(tx, rows, **store.AFRESH)
    assert await claim(engine, alert_id, 60) is None  # of the turn before: a twin
    async with engine.begin() as tx:
        again = await store.claim(tx, alert_id, "email", 1, lease=60, retries=0)
    assert again is not None
    assert (again.turn, again.attempt, again.spent) == (1, 2, 1)
    assert not await settle(engine, late, DELIVERED)


async def test_a_late_answer_of_the_server_ends_the_doubt_about_its_own_mail_only(
    engine: AsyncEngine,
) -> None:
    alert_id = await new_row(engine, once=True)
    async with engine.begin() as tx:
        job, taken_over = await store.claim_once(tx, alert_id, "email", 0, lease=60, retries=5)
        assert job is not None
        assert not taken_over
        assert await store.move(tx, job, State.CLAIMED, State.SENDING, seconds=DEAD_AT_ONCE)
    async with engine.begin() as tx:
        assert await store.doubt(tx, alert_id, "email") is not None
    assert not await settle(engine, job, FAILED)
    assert not await settle(engine, replace(job, attempt=2), DELIVERED)
    assert await state(engine, alert_id) is State.IN_DOUBT
    assert await settle(engine, job, DELIVERED)
    assert await state(engine, alert_id) is State.DELIVERED


async def test_a_mail_that_leaves_only_once_is_never_claimed_as_an_alert(
    engine: AsyncEngine,
) -> None:
    alert_id = await new_row(engine, once=True)
    assert await claim(engine, alert_id, 60) is None


@pytest.mark.parametrize(
    "change",
    [
        "state = 'sending'",  # without a lease
        "state = 'delivered', finished_at = now(), reason = 'ok'",  # without an attempt
        "state = 'failed', finished_at = now()",  # without a reason
        "state = 'in_doubt', attempt = 1, finished_at = now(), reason = 'x'",  # not a mail of once
        "spent = 1",  # more than attempts
        "payload = NULL",  # still to be sent
        "once_address = 'ala@example.com'",  # without purpose and reference
    ],
)
async def test_the_table_refuses_a_state_that_cannot_be(engine: AsyncEngine, change: str) -> None:
    await new_row(engine)
    with pytest.raises(IntegrityError):
        async with engine.begin() as tx:
            await tx.execute(text(f"UPDATE delivery SET {change}"))
