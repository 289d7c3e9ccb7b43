"""Repeats of a dedup_key within its window are counted on the first alert, exactly."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.store.ledger import intake, queries
from services.alerts.store.ledger.intake import NewRow, Taken
from tests.integration.alerts.conftest import Alerts, a_row, execute, waits_for_a_row
from tests.support.eventually import eventually

WINDOW = 300.0
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def said(seconds: float = 0, **changes: Any) -> NewRow:
    at = NOON + timedelta(seconds=seconds)
    return a_row(caller="service", dedup_key="disk-full", accepted_at=at)._replace(**changes)


async def accept(engine: AsyncEngine, *rows: NewRow, window: float = WINDOW) -> Taken:
    async with engine.begin() as tx:
        await intake.lock(tx, rows)
        return await intake.accept(tx, rows, window)


async def counts(engine: AsyncEngine) -> list[tuple[UUID, int]]:
    async with engine.connect() as tx:
        rows = await tx.execute(text("SELECT alert_id, duplicates FROM delivery ORDER BY 2 DESC"))
        return [(row.alert_id, row.duplicates) for row in rows]


async def end(engine: AsyncEngine, state: str) -> None:
    await execute(
        engine, "UPDATE delivery SET state = :state, reason = 'x', finished_at = now()", state=state
    )


async def test_a_repeat_within_the_window_is_counted_on_the_first(engine: AsyncEngine) -> None:
    first = said()
    await accept(engine, first)
    for seconds in (1, 299, -299):
        again = said(seconds)
        taken = await accept(engine, again)
        assert (taken.added, dict(taken.repeats)) == (0, {again.key: first.alert_id})
    assert await counts(engine) == [(first.alert_id, 3)]


async def test_a_repeat_after_the_window_is_sent(engine: AsyncEngine) -> None:
    await accept(engine, said())
    for seconds in (300, 600):  # counted from the first alert, not from the last repeat
        await accept(engine, said(seconds - 1))
        assert (await accept(engine, said(seconds))).added == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"dedup_key": "disk-fuller"},
        {"dedup_key": None},
        {"target": "webhook"},
        {"event_type": "webhook"},
        {"source": "followups"},
        {"caller": "key:OTHER"},
        {"once_address": "a@example.com", "once_purpose": "marketing", "once_reference": "r"},
    ],
)
async def test_an_alert_that_differs_is_no_repeat(
    engine: AsyncEngine, changes: dict[str, Any]
) -> None:
    await accept(engine, said())
    assert (await accept(engine, said(**changes))).added == 1


async def test_two_alerts_of_one_key_in_a_batch_are_one_delivery(engine: AsyncEngine) -> None:
    rows = [said(seconds) for seconds in (2, 0, 1)]
    taken = await accept(engine, *rows)
    assert taken.added == 1
    assert set(taken.repeats.values()) == {rows[1].alert_id}
    assert await counts(engine) == [(rows[1].alert_id, 2)]


async def total(engine: AsyncEngine) -> tuple[int, int]:
    async with engine.connect() as tx:
        row = (await tx.execute(text("SELECT accepted, duplicates FROM ledger_total"))).one()
        return row.accepted, row.duplicates


@pytest.mark.parametrize(("state", "sent"), [("failed", 1), ("discarded", 1), ("pending", 0)])
async def test_a_failed_alert_takes_no_repeats(engine: AsyncEngine, state: str, sent: int) -> None:
    await accept(engine, said())
    if state != "pending":
        await end(engine, state)
    assert (await accept(engine, said(1))).added == sent


async def test_a_repeat_waits_for_a_first_that_is_failing(engine: AsyncEngine) -> None:
    await accept(engine, said())
    async with engine.begin() as failing:
        await failing.execute(
            text("UPDATE delivery SET state = 'failed', reason = 'x', finished_at = now()")
        )
        task = asyncio.create_task(accept(engine, said(1)))
        await eventually(lambda: waits_for_a_row(engine))
    assert (await task).added == 1


async def test_a_redelivered_first_beside_another_first_is_no_repeat(engine: AsyncEngine) -> None:
    await accept(engine, said())
    await end(engine, "failed")
    second = said(1)
    assert (await accept(engine, second)).added == 1
    # a manual retry of the first
    await execute(
        engine, "UPDATE delivery SET state = 'pending', finished_at = NULL WHERE state = 'failed'"
    )
    assert (await accept(engine, second)).repeats == {}
    assert [repeats for _, repeats in await counts(engine)] == [0, 0]


async def test_a_window_of_zero_disables_deduplication(engine: AsyncEngine) -> None:
    await accept(engine, said(), said(), window=0)
    assert [repeats for _, repeats in await counts(engine)] == [0, 0]


async def test_repeats_stay_counted_and_are_purged_with_the_first(engine: AsyncEngine) -> None:
    first, again = said(), said(1)
    await accept(engine, first, again)
    async with engine.begin() as tx:
        (row,) = await queries.run(tx, "find", alert_id=again.alert_id)
        assert row.duplicate_of == first.alert_id
        await tx.execute(text("DELETE FROM delivery"))
        assert await queries.run(tx, "find", alert_id=again.alert_id) == []
    assert await total(engine) == (1, 1)


async def test_the_caller_of_a_repeat_sees_the_first(subject: Alerts) -> None:
    await subject.sandbox.behave("slack", status=500)
    ids = [await subject.accept(dedup_key="k") for _ in range(5)]
    (first,) = await eventually(lambda: failed(subject))
    for alert_id in ids:
        _, shown = await subject.http("GET", f"/api/alerts/{alert_id}")
        (delivery,) = shown["deliveries"]
        assert (shown["id"], shown["state"]) == (alert_id, "failed")
        assert delivery["duplicate_of"] == (None if alert_id == first else first)
        assert (delivery["duplicates"], delivery["reason"]) == (4, "exhausted")
        assert [one["status"] for one in delivery["history"]] == [500, 500, 500]
    terms = await subject.check()
    assert (terms["accepted"], terms["failed"], terms["duplicates"]) == (1, 1, 4)
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1


async def failed(subject: Alerts) -> list[str]:
    _, page = await subject.http("GET", "/api/dlq/failed")
    return [one["id"] for one in page["items"]]
