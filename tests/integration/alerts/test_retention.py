"""Purged rows stay counted; the ledger check can fail, and its metrics show what it found."""

import asyncio
from functools import partial

import aiohttp
import pytest
import sqlalchemy as sa
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.up.servers import Postgres
from services.alerts.store.ledger import queries
from services.alerts.upkeep import retention
from tests.integration.alerts.conftest import ONCE, Alerts, StartAlerts, execute, write
from tests.support.brokers import Vhost, leaderless
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.promise("P1")

HOUR, DAY = 3600.0, 86400.0


async def scalar(engine: AsyncEngine, statement: str) -> object:
    async with engine.connect() as tx:
        return await tx.scalar(sa.text(statement))


async def rows(
    engine: AsyncEngine, state: str, count: int, *, hours: float = 0, reason: str = "gone"
) -> None:
    """Write rows that ended so long ago, each with an attempt and an escalation."""
    at = f"now() - interval '{hours} hours' - n * interval '1 ms'"
    doubt = {"once_address": "'anna@example.com'"} if state == "in_doubt" else {}
    ids = await write(
        engine,
        count,
        target="'email'",
        state=f"'{state}'",
        reason=f"'{reason}'",
        attempt="1",
        payload="""'{"text": "secret"}'""",
        dedup_key="'secret'",
        error="'gone 410 secret'",
        accepted_at=at,
        created_at=at,
        finished_at=at,
        **(ONCE | doubt if doubt else {}),
    )
    await execute(
        engine,
        "WITH tried AS (INSERT INTO attempt"
        " (alert_id, target, number, outcome, reason, status, seconds, excerpt)"
        " SELECT id, 'email', 1, 'never', 'gone', 410, 0.1, 'secret' FROM unnest(:ids) AS id)"
        " INSERT INTO escalation (alert_id, target, event_type, reason, error, digest)"
        " SELECT id, 'email', 'email', 'gone', 'secret', gen_random_uuid() FROM unnest(:ids) AS id",
        ids=ids,
    )


async def check(engine: AsyncEngine) -> tuple[int, int]:
    """Return how many were accepted, and the sum of all ends."""
    async with engine.begin() as tx:
        terms = await queries.check(tx, [], 60)
    ends = ("delivered", "pending", "failed", "discarded", "in_doubt")
    return terms["accepted"], sum(terms[name] for name in ends)


async def test_the_ledger_check_holds_after_the_clock_was_set_back(subject: Alerts) -> None:
    await rows(subject.engine, "delivered", 4, hours=1)
    await subject.stop()
    await subject.start()
    await eventually(
        subject.metrics,
        so=lambda found: found.count('periodic_runs_total{outcome="done"') >= 3,
    )
    await rows(
        subject.engine, "delivered", 2, hours=0.5
    )  # now, by a clock that was set back by half an hour
    await eventually(subject.check, so=lambda found: found["ok"] is not None)
    terms = await subject.check()
    assert (terms["ok"], terms["delivered"]) == (True, 6)


@pytest.mark.control("P1")
async def test_a_vanished_row_fails_the_ledger_check(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 4, hours=1)
    await rows(engine, "failed", 3)
    assert await check(engine) == (7, 7)
    for state, left in (("failed", 6), ("delivered", 5)):
        await execute(
            engine,
            "DELETE FROM delivery WHERE alert_id = (SELECT alert_id FROM delivery "
            "WHERE state = :state LIMIT 1)",
            state=state,
        )
        assert await check(engine) == (7, left)


