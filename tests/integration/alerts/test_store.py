"""The ledger's statements refuse what protocols.md says must not happen."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import beside
from libs.common.database.statement import Statement
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Policy, Reason, State, decide
from services.alerts.store import tables
from services.alerts.store.ledger import intake, queries, transitions, upkeep
from services.alerts.store.ledger.transitions import Attempt
from tests.integration.alerts.conftest import a_row, execute, waits_for_a_row
from tests.support.eventually import eventually

TABLE = beside.toml(__file__)
DELIVERED = Outcome(Kind.DELIVERED, Reason.OK, 200, "ok")
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
LATER = Outcome(Kind.LATER, Reason.RATE_LIMITED, 429, retry_after=0.001)
POLICY = Policy(retry_delays=(0.001, 0.001), wait_tiers=(0.001,), max_age=3600)
WINDOW = 300.0
DEAD_AT_ONCE = 0.0  # a lease that ends as it begins


async def new_row(engine: AsyncEngine, *, once: bool = False, target: str = "email") -> UUID:
    row = a_row(target=target, event_type="email")
    if once:
        row = row._replace(
            once_address="ala@example.com", once_purpose="marketing", once_reference="reference"
        )
    async with engine.begin() as tx:
        assert (await intake.accept(tx, [row], WINDOW)).added == 1
        assert (await intake.accept(tx, [row], WINDOW)).added == 0
    return row.alert_id


async def claim(
    engine: AsyncEngine, alert_id: UUID, lease: float, retries: int = 5
) -> Claimed | None:
    async with engine.begin() as tx:
        (job,) = await transitions.claim(
            tx, "email", [(alert_id, 0)], lease=lease, retries=retries, take_over=True
        )
    return job


async def settle(engine: AsyncEngine, job: Claimed, outcome: Outcome) -> bool:
    async with engine.begin() as tx:
        (now,) = await transitions.record(tx, [tried(job, outcome)])
    return now is not None


def tried(job: Claimed, outcome: Outcome) -> Attempt:
    transition = decide(
        outcome, attempts=job.attempts, age=job.age, policy=POLICY, once=job.once is not None
    )
    return Attempt(job, outcome, transition, 0.1)


async def state(engine: AsyncEngine, alert_id: UUID) -> State:
    async with engine.connect() as tx:
        seen = await transitions.see(tx, alert_id, "email")
    assert seen is not None
    return seen.state


async def test_one_of_several_messages_of_an_alert_claims_it(engine: AsyncEngine) -> None:
    alert_id, other = await new_row(engine), await new_row(engine)
    asked = [(alert_id, 0), (other, 0), (alert_id, 0), (uuid4(), 0)]
    async with engine.begin() as tx:
        claims = await transitions.claim(tx, "email", asked, lease=60, retries=5)
    assert [job and job.alert_id for job in claims].count(alert_id) == 1
    assert (claims[1] and claims[1].alert_id, claims[3]) == (other, None)
    assert {job.attempt for job in claims if job} == {1}


OTHERS: Any = {"targets": ["email"], "critical": False, "after": queries.BEGINNING, "limit": 10}


async def test_a_message_of_an_older_generation_claims_nothing(engine: AsyncEngine) -> None:
    alert_id = await new_row(engine)
    async with engine.begin() as tx:
        await upkeep.requeue(tx, await upkeep.run(tx, "open_after", **OTHERS))
        asked = [(alert_id, 0), (alert_id, 1)]
        claims = await transitions.claim(tx, "email", asked, lease=60, retries=5)
    assert [job and job.generation for job in claims] == [None, 1]


HELD = Outcome(Kind.HELD, Reason.GONE, 404)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(
    ("outcome", "healed", "singled_out"),
    [
        (HELD, "now()", True),
        (HELD, "now() - interval '1 minute'", False),  # before this alert was refused
        (HELD, "NULL", False),  # an operator has closed it, and nothing was accepted since
        (FAILED, "now()", False),
    ],
)
async def test_an_alert_is_singled_out_once_its_target_accepted_another(
    engine: AsyncEngine, outcome: Outcome, healed: str, *, singled_out: bool, once: bool
) -> None:
    alert_id = await new_row(engine, once=once)

    async def claimed() -> Claimed | None:
        if not once:
            return await claim(engine, alert_id, 60)
        async with engine.begin() as tx:
            job, _ = await transitions.claim_once(tx, alert_id, "email", 0, lease=60, retries=5)
            if job is not None:
                await transitions.move(tx, job, State.CLAIMED, State.SENDING, seconds=60)
            return job

    job = await claimed()
    assert job is not None
    assert not job.singled_out
    assert await settle(engine, job, outcome)
    async with engine.begin() as tx:
        values = f"('email', {healed})"
        await tx.execute(sa.text(f"INSERT INTO breaker (target, healed_at) VALUES {values}"))
    job = await eventually(claimed)
    assert (job.attempts, job.singled_out) == (1 if outcome is HELD else 2, singled_out)


async def test_batches_with_the_same_rows_do_not_deadlock(engine: AsyncEngine) -> None:
    ids = [await new_row(engine) for _ in range(20)]

    async def claim_all(order: list[UUID]) -> list[Claimed | None]:
        async with engine.begin() as tx:
            return await transitions.claim(
                tx, "email", [(alert_id, 0) for alert_id in order], lease=60, retries=5
            )

    orders = [ids[place:] + ids[:place] for place in range(8)]
    orders += [order[::-1] for order in orders]
    jobs = [job for claims in await asyncio.gather(*map(claim_all, orders)) for job in claims]
    won = [job for job in jobs if job is not None]
    assert sorted(job.alert_id for job in won) == sorted(ids)

    async def settle_all(order: list[Claimed]) -> list[bool]:
        async with engine.begin() as tx:
            now = await transitions.record(tx, [tried(job, DELIVERED) for job in order])
            return [state is not None for state in now]

    both = await asyncio.gather(settle_all(won), settle_all(won[::-1]))
    assert sorted(map(tuple, both)) == [(False,) * 20, (True,) * 20]


async def test_the_oldest_age_is_counted_per_target(engine: AsyncEngine) -> None:
    ages = [("slack", 20), ("slack", 30), ("email", 10), ("email", 50)]
    ids = [await new_row(engine, target=target) for target, _ in ages]
    async with engine.begin() as tx:
        for alert_id, (_, age) in zip(ids, ages, strict=True):
            await tx.execute(
                sa.update(tables.delivery)
                .where(tables.delivery.c.alert_id == alert_id)
                .values(created_at=sa.func.now() - timedelta(seconds=age))
            )
    job = await claim(engine, ids[3], 60)  # the oldest is over
    assert job is not None
    assert await settle(engine, job, DELIVERED)
    async with engine.connect() as tx:
        stats = await queries.stats(tx)
    assert {name: each["pending"] for name, each in stats.items()} == {"slack": 2, "email": 1}
    oldest = {name: each["oldest_pending_seconds"] for name, each in stats.items()}
    assert oldest == {"slack": pytest.approx(30, abs=5), "email": pytest.approx(10, abs=5)}


async def test_a_batch_records_each_outcome_as_if_alone(engine: AsyncEngine) -> None:
    ids = [await new_row(engine) for _ in range(4)]
    late, *rest = [await claim(engine, alert_id, DEAD_AT_ONCE) for alert_id in ids]
    newer = await claim(engine, ids[0], 60)
    assert late
    assert newer
    jobs = [late, *(job for job in rest if job)]
    outcomes = [DELIVERED, FAILED, DELIVERED, LATER]
    gone = replace(newer, alert_id=uuid4())
    async with engine.begin() as tx:
        now = await transitions.record(
            tx, [*map(tried, jobs, outcomes), tried(newer, FAILED), tried(gone, DELIVERED)]
        )
    pending = State.PENDING
    assert now == [None, pending, State.DELIVERED, pending, pending, None]
    async with engine.connect() as tx:
        found = await tx.execute(text("SELECT * FROM delivery"))
        rows = {row.alert_id: row for row in found}
        attempts = (await tx.execute(text("SELECT alert_id, number FROM attempt"))).all()
    ends = [(rows[one].state, rows[one].reason, rows[one].attempts) for one in ids]
    assert ends == [
        ("pending", "server_error", 2),
        ("pending", "server_error", 1),
        ("delivered", "ok", 1),
        ("pending", "rate_limited", 0),
    ]
    assert rows[ids[2]].error is None
    assert rows[ids[1]].error == "server_error 500"
    assert sorted(attempts) == sorted([(ids[0], 2), *((one, 1) for one in ids)])


@pytest.mark.control("P1")
async def test_without_its_attempt_a_late_worker_would_overwrite_a_newer_one(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of `a_batch_records_each_outcome_as_if_alone`."""
    fence = "delivery.attempt = made.attempt\n            AND"
    before = transitions.run.texts["record"]
    assert fence in before
    unfenced = Statement(before.replace(fence, ""))
    monkeypatch.setitem(transitions.run.statements, "record", unfenced)
    alert_id = await new_row(engine)
    late = await claim(engine, alert_id, DEAD_AT_ONCE)
    newer = await claim(engine, alert_id, 60)
    assert late is not None
    assert newer is not None
    assert await settle(engine, late, FAILED)
    assert await state(engine, alert_id) is State.PENDING  # and sent again, beside the newer one


