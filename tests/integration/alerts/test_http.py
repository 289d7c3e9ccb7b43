"""The operators' API on the ledger: lists, retries, replays and bulk calls, and what it refuses.

A bulk call delays nothing else, and a retry gives an alert all its time again, however old it is.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import beside
from libs.common.database import postgres
from libs.common.http import application
from services.alerts.http import dlq
from services.alerts.http.dlq import MOST_REPLAYED, DlqRoutes
from services.alerts.store import incidents
from services.alerts.store.incidents import Way
from services.alerts.store.ledger import transitions, upkeep
from services.alerts.store.ledger.intake import accept
from services.alerts.store.schema import NotOwner, Schema
from tests.conftest import NewDatabase
from tests.integration.alerts.conftest import (
    FAILED,
    KEY,
    Alerts,
    Consent,
    StartAlerts,
    a_row,
    execute,
    write,
)
from tests.integration.alerts.test_at_most_once import follow_up
from tests.integration.alerts.test_case_http import opened, sections
from tests.integration.alerts.test_dead_letters import DEAD, dead_letters, move
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually
from tests.support.memory import resident


async def failed(subject: Alerts, count: int) -> list[str]:
    await subject.sandbox.behave("slack", status=422)
    ids = [await subject.accept() for _ in range(count)]
    for alert_id in ids:
        await subject.until(alert_id, "failed")
    await subject.sandbox.behave("slack", status=200)
    return ids


async def paged(subject: Alerts, query: str, most: int) -> list[str]:
    seen, cursor = list[str](), ""
    while True:
        _, page = await subject.http("GET", f"/api/dlq/failed?{query}{cursor}")
        assert len(page["items"]) <= most
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            return seen
        cursor = f"&cursor={page['next_cursor']}"


async def test_a_list_is_paged_without_gaps_or_repeats(subject: Alerts) -> None:
    ids = await failed(subject, 7)
    seen = await paged(subject, "limit=3&target=slack", most=3)
    assert sorted(seen) == sorted(ids)
    _, nothing = await subject.http("GET", "/api/dlq/failed?target=monday")
    assert nothing == {"items": [], "next_cursor": None}
    _, page = await subject.http("GET", "/api/alerts?state=failed&limit=5", caller="service")
    assert (len(page["items"]), page["total"]) == (5, 7)
    assert not {"payload", "error_message"} & page["items"][0].keys()
    path = f"/api/alerts?state=failed&cursor={page['next_cursor']}"
    _, rest = await subject.http("GET", path, caller="service")
    assert [one["id"] for one in [*page["items"], *rest["items"]]] == seen
    assert rest["total"] is None
    _, one = await subject.http("GET", f"/api/dlq/failed?id={ids[3]}")
    assert [each["id"] for each in one["items"]] == [ids[3]]


async def test_a_page_of_large_alerts_is_shortened(subject: Alerts) -> None:
    await subject.failed(250, "x" * 200_000)  # 50 MB
    seen = await paged(subject, "limit=1000", most=100)
    assert len(seen) == len(set(seen)) == 250


async def test_a_retry_of_a_target_requeues_its_failures(subject: Alerts) -> None:
    ids = await failed(subject, 5)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"target": "slack"})
    assert answer == {"matched": 5, "requeued": 5, "skipped": 0}
    for alert_id in ids:
        await subject.until(alert_id, "delivered")
    _, again = await subject.http("POST", "/api/dlq/retry", {"ids": ids})
    assert again == {"matched": 5, "requeued": 0, "skipped": 5}
    _, stats = await subject.http("GET", "/api/dlq/stats")
    assert {name: stats[name] for name in ("pending", "failed", "delivered")} == {
        "pending": 0,
        "failed": 0,
        "delivered": 5,
    }


@pytest.mark.parametrize(("path", "done"), [("retry", "requeued"), ("discard", "discarded")])
async def test_a_call_by_id_waits_for_a_locked_row(path: str, done: str, subject: Alerts) -> None:
    (alert_id,) = await failed(subject, 1)
    async with subject.engine.begin() as tx:  # as a worker does with the row of its message
        await tx.execute(
            sa.text("SELECT 1 FROM delivery WHERE alert_id = :id FOR UPDATE"),
            {"id": uuid.UUID(alert_id)},
        )
        call = asyncio.create_task(subject.http("POST", f"/api/dlq/{path}", {"ids": [alert_id]}))

        async def waits() -> bool:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return call.done() or bool(await subject.scalar(waiting))

        await eventually(waits)
    _, answer = await call
    assert answer[done] == 1, answer


async def test_a_retry_reroutes_rows_of_a_removed_target(subject: Alerts) -> None:
    ids = [await subject.accept(target="removed-target"), await subject.accept("unknown")]
    for alert_id in ids:
        await subject.until(alert_id, "failed", "unrouted")
    retry = {"target": "unrouted", "status": "failed"}  # the command in the digest
    _, answer = await subject.http("POST", "/api/dlq/retry", retry)
    assert answer == {"matched": 2, "requeued": 1, "skipped": 1}
    await subject.until(ids[0], "delivered")
    row = await subject.row(ids[0], "unrouted")
    assert (row.state, row.reason, row.operator) == ("discarded", "rerouted", "tester")
    await subject.until(ids[1], "failed", "unrouted")
    _, story = await subject.http("GET", f"/api/alerts/{ids[0]}")
    assert story["state"] == "delivered"
    terms = await subject.check()
    assert (terms["ok"], terms["accepted"], terms["discarded"]) == (True, 3, 1)


async def test_a_rerouted_mail_continues_its_attempt_numbers(
    consent: Consent, subject: Alerts
) -> None:
    await subject.sandbox.behave("email", status=550)
    alert_id = await follow_up(subject, target=None)
    await subject.until(alert_id, "failed", "email")
    await subject.execute("DELETE FROM attempt")
    await subject.execute("UPDATE delivery SET target = 'old-mail'")
    await subject.execute("UPDATE ledger_total SET target = 'old-mail'")
    await subject.sandbox.behave("email", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    await subject.until(alert_id, "delivered", "email", attempt=2, attempts=1)
    assert [one["attempt"] for one in consent.asked] == [1, 2]


async def test_cleaned_up_rows_stay_counted(subject: Alerts) -> None:
    ids = await failed(subject, 2)
    await subject.until(await subject.accept(), "delivered")
    body = {"ids": ids[:1], "reason": "test"}
    assert await subject.http("POST", "/api/dlq/discard", body) == (200, {"discarded": 1})
    _, none = await subject.http("POST", "/api/dlq/cleanup", {"older_than_hours": 1})
    assert none == {"deleted": 0}
    before = await subject.check()
    assert before.pop("escalation_unsent_seconds") is not None
    _, cleaned = await subject.http("POST", "/api/dlq/cleanup", {"older_than_hours": 0})
    assert cleaned == {"deleted": 2}
    assert await subject.scalar("SELECT count(*) FROM delivery") == 1
    after = await subject.check()
    assert after == before | {"escalation_unsent_seconds": after["escalation_unsent_seconds"]}
    _, stats = await subject.http("GET", "/api/dlq/stats")
    assert (stats["delivered"], stats["discarded"], stats["failed"]) == (1, 1, 1)


async def test_an_unknown_id_is_not_found_yet(subject: Alerts) -> None:
    sent = {"X-Internal-Key": KEY, "X-Caller": "service"}
    answer = await subject.send("GET", f"/api/alerts/{uuid.uuid4()}", sent)
    assert (answer.status, answer.headers["Retry-After"]) == (404, "1")


ROWS = int(os.environ.get("BULK_ROWS", "3000"))
SHUT = {"breaker": {"fail_max": 1, "reset_timeout": 3600}}


async def failures(engine: AsyncEngine, count: int) -> None:
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


@asynccontextmanager
async def routes(engine: AsyncEngine) -> AsyncIterator[TestClient[Any, Any]]:
    """Serve the routes on a ledger, without the service around them."""
    nothing: Any = None
    app = application.create_app(internal_key=None)
    DlqRoutes(engine, nothing, {"slack": nothing}).add_to(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def in_queue(subject: Alerts, count: int) -> bool:
    return await subject.depth("alerts.slack") >= count


async def test_a_bulk_retry_lets_other_deliveries_pass(alerts: StartAlerts) -> None:
    subject = await alerts(slack=SHUT)
    await subject.shut()
    await failures(subject.engine, ROWS)
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
    monkeypatch.setattr(dlq, "monotonic", count(step=5).__next__)  # a clock of 5 s a look
    await failures(engine, 3000)
    answers: list[dict[str, Any]] = []
    async with routes(engine) as client:
        while not answers or answers[-1].get("more"):
            sent = await client.post(
                f"/api/dlq/{path}", json={"target": "slack"}, headers={"X-Caller": "admin"}
            )
            answers.append(await sent.json())
    assert len(answers) > 1
    assert sum(answer[done] for answer in answers) == 3000


async def test_a_call_as_of_a_time_leaves_what_changed_since(engine: AsyncEngine) -> None:
    await failures(engine, 2)
    async with engine.begin() as tx:
        as_of = (await tx.execute(sa.select(sa.func.now()))).scalar_one()
    await failures(engine, 3)
    await execute(engine, "UPDATE delivery SET created_at = now() - interval '1 hour'")
    async with routes(engine) as client:

        async def done(verb: str, status: str) -> int:
            body = {"status": status, "as_of": as_of.isoformat()}
            sent = await client.post(f"/api/dlq/{verb}", json=body, headers={"X-Caller": "admin"})
            answer = await sent.json()
            return int(answer["requeued" if verb == "retry" else "discarded"])

        assert await done("retry", "failed") == 2  # not the three that failed later
        assert await done("discard", "pending") == 0  # not the two that are so since
        assert await done("discard", "failed") == 0


PATIENT: dict[str, Any] = {"retry_delays": [60, 60]}
FAILED_ONES = {"status": "failed"}


async def reconciling(alerts: StartAlerts, **options: Any) -> Alerts:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.3", **options)
    await subject.until_epoch()
    return subject


async def change(subject: Alerts, alert_id: str, values: str) -> None:
    await subject.execute(
        f"UPDATE delivery SET {values} WHERE alert_id = :id", id=uuid.UUID(alert_id)
    )


async def age(subject: Alerts, alert_id: str) -> None:
    old = "now() - interval '4 days'"
    await change(subject, alert_id, f"accepted_at = {old}, created_at = {old}")


async def reconciled(subject: Alerts, target: str) -> None:
    """Wait until the reconciler has looked at all of the target's rows: it ends another one."""
    (alert_id,) = await write(
        subject.engine,
        target=f"'{target}'",
        created_at="now() - interval '4 days'",
        due_at="now() + interval '1 day'",
    )
    assert (await subject.until(str(alert_id), "failed", target)).reason == "expired"


