"""What leaves the ledger stays counted, and the check that counts it can fail."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts import retention
from services.alerts.alert import State
from services.alerts.retention import Retention
from services.alerts.store import questions, upkeep
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.support.eventually import eventually

HOUR, DAY = 3600.0, 86400.0


async def execute(engine: AsyncEngine, statement: str, **values: object) -> None:
    async with engine.begin() as tx:
        await tx.execute(sa.text(statement), values)


async def scalar(engine: AsyncEngine, statement: str) -> object:
    async with engine.connect() as tx:
        return await tx.scalar(sa.text(statement))


async def rows(
    engine: AsyncEngine, state: str, count: int, *, hours: float = 0, reason: str = "gone"
) -> None:
    """Write finished rows, with an attempt and an escalation each, as long ago as said."""
    async with engine.begin() as tx:
        await tx.execute(
            sa.text("""
    WITH added AS (
        INSERT INTO delivery (alert_id, target, event_type, severity, source, payload, dedup_key,
            accepted_at, created_at, state, reason, error, attempt, finished_at,
            once_address, once_purpose, once_reference)
        SELECT gen_random_uuid(), 'email', 'email', 'info', 'test', '{"text": "secret"}', 'secret',
            at, at, :state, :reason, 'gone 410 secret', 1, at,
            CASE WHEN doubt THEN 'anna@example.com' END, CASE WHEN doubt THEN 'marketing' END,
            CASE WHEN doubt THEN 'reference' END
        FROM generate_series(1, :count) AS i, LATERAL (
            SELECT now() - make_interval(secs => :seconds) - i * interval '1 ms' AS at,
                :state = 'in_doubt' AS doubt) AS one
        RETURNING alert_id, target
    ), tried AS (
        INSERT INTO attempt (alert_id, target, number, outcome, reason, status, seconds, excerpt)
        SELECT alert_id, target, 1, 'never', 'gone', 410, 0.1, 'secret' FROM added
    ), told AS (
        INSERT INTO escalation (alert_id, target, event_type, reason, error, digest)
        SELECT alert_id, target, 'email', 'gone', 'secret', gen_random_uuid() FROM added
    )
    INSERT INTO ledger_total AS total (target, accepted) VALUES ('email', :count)
    ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
