"""The operators' API on the ledger, and what it refuses."""

import asyncio
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from tests.integration.alerts.conftest import KEY, Alerts, Consent, StartAlerts
from tests.integration.alerts.test_at_most_once import follow_up
from tests.support.eventually import eventually


async def failed(subject: Alerts, count: int) -> list[str]:
    await subject.sandbox.behave("slack", status=422)
    ids = [await subject.accept() for _ in range(count)]
    for alert_id in ids:
        await subject.until(alert_id, "failed")
    await subject.sandbox.behave("slack", status=200)
    return ids


async def test_a_list_is_paged_without_gaps_or_repeats(alerts: StartAlerts) -> None:
    subject = await alerts()
    ids = await failed(subject, 7)
    seen: list[str] = []
    cursor = ""
    while True:
        _, page = await subject.http("GET", f"/api/dlq/failed?limit=3&target=slack{cursor}")
        assert len(page["items"]) <= 3
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
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


async def test_a_page_of_large_alerts_is_shortened(alerts: StartAlerts) -> None:
    subject = await alerts()
    await subject.failed(250, "x" * 200_000)  # 50 MB
    seen: list[str] = []
    cursor = ""
    while True:
        _, page = await subject.http("GET", f"/api/dlq/failed?limit=1000{cursor}")
        assert len(page["items"]) <= 100
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 250


async def test_a_retry_of_a_target_requeues_its_failures(alerts: StartAlerts) -> None:
    subject = await alerts()
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
async def test_a_call_by_id_waits_for_a_locked_row(
    alerts: StartAlerts, path: str, done: str
) -> None:
    subject = await alerts()
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


async def test_a_retry_reroutes_rows_of_a_removed_target(alerts: StartAlerts) -> None:
    subject = await alerts()
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
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("email", status=550)
    alert_id = await follow_up(subject, target=None)
    await subject.until(alert_id, "failed", "email")
    await subject.execute("DELETE FROM attempt")
    await subject.execute("UPDATE delivery SET target = 'old-mail'")
    await subject.execute("UPDATE ledger_total SET target = 'old-mail'")
    await subject.sandbox.behave("email", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer["requeued"] == 1
    row = await subject.until(alert_id, "delivered", "email")
    assert (row.attempt, row.attempts) == (2, 1)
    assert [one["attempt"] for one in consent.asked] == [1, 2]


async def test_cleaned_up_rows_stay_counted(alerts: StartAlerts) -> None:
    subject = await alerts()
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


async def test_an_unknown_id_is_not_found_yet(alerts: StartAlerts) -> None:
    subject = await alerts()
    sent = {"X-Internal-Key": KEY, "X-Caller": "service"}
    answer = await subject.send("GET", f"/api/alerts/{uuid.uuid4()}", sent)
    assert (answer.status, answer.headers["Retry-After"]) == (404, "1")


async def test_a_bad_call_changes_nothing_and_names_the_fault(alerts: StartAlerts) -> None:
    subject = await alerts()
    (alert_id,) = await failed(subject, 1)
    cases: tuple[tuple[str, str, Any, int], ...] = (
        ("POST", "/api/dlq/retry", {}, 422),
        ("POST", "/api/dlq/retry", {"ids": ["no-uuid"]}, 422),
        ("POST", "/api/dlq/retry", {"ids": [alert_id], "colour": "red"}, 422),
        ("POST", "/api/dlq/retry", {"status": "in_doubt"}, 422),
        ("POST", "/api/dlq/discard", {"reason": "all of them?"}, 422),
        ("POST", "/api/dlq/cleanup", {"older_than_hours": -1}, 422),
        ("POST", "/api/dlq/cleanup", {"older_than_hours": 87601}, 422),
        ("POST", "/api/dlq/resolve", {"id": alert_id, "outcome": "resend", "reason": "x"}, 404),
        ("GET", "/api/dlq/failed?limit=0", None, 422),
        ("GET", "/api/dlq/failed?cursor=nonsense", None, 422),
        ("GET", "/api/dlq/failed?colour=red", None, 422),
        ("GET", "/api/dlq/failed?id=x", None, 422),
        ("GET", "/api/alerts/no-uuid", None, 404),
    )
    for method, path, body, expected in cases:
        status, answer = await subject.http(method, path, body)
        assert (status, answer["status"]) == (expected, expected), (path, body, answer)
    assert (await subject.row(alert_id)).state == "failed"