@pytest.mark.parametrize(("outcome", "after"), [(DELIVERED, "delivered"), (FAILED, "pending")])
async def test_an_outcome_outlives_its_claim_that_a_crash_of_the_database_lost(
    engine: AsyncEngine, outcome: Outcome, after: str
) -> None:
    """Protocol A, step 2: a commit of a claim does not wait for the disk."""
    alert_id = await new_row(engine)
    job = await claim(engine, alert_id, 60)
    assert job is not None
    await execute(
        engine,
        "UPDATE delivery SET state = 'pending', attempt = 0, attempts = 0, lease_until = NULL",
    )
    assert await settle(engine, job, outcome) is (after == "delivered")
    assert await state(engine, alert_id) == after
    if after == "pending":
        again = await claim(engine, alert_id, 60)
        assert again is not None
        assert (again.attempt, again.attempts) == (1, 1)


async def test_only_a_claim_does_not_wait_for_the_disk(engine: AsyncEngine) -> None:
    alert_id = await new_row(engine)
    for statement, waits in (("claim", "off"), ("see", "on")):
        async with engine.begin() as tx:
            given = {"target": "email", "lease": 60, "retries": 5, "take_over": False}
            given |= {"alert_ids": [alert_id], "generations": [0], "alert_id": alert_id}
            assert await transitions.run(tx, statement, **given)
            assert await tx.scalar(text("SHOW synchronous_commit")) == waits