""").bindparams(sa.bindparam("state", type_=sa.Text), sa.bindparam("seconds", type_=sa.Float)),
            {"state": state, "reason": reason, "count": count, "seconds": hours * HOUR},
        )


async def check(engine: AsyncEngine, *, full: bool = False) -> tuple[int, int]:
    """Return what was accepted, and the sum of what became of it."""
    async with engine.begin() as tx:
        terms = await questions.check(tx, [], 60, full=full)
    ends = ("delivered", "pending", "failed", "discarded", "in_doubt")
    return terms["accepted"], sum(terms[name] for name in ends)


async def count(engine: AsyncEngine, batch: int = 1000) -> None:
    more = True
    while more:
        async with engine.begin() as tx:
            more = await upkeep.count(tx, batch)


async def test_what_was_delivered_is_counted_once_whatever_the_slices(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 25, hours=1)
    await rows(engine, "delivered", 5)
    for batch in (3, 1000):
        await count(engine, batch)
        assert await scalar(engine, "SELECT delivered FROM ledger_count") == 25
        assert await check(engine) == await check(engine, full=True) == (30, 30)


async def test_a_row_that_vanishes_is_missed(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 4, hours=1)
    await rows(engine, "failed", 3)
    await count(engine)
    await rows(engine, "delivered", 2)
    assert await check(engine) == (9, 9)
    for state, left in (("failed", 8), ("delivered", 7)):  # of the delivered the newest
        await execute(
            engine,
            "DELETE FROM delivery WHERE alert_id = (SELECT alert_id FROM delivery "
            "WHERE state = :state ORDER BY finished_at DESC LIMIT 1)",
            state=state,
        )
        assert await check(engine) == await check(engine, full=True) == (9, left)


async def test_of_what_was_counted_before_only_the_full_check_misses_one(
    engine: AsyncEngine,
) -> None:
    await rows(engine, "delivered", 4, hours=1)
    await count(engine)
    await execute(engine, "DELETE FROM delivery")
    assert await check(engine) == (4, 4)
    assert await check(engine, full=True) == (4, 0)


async def test_a_full_check_counts_in_slices_and_what_ended_together_once(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows(engine, "delivered", 20, hours=1)
    await execute(engine, "UPDATE delivery SET finished_at = date_trunc('hour', finished_at)")
    await rows(engine, "delivered", 7, hours=3)
    await count(engine)
    monkeypatch.setattr(questions, "SLICE", 3)
    assert await check(engine, full=True) == (27, 27)


async def test_purging_beside_counting_keeps_the_equation(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 300, hours=30)
    await rows(engine, "delivered", 100, hours=1)
    await rows(engine, "discarded", 50, hours=30)
    retained = Retention(engine, delivered=24 * HOUR, payloads=30 * DAY)
    await asyncio.gather(*(count(engine, 7) for _ in range(3)), *(retained.run() for _ in range(3)))
    await count(engine)
    assert await scalar(engine, "SELECT count(*) FROM delivery") == 100
    assert await scalar(engine, "SELECT delivered FROM ledger_count") == 100
    assert await check(engine) == await check(engine, full=True) == (450, 450)


async def test_what_is_purged_takes_its_attempts_and_escalations_along(
    engine: AsyncEngine,
) -> None:
    await rows(engine, "delivered", 3, hours=30)
    await rows(engine, "delivered", 2)
    assert await retention.purge(engine, 24 * HOUR) == 3
    for table in ("delivery", "attempt", "escalation"):
        assert await scalar(engine, f"SELECT count(*) FROM {table}") == 2


async def test_a_row_that_another_holds_is_left_for_the_next_time(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=30)
    async with engine.begin() as holding:
        await holding.execute(sa.text("SELECT 1 FROM delivery LIMIT 1 FOR UPDATE"))
        assert await retention.purge(engine, 24 * HOUR) == 2
    assert await retention.purge(engine, 24 * HOUR) == 1


@pytest.mark.parametrize("state", ["failed", "in_doubt", "discarded"])
async def test_what_it_said_is_forgotten_and_the_row_still_counted(
    engine: AsyncEngine, state: str
) -> None:
    await rows(engine, state, 3, hours=31 * 24)
    await rows(engine, state, 2, hours=29 * 24)
    await Retention(engine, delivered=365 * DAY, payloads=30 * DAY).run()
    old = "WHERE payload IS NULL AND dedup_key IS NULL AND error = 'gone' AND reason = 'gone'"
    assert await scalar(engine, f"SELECT count(*) FROM delivery {old}") == 3
    assert await scalar(engine, "SELECT count(*) FROM delivery WHERE payload IS NOT NULL") == 2
    assert await scalar(engine, "SELECT count(*) FROM attempt WHERE excerpt = ''") == 3
    assert await scalar(engine, "SELECT count(*) FROM escalation") == 2
    told = {"in_doubt": 2}.get(state, 0)
    anna = "SELECT count(*) FROM delivery WHERE once_address LIKE 'anna%'"
    assert await scalar(engine, anna) == told
    assert await check(engine) == (5, 5)


async def test_the_reason_a_person_gave_stays(engine: AsyncEngine) -> None:
    await rows(engine, "discarded", 1, hours=31 * 24, reason="by_hand")
    await Retention(engine, delivered=365 * DAY, payloads=30 * DAY).run()
    assert await scalar(engine, "SELECT error FROM delivery") == "gone 410 secret"


async def test_what_nobody_was_told_yet_is_told_without_what_it_said(engine: AsyncEngine) -> None:
    await rows(engine, "failed", 1, hours=31 * 24)
    await execute(engine, "UPDATE escalation SET digest = NULL")
    await Retention(engine, delivered=DAY, payloads=30 * DAY).run()
    assert await scalar(engine, "SELECT count(*) FROM escalation WHERE error IS NULL") == 1


async def test_a_row_without_its_payload_is_skipped_by_a_retry(alerts: StartAlerts) -> None:
    subject = await alerts()
    await rows(subject.engine, "failed", 2, hours=31 * 24)
    await rows(subject.engine, "failed", 1)
    await Retention(subject.engine, delivered=DAY, payloads=30 * DAY).run()
    _, answer = await subject.http("POST", "/api/dlq/retry", {"target": "email"})
    assert answer == {"matched": 3, "requeued": 1, "skipped": 2, "without_payload": 2}


async def test_the_check_says_which_it_was(alerts: StartAlerts) -> None:
    subject = await alerts()
    await rows(subject.engine, "delivered", 3)
    for query, full in (("", False), ("?full=false", False), ("?full=true", True)):
        _, body = await subject.http("GET", f"/api/ledger/check{query}")
        assert (body["ok"], body["delivered"], body["full"]) == (True, 3, full)
    for query in ("?full=yes", "?fully=true"):
        assert (await subject.http("GET", f"/api/ledger/check{query}"))[0] == 422


async def test_a_purge_tells_apart_what_was_counted_and_what_not(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=1)
    await count(engine)
    await rows(engine, "delivered", 2)
    async with engine.begin() as tx:
        batch = await upkeep.purge(
            tx, state=State.DELIVERED, seconds=0, after=upkeep.BEGINNING, batch=100
        )
    assert batch.done == 5
    assert await scalar(engine, "SELECT delivered FROM ledger_count") == 0
    assert await check(engine) == (5, 5)


async def test_what_is_being_purged_is_not_counted_again(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=30)
    async with engine.begin() as tx:
        await upkeep.purge(tx, state=State.DELIVERED, seconds=0, after=upkeep.BEGINNING, batch=2)
        counting = asyncio.create_task(count(engine))
        await eventually(lambda: waits_for_a_row(engine))
    await counting
    assert await scalar(engine, "SELECT delivered FROM ledger_count") == 1
    assert await check(engine) == (3, 3)


async def test_what_is_being_counted_is_not_purged_as_if_it_were_not(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=30)
    async with engine.begin() as tx:
        await upkeep.count(tx)
        purging = asyncio.create_task(retention.purge(engine, HOUR))
        await eventually(lambda: waits_for_a_row(engine))
    assert await purging == 3
    assert await scalar(engine, "SELECT delivered FROM ledger_count") == 0
    assert await check(engine) == (3, 3)