async def tried_and_waiting(
    subject: Alerts, alert_id: str, target: str, attempt: int, reason: str
) -> None:
    row = await subject.until(alert_id, "pending", target, attempt=attempt, reason=reason)
    assert row.finished_at is None


async def by_call(subject: Alerts) -> None:
    _, answer = await subject.http("POST", "/api/dlq/retry", FAILED_ONES)
    assert answer["requeued"] == 1


async def by_a_move(subject: Alerts) -> None:
    await eventually(lambda: dead_letters(subject, DEAD))
    await move(subject, DEAD)
    await eventually(
        lambda: subject.scalar("SELECT count(*) FROM delivery WHERE state <> 'failed'")
    )


@pytest.mark.parametrize("requeue", [by_call, by_a_move])
async def test_an_old_alert_survives_a_failure_and_a_reconciliation(
    alerts: StartAlerts, requeue: Callable[[Alerts], Awaitable[None]]
) -> None:
    subject = await reconciling(alerts, slack=PATIENT)
    await subject.sandbox.behave("slack", status=422)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed")
    await age(subject, alert_id)
    await subject.sandbox.behave("slack", status=500)

    await requeue(subject)
    await tried_and_waiting(subject, alert_id, "slack", 2, "server_error")
    await reconciled(subject, "slack")
    assert (await subject.row(alert_id)).state == "pending"
    assert (
        await subject.scalar("SELECT count(*) FROM escalation") == 2
    )  # the one before, and the reconciler's

    await subject.sandbox.behave("slack", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    await subject.until(alert_id, "delivered")


async def test_a_requeued_alert_expires_like_any_other(alerts: StartAlerts) -> None:
    subject = await reconciling(alerts, slack=PATIENT)
    await subject.sandbox.behave("slack", status=422)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed")
    await subject.sandbox.behave("slack", status=500)
    await by_call(subject)
    await tried_and_waiting(subject, alert_id, "slack", 2, "server_error")
    old = "created_at = now() - interval '9 days', requeued_at = now() - interval"
    await change(subject, alert_id, f"{old} '71 hours'")
    await reconciled(subject, "slack")
    assert (await subject.row(alert_id)).state == "pending"
    await change(subject, alert_id, f"{old} '73 hours'")
    assert (await subject.until(alert_id, "failed")).reason == "expired"


@pytest.mark.parametrize("mail_is_refused", [True, False])  # or consent does not reply
async def test_an_old_mail_that_is_resent_waits_like_a_new_one(
    alerts: StartAlerts, consent: Consent, *, mail_is_refused: bool
) -> None:
    subject = await reconciling(alerts, email=PATIENT)
    await subject.sandbox.behave("email", close=True)
    alert_id = await follow_up(subject)
    await subject.until(alert_id, "in_doubt", "email")
    await age(subject, alert_id)
    await subject.sandbox.behave("email", status=451 if mail_is_refused else 200)
    consent.answer = "granted" if mail_is_refused else None

    body = {"id": alert_id, "outcome": "resend", "reason": "the recipient has nothing"}
    assert (await subject.http("POST", "/api/dlq/resolve", body))[0] == 200
    reason = "server_error" if mail_is_refused else "no_permit"
    await tried_and_waiting(subject, alert_id, "email", 2, reason)
    await reconciled(subject, "email")
    assert (await subject.row(alert_id, "email")).state == "pending"

    consent.answer = "granted"
    await subject.sandbox.behave("email", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    await subject.until(alert_id, "delivered", "email")


async def test_an_old_alert_starts_anew_at_its_fallback(engine: AsyncEngine) -> None:
    row = a_row(severity="critical", accepted_at=datetime.now(UTC) - timedelta(days=4))
    async with engine.begin() as tx:
        await accept(tx, [row], 0)
        await tx.execute(sa.text("UPDATE delivery SET created_at = accepted_at"))
    async with engine.begin() as tx:
        way = Way("slack", "email", after=600)
        await incidents.fall_back(tx, way, [row.alert_id], same_channel=False)
    async with engine.begin() as tx:
        assert await upkeep.run(tx, "too_old", target="email", seconds=60, limit=10) == []
        (job,) = await transitions.claim(tx, "email", [(row.alert_id, 0)], lease=60, retries=5)
    assert job is not None
    assert job.age < 60


HOUR = timedelta(hours=1)


async def call(subject: Alerts, begin: datetime, end: datetime | None = None, **more: Any) -> Any:
    times = {"since": begin.isoformat(), "until": (end or datetime.now(UTC)).isoformat()}
    body = {"target": "webhook", **times, **more}
    return await subject.http("POST", "/api/alerts/replay", body, caller="admin")


async def received(subject: Alerts, count: int) -> list[str]:
    found = await eventually(
        partial(subject.sandbox.received, "webhook"), 20, so=lambda got: len(got) >= count
    )
    return [str(each["body"]["id"]) for each in found]


@pytest.mark.promise("P1")
async def test_what_was_delivered_in_a_time_is_sent_again_once_and_recorded(
    subject: Alerts,
) -> None:
    begin = datetime.now(UTC)
    ids = [await subject.accept("webhook") for _ in range(3)]
    other = await subject.accept("slack_alert")
    await subject.until(other, "delivered")
    for each in ids:
        await subject.until(each, "delivered", "webhook")
    end = datetime.now(UTC)
    assert await call(subject, begin, end, dry_run=True) == (200, {"matched": 3, "requeued": 0})
    assert len(await received(subject, 3)) == 3
    assert await call(subject, begin, end) == (200, {"matched": 3, "requeued": 3})
    assert sorted(await received(subject, 6)) == sorted(ids * 2)
    # What it sent again was delivered later: the same call finds none of it.
    assert (await call(subject, begin, end))[1]["requeued"] == 0
    assert (await call(subject, begin, end, event_type="slack_alert"))[1]["matched"] == 0
    for each in ids:
        row = await subject.row(each, "webhook")
        assert (row.generation, row.operator) == (1, "tester")
    assert len(await subject.sandbox.received("slack")) == 1
    check = await subject.check()
    assert (check["ok"], check["accepted"], check["delivered"]) == (True, 4, 4)


@pytest.mark.promise("P1")
async def test_a_replay_of_too_many_is_refused(subject: Alerts) -> None:
    now = datetime.now(UTC)
    values = "gen_random_uuid(), 'webhook', 'webhook', 'info', 's', '{}', now(), 'delivered', 'ok'"
    await subject.execute(
        "INSERT INTO delivery (alert_id, target, event_type, severity, source, payload,"
        " accepted_at, state, reason, attempt, attempts, finished_at)"
        f" SELECT {values}, 1, 1, now() - interval '1 m' FROM generate_series(0, {MOST_REPLAYED})"
    )
    status, problem = await call(subject, now - HOUR)
    assert (status, problem["errors"][0]["field"]) == (422, "since")


TABLES = [
    "case_answer",
    "heartbeat_watch",
    "silence",
    "oncall_override",
    "quiet_hours",
    "subscription",
]


@pytest.mark.promise("P9", "P15")
async def test_what_makes_no_sense_is_refused_with_its_place(alerts: StartAlerts) -> None:
    named = sections(within="1h")
    named["answers"]["heartbeat.missed"] = named["answers"]["lead.qualified"]
    subject = await alerts(sections=named, routes={"heartbeat.missed": ["slack"]})
    now = datetime.now(UTC)
    values = {
        "$case": str(await opened(subject)),
        "$past": (now - timedelta(hours=1)).isoformat(),
        "$now": now.isoformat(),
        "$soon": (now + timedelta(hours=2)).isoformat(),
        "$long": "x" * 501,
        '"$none"': "null",
    }
    text = json.dumps(beside.toml(__file__, "bad_input.toml"))
    for name, value in values.items():
        text = text.replace(name, value)
    said = json.loads(text)
    for ask, body, fields, *status in said["refused"]:
        method, path = ask.split(" ")
        whole = said["whole"].get(path, {}) | body if method != "GET" else None
        caller = "service" if path.startswith("/api/cases") else "admin"
        sent = await subject.http(method, path, whole, caller, Idempotency_Key=str(uuid4()))
        found = [each["field"] for each in sent[1].get("errors", ())]
        assert sent[0] == (status or [422])[0], (ask, body, sent)
        assert fields in (found, ["*"]), (ask, body, sent)
    counts = [await subject.scalar(f"SELECT count(*) FROM {table}") for table in TABLES]
    assert dict(zip(TABLES, counts, strict=True)) == dict.fromkeys(TABLES, 0)


INDEXES = ["dead_letter_queue_created", "dead_letter_queue_status_created"]


@pytest.fixture
async def empty(database: NewDatabase) -> DatabaseUrl:
    return await database("alerts", migrated=False)


@pytest.fixture
async def schema(empty: DatabaseUrl) -> AsyncIterator[Schema]:
    async with postgres.connect(empty, application_name="test") as engine:
        yield Schema(engine, empty, empty.owner_url)


async def test_a_missing_schema_is_created_once(schema: Schema) -> None:
    before = await schema.status()
    assert (before.current, before.tables, before.indexes) == (False, [], [])
    found, made = await schema.create()
    assert made
    assert found.current
    assert {"dead_letter_queue", "delivery"} <= set(found.tables)
    assert found.indexes == INDEXES
    assert await schema.create() == (found, False)


async def test_nothing_is_created_without_the_owners_access(empty: DatabaseUrl) -> None:
    async with postgres.connect(empty, application_name="test") as engine:
        schema = Schema(engine, empty, None)
        with pytest.raises(NotOwner):
            await schema.create()
        assert (await schema.status()).tables == []


async def test_the_service_shows_the_schema(subject: Alerts) -> None:
    status, body = await subject.http("POST", "/api/migration/create-dead-letter-queue")
    assert (status, body["success"], body["indexes"]) == (200, True, INDEXES)
    assert "dead_letter_queue" in body["tables"]
    status, state = await subject.http("GET", "/api/migration/dlq-status")
    assert (status, state["exists"], state["up_to_date"]) == (200, True, True)
