"""Bulk calls: they delay nothing else, and the next call continues."""

import asyncio
import os
import time
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http import application
from services.alerts.http import dlq
from services.alerts.http.dlq import DlqRoutes
from services.alerts.store.ledger import upkeep
from tests.integration.alerts.conftest import FAILED, Alerts, StartAlerts, execute, write
from tests.support.eventually import eventually
from tests.support.memory import resident

ROWS = int(os.environ.get("BULK_ROWS", "3000"))
SHUT = {"breaker": {"fail_max": 1, "reset_timeout": 3600}}


async def failed(engine: AsyncEngine, count: int) -> None:
    for done in range(0, count, 5000):  # so that no statement times out
        created = "now() - n * interval '1 ms'"
        await write(engine, min(5000, count - done), **FAILED, created_at=created)


def rss(subject: Alerts) -> int:
    return resident(subject.process.pid) // 1024  # MiB


async def retry(subject: Alerts) -> int:
    requeued, more = 0, True
    while more:
        status, answer = await subject.http("POST", "/api/dlq/retry", {"target": "slack"})
        assert status == 200, answer
        requeued, more = requeued + answer["requeued"], answer.get("more", False)
    return requeued


async def in_queue(subject: Alerts, count: int) -> bool:
    return await subject.depth("alerts.slack") >= count


async def test_a_bulk_retry_lets_other_deliveries_pass(alerts: StartAlerts) -> None:
    subject = await alerts(slack=SHUT)
    await subject.shut()
    await failed(subject.engine, ROWS)
    before, start = rss(subject), time.monotonic()
    call = asyncio.create_task(retry(subject))
    async with asyncio.timeout(600):
        while not call.done():
            await subject.until(await subject.accept("webhook"), "delivered", "webhook", 5)
    every = ROWS + 1  # the one that opened the breaker gets its attempts back, too
    assert call.result() == every
    took = time.monotonic() - start
    async with subject.engine.begin() as tx:  # behind all that was requeued
        await tx.execute(sa.text("UPDATE delivery SET due_at = now() WHERE target = 'webhook'"))
        rows = await tx.execute(
            sa.text("SELECT alert_id, target FROM delivery WHERE target = 'webhook' LIMIT 1")
        )
        await upkeep.requeue(tx, rows.all())
    passing = time.monotonic()

    left = "SELECT count(*) FROM outbox WHERE routing_key = 'alerts.webhook'"
    await eventually(lambda: subject.scalar(left), 60, so=lambda count: count == 0)
    passed_in = time.monotonic() - passing
    await eventually(lambda: in_queue(subject, every), 600)
    print(  # noqa: T201
        f"{ROWS} rows: call {took:.1f} s, another's message {passed_in:.2f} s, "
        f"all in the queue {time.monotonic() - start:.1f} s, RSS {before} -> {rss(subject)} MiB"
    )
    assert rss(subject) < before + 30
    assert await retry(subject) == 0
    assert await subject.depth("alerts.slack") <= every + 1  # the duplicate of that first message
    terms = await subject.check()
    assert (terms["pending"], terms["failed"]) == (every, 0)


@pytest.mark.parametrize(("path", "done"), [("retry", "requeued"), ("discard", "discarded")])
async def test_a_long_call_responds_in_time_and_the_next_continues(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, path: str, done: str
) -> None:
    monkeypatch.setattr(dlq, "BULK_SECONDS", 0.1)
    nothing: Any = None
    app = application.create_app(internal_key=None)
    DlqRoutes(engine, nothing, {"slack": nothing}).add_to(app)
    await failed(engine, 3000)
    answers: list[dict[str, Any]] = []
    async with TestClient(TestServer(app)) as client:
        while not answers or answers[-1].get("more"):
            sent = await client.post(
                f"/api/dlq/{path}", json={"target": "slack"}, headers={"X-Caller": "admin"}
            )
            answers.append(await sent.json())
    assert len(answers) > 1
    assert sum(answer[done] for answer in answers) == 3000


async def test_a_call_as_of_a_time_leaves_what_changed_since(engine: AsyncEngine) -> None:
    nothing: Any = None
    app = application.create_app(internal_key=None)
    DlqRoutes(engine, nothing, {"slack": nothing}).add_to(app)
    await failed(engine, 2)
    async with engine.begin() as tx:
        as_of = (await tx.execute(sa.select(sa.func.now()))).scalar_one()
    await failed(engine, 3)
    await execute(engine, "UPDATE delivery SET created_at = now() - interval '1 hour'")
    async with TestClient(TestServer(app)) as client:

        async def done(verb: str, status: str) -> int:
            body = {"status": status, "as_of": as_of.isoformat()}
            sent = await client.post(f"/api/dlq/{verb}", json=body, headers={"X-Caller": "admin"})
            answer = await sent.json()
            return int(answer["requeued" if verb == "retry" else "discarded"])

        assert await done("retry", "failed") == 2  # not the three that failed later
        assert await done("discard", "pending") == 0  # not the two that are so since
        assert await done("discard", "failed") == 0
