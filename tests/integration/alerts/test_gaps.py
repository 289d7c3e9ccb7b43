"""Alerts that a gateway was told are safe, and that never came: by their running numbers."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.messages import AlertAccepted, Numbered
from services.alerts.store import breakers
from services.alerts.store.ledger import gaps
from services.alerts.upkeep.digests import MISSING
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted, execute
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")

Range = tuple[int, int]
GATEWAY, OTHER = "gateway-1 0", "gateway-1 1"


def alert(
    number: int, sender: str = GATEWAY, *, unused: Sequence[Range] = (), days: float = 0
) -> AlertAccepted:
    numbered = Numbered(sender=sender, number=number, unused=tuple(unused))
    at = datetime.now(UTC) - timedelta(days=days)
    return AlertAccepted(
        id=uuid4(), event_type="x", payload={}, source="gateway", accepted_at=at, numbered=numbered
    )


async def come(engine: AsyncEngine, *numbers: int, sender: str = GATEWAY) -> None:
    async with engine.begin() as tx:
        await gaps.note(tx, [alert(number, sender) for number in numbers])


async def judge(engine: AsyncEngine, seconds: float = 0) -> dict[str, list[list[int]]]:
    """Let the time of a gap pass, and return what is missing of each sender."""
    for _ in range(2):  # since when it is one; that it still is
        async with engine.begin() as tx:
            await gaps.judge(tx, seconds)
    async with engine.connect() as tx:
        found = await gaps.found(tx)
    for each in found:
        assert each["count"] == sum(last - first + 1 for first, last in each["numbers"])
        assert datetime.fromisoformat(each["since"]) <= datetime.now(UTC) + timedelta(seconds=5)
    return {each["sender"]: each["numbers"] for each in found}


async def change(engine: AsyncEngine, statement: str) -> None:
    await execute(engine, statement)


async def test_a_gap_is_none_before_its_time(engine: AsyncEngine) -> None:
    await come(engine, 1)
    await come(engine, 3)
    assert await judge(engine, 600) == {}
    await change(engine, "UPDATE intake_sender SET edge_at = now() - interval '11 min'")
    await come(engine, 5)
    assert await judge(engine, 600) == {}  # it is one since now
    await change(engine, "UPDATE intake_sender SET edge_at = now() - interval '11 min'")
    assert await judge(engine, 600) == {GATEWAY: [[2, 2], [4, 4]]}


async def test_numbers_that_nobody_was_promised_are_not_missing(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        told = alert(9, unused=[(2, 4), (7, 7), (6, 5)])  # the last is none
        await gaps.note(tx, [alert(1), told])
    assert await judge(engine) == {GATEWAY: [[5, 6], [8, 8]]}


async def test_a_message_from_long_ago_begins_nothing(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await gaps.note(tx, [alert(900, days=8)])  # moved back from .dead, its sender forgotten
    assert await judge(engine) == {}


async def test_what_is_missing_is_forgotten_after_a_week_and_a_sender_after_two(
    engine: AsyncEngine,
) -> None:
    await come(engine, 2, 4)
    assert await judge(engine) == {GATEWAY: [[1, 1], [3, 3]]}
    await change(engine, "UPDATE intake_sender SET missed_at = now() - interval '8 days'")
    assert await judge(engine) == {}
    await come(engine, 6)
    assert await judge(engine) == {GATEWAY: [[5, 5]]}
    await change(engine, "UPDATE intake_sender SET at = now() - interval '15 days'")
    await judge(engine)
    async with engine.connect() as tx:
        assert not await tx.scalar(sa.text("SELECT count(*) FROM intake_sender"))


async def test_a_release_that_notes_no_numbers_makes_no_gaps(engine: AsyncEngine) -> None:
    old, new = uuid4(), uuid4()
    await change(engine, f"INSERT INTO replica (process) VALUES ('{old}')")
    await breakers.run.alone(engine, "report", process=new, reports=[])
    await come(engine, 3, 7)  # the others were the old one's
    assert await judge(engine) == {}
    async with engine.begin() as tx:
        await breakers.run(tx, "leave", process=old)
        await breakers.run(tx, "leave", process=new)
    async with engine.connect() as tx:
        assert set((await tx.execute(sa.text("SELECT process FROM replica"))).scalars()) == {old}
    await come(engine, 10)
    await come(engine, 5, sender=OTHER)
    assert await judge(engine) == {}
    await change(engine, "UPDATE replica SET seen_at = now() - interval '61 min'")
    await breakers.run.alone(engine, "join", targets=[])
    await come(engine, 12)
    assert await judge(engine) == {GATEWAY: [[11, 11]]}


@pytest.mark.parametrize("seed", range(5))
async def test_any_order_of_any_batches_leaves_what_did_not_come(
    engine: AsyncEngine, seed: int
) -> None:
    chance = random.Random(seed)
    sent = {sender: range(1, 61) for sender in (GATEWAY, OTHER)}
    lost = {sender: set(chance.sample(numbers, 15)) for sender, numbers in sent.items()}
    coming = [(s, n) for s, numbers in sent.items() for n in numbers if n not in lost[s]]
    coming += chance.sample(coming, 20)  # again
    chance.shuffle(coming)

    async def batch(some: Sequence[tuple[str, int]]) -> None:
        async with engine.begin() as tx:
            await gaps.note(tx, [alert(number, sender) for sender, number in some])

    while coming:
        several = [coming[i : i + 4] for i in range(0, min(len(coming), 20), 4)]
        coming = coming[20:]
        await asyncio.gather(*map(batch, several))  # at once, of the same senders
        if chance.random() < 0.5:
            await judge(engine)
    expected = {sender: ranges(lost[sender]) for sender in lost}
    await come(engine, 61)
    await come(engine, 61, sender=OTHER)
    assert await judge(engine) == expected


def ranges(numbers: set[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


@pytest.mark.parametrize("table", ["intake_sender", "ledger_total"])
async def test_an_alert_and_its_number_are_written_together_or_neither(
    table: str, subject: Alerts
) -> None:

    with closing(psycopg2.connect(subject.database.superuser_url)) as holder:
        with holder.cursor() as cursor:
            cursor.execute(f"LOCK TABLE alerts.{table} IN SHARE MODE")
        alert_id = await subject.accept(numbered={"sender": GATEWAY, "number": 1})
        await eventually(lambda: subject.scalar("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        subject.kill9()
    written = "(SELECT count(*) FROM delivery), (SELECT count(*) FROM intake_sender)"
    assert await subject.scalar(f"SELECT ROW({written})::text") == "(0,0)"
    await subject.start()
    await subject.until(alert_id, "delivered")
    assert await subject.scalar(f"SELECT ROW({written})::text") == "(1,1)"


async def send(subject: Alerts, number: int) -> None:
    numbered = {"sender": GATEWAY, "number": number}
    await subject.until(await subject.accept(numbered=numbered), "delivered")


async def test_the_ledger_check_lists_what_never_came_and_on_call_is_told(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_ESCALATION_SECONDS="0.5")
    for number in (1, 2, 5):
        await send(subject, number)
    found = await subject.check()
    assert (found["ok"], found["missing"], found["gaps"]) == (True, 0, [])

    async def told() -> Any:
        # As if ten minutes had passed since it was looked at.
        await change(subject.engine, "UPDATE intake_sender SET edge_at = now() - interval '1 hour'")
        return (await subject.check())["missing"] == 2

    await eventually(told, 60)
    found = await subject.check()
    assert found["ok"] is False
    (gap,) = found["gaps"]
    assert (gap["sender"], gap["numbers"], gap["count"]) == (GATEWAY, [[3, 4]], 2)
    reported = f"SELECT count(*) FROM incident WHERE target = '{MISSING}' AND number = 2"
    await eventually(lambda: subject.scalar(reported))

    await eventually(
        subject.sandbox.mails,
        60,
        so=lambda mails: any("never came" in mail["Subject"] for mail in mails),
    )
    late = accepted("slack_alert", numbered={"sender": GATEWAY, "number": 3})
    assert (await subject.http("POST", "/internal/alerts", {"alerts": [late]}))[0] == 202
    await send(subject, 4)
    await eventually(subject.check, so=lambda found: found["ok"])