async def test_the_check_counts_in_slices_and_each_row_once(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows(engine, "delivered", 20, hours=1)
    await execute(engine, "UPDATE delivery SET finished_at = date_trunc('hour', finished_at)")
    await rows(engine, "delivered", 7, hours=3)
    monkeypatch.setattr(queries, "SLICE", 3)
    assert await check(engine) == (27, 27)


async def test_purging_during_the_check_keeps_it_ok(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows(engine, "delivered", 300, hours=30)
    await rows(engine, "delivered", 100, hours=1)
    await rows(engine, "discarded", 50, hours=30)
    monkeypatch.setattr(queries, "SLICE", 7)
    monkeypatch.setattr(retention, "BATCH", 5)
    retained = partial(retention.run, engine, delivered=24 * HOUR, payloads=30 * DAY)
    found = await asyncio.gather(
        *(check(engine) for _ in range(5)), *(retained() for _ in range(3))
    )
    assert found[:5] == [(450, 450)] * 5
    assert await scalar(engine, "SELECT count(*) FROM delivery") == 100
    assert await check(engine) == (450, 450)


async def test_one_replica_counts_for_all_even_after_the_clock_was_set_back(
    engine: AsyncEngine,
) -> None:
    async def last(seconds: float = 60) -> object:
        async with engine.begin() as tx:
            return await queries.last_check(tx, seconds)

    assert await last() is None
    await queries.run.alone(engine, "keep", found={"ok": True})
    assert await last() == {"ok": True}
    assert await last(seconds=0) is None
    await execute(engine, "UPDATE ledger_check SET at = now() + interval '1 hour'")
    assert [await last(), await last()] == [None, {"ok": True}]


async def test_purging_deletes_attempts_and_escalations(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=30)
    await rows(engine, "delivered", 2)
    assert await retention.purge(engine, 24 * HOUR) == 3
    for table in ("delivery", "attempt", "escalation"):
        assert await scalar(engine, f"SELECT count(*) FROM {table}") == 2


async def test_a_locked_row_is_purged_the_next_time(engine: AsyncEngine) -> None:
    await rows(engine, "delivered", 3, hours=30)
    async with engine.begin() as holding:
        await holding.execute(sa.text("SELECT 1 FROM delivery LIMIT 1 FOR UPDATE"))
        assert await retention.purge(engine, 24 * HOUR) == 2
    assert await retention.purge(engine, 24 * HOUR) == 1


@pytest.mark.parametrize("state", ["failed", "in_doubt", "discarded"])
async def test_an_expired_payload_is_emptied_and_its_row_counted(
    engine: AsyncEngine, state: str
) -> None:
    await rows(engine, state, 3, hours=31 * 24)
    await rows(engine, state, 2, hours=29 * 24)
    await retention.run(engine, delivered=365 * DAY, payloads=30 * DAY)
    old = "WHERE payload IS NULL AND dedup_key IS NULL AND error = 'gone' AND reason = 'gone'"
    assert await scalar(engine, f"SELECT count(*) FROM delivery {old}") == 3
    assert await scalar(engine, "SELECT count(*) FROM delivery WHERE payload IS NOT NULL") == 2
    assert await scalar(engine, "SELECT count(*) FROM attempt WHERE excerpt = ''") == 3
    assert await scalar(engine, "SELECT count(*) FROM escalation") == 2
    escalations = {"in_doubt": 2}.get(state, 0)
    anna = "SELECT count(*) FROM delivery WHERE once_address LIKE 'anna%'"
    assert await scalar(engine, anna) == escalations
    assert await check(engine) == (5, 5)


async def test_an_operators_reason_is_kept(engine: AsyncEngine) -> None:
    await rows(engine, "discarded", 1, hours=31 * 24, reason="manual")
    await retention.run(engine, delivered=365 * DAY, payloads=30 * DAY)
    assert await scalar(engine, "SELECT error FROM delivery") == "gone 410 secret"


async def test_an_unsent_escalation_loses_its_text(engine: AsyncEngine) -> None:
    await rows(engine, "failed", 1, hours=31 * 24)
    await execute(engine, "UPDATE escalation SET digest = NULL")
    await retention.run(engine, delivered=DAY, payloads=30 * DAY)
    assert await scalar(engine, "SELECT count(*) FROM escalation WHERE error IS NULL") == 1


async def test_a_retry_skips_a_row_without_payload(subject: Alerts) -> None:
    await rows(subject.engine, "failed", 2, hours=31 * 24)
    await rows(subject.engine, "failed", 1)
    await retention.run(subject.engine, delivered=DAY, payloads=30 * DAY)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"target": "email"})
    assert answer == {"matched": 3, "requeued": 1, "skipped": 2, "without_payload": 2}


async def test_the_metrics_show_the_ledger_check(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")
    await subject.failed(1, "x")  # without an escalation: a digest would be accepted, too
    await subject.until(await subject.accept(), "delivered")
    await shown(
        subject,
        'alerts_ledger_rows{state="failed",target="slack"} 1.0',
        'alerts_ledger_rows{state="pending",target="slack"} 0.0',
        'alerts_ledger_term{term="accepted"} 2.0',
        'alerts_ledger_term{term="delivered"} 1.0',
        'alerts_ledger_term{term="unread"} 0.0',
        "alerts_ledger_ok 1.0",
    )


async def test_an_unavailable_database_makes_the_ledger_check_unknown(
    alerts: StartAlerts, postgres: Postgres
) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")
    await subject.stop()
    async with Proxy(postgres.port) as way:
        url = make_url(subject.database).set(port=way.port)
        subject.environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
        way.stall()  # the first check takes a while
        await subject.start()
        await shown(subject, "database_connected 0.0")
        assert "alerts_ledger_ok NaN" in (await subject.metrics()).splitlines()
        await way.resume()
        await shown(subject, "database_connected 1.0", "alerts_ledger_ok 1.0")
        await way.refuse()
        await shown(subject, "database_connected 0.0", "alerts_ledger_ok NaN")
        await subject.stop()


async def test_an_unknown_number_of_unread_messages_makes_the_check_unknown(
    alerts: StartAlerts, vhost: Vhost
) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")

    with leaderless(vhost, "alerts.intake.dead"):
        # what was seen before serves all callers for a second
        await eventually(
            subject.check, so=lambda check: (check["ok"], check["unread"]) == (None, None)
        )
        await shown(subject, "alerts_ledger_ok NaN", 'alerts_ledger_term{term="unread"} NaN')
    await shown(subject, "alerts_ledger_ok 1.0")


async def shown(subject: Alerts, *wanted: str) -> None:
    async def so() -> bool:
        try:
            lines = (await subject.metrics()).splitlines()
        except aiohttp.ClientConnectorError:  # /health responds a moment earlier
            return False
        return all(line in lines for line in wanted)

    await eventually(so, 30)