async def test_requeueing_all_rows_waits_for_locked_ones(engine: AsyncEngine) -> None:
    ids = {await new_row(engine) for _ in range(3)}
    job = await claim(engine, min(ids), 60)
    assert job

    async def reconciler() -> set[UUID]:
        return {row.alert_id for row in await upkeep.run.alone(engine, "open_after", **OTHERS)}

    async with engine.begin() as tx:
        assert await transitions.record(tx, [tried(job, FAILED)]) == [
            State.PENDING
        ]  # without a message
        sweeping = asyncio.create_task(reconciler())
        await eventually(lambda: waits_for_a_row(engine))
    assert await sweeping == ids


async def test_a_late_reply_resolves_the_doubt_of_its_own_attempt_only(engine: AsyncEngine) -> None:
    alert_id = await new_row(engine, once=True)
    async with engine.begin() as tx:
        job, taken_over = await transitions.claim_once(
            tx, alert_id, "email", 0, lease=60, retries=5
        )
        assert job is not None
        assert not taken_over
        assert await transitions.move(tx, job, State.CLAIMED, State.SENDING, seconds=DEAD_AT_ONCE)
    assert await transitions.run.alone(engine, "mark_in_doubt", alert_id=alert_id, target="email")
    assert not await settle(engine, job, FAILED)
    assert not await settle(engine, replace(job, attempt=2), DELIVERED)
    assert await state(engine, alert_id) is State.IN_DOUBT
    assert await settle(engine, job, DELIVERED)
    assert await state(engine, alert_id) is State.DELIVERED


async def test_an_at_most_once_mail_is_not_claimed_as_an_alert(engine: AsyncEngine) -> None:
    alert_id = await new_row(engine, once=True)
    assert await claim(engine, alert_id, 60) is None


@pytest.mark.parametrize("change", TABLE["impossible"])
async def test_the_table_refuses_an_impossible_state(engine: AsyncEngine, change: str) -> None:
    await new_row(engine)
    with pytest.raises(IntegrityError):
        await execute(engine, f"UPDATE delivery SET {change}")
