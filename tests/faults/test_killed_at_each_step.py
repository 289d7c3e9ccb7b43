"""kill -9 of the alerts service at each step of protocol A (docs/protocols.md).

Each test holds the service at one step, kills it there, looks at what is left, and starts it again.
Then it checks the ledger and Slack's own record against what the client was told. The reconciler
does not run: each step recovers by its own rule. Only two steps allow a second reception.

Some run in make test-all, all in make test-faults. Protocol B's are in tests/integration:
alerts/test_at_most_once.py, consent/test_permits.py.
"""

import asyncio
import uuid

import pytest

from tests.faults.conftest import ACK, Rig
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import DOWN, UP, Proxy

pytestmark = pytest.mark.promise("P1")

MANY = {"concurrency": 64}
"""Enough for a batch, though processes that were just killed count as alive for a while."""


@pytest.mark.parametrize("over_http", [False, pytest.param(True, marks=pytest.mark.faults)])
async def test_rows_written_and_no_work_published_delivers_once(
    rig: Rig, proxy: Proxy, *, over_http: bool
) -> None:
    if over_http:
        await proxy.refuse()
    held = rig.broker.stall_before(UP, b"alert.work")
    alert_id = await rig.accept()
    await held.wait()
    await rig.row(alert_id, state="pending", attempt=0)
    await rig.kill()
    assert await rig.depth("alerts.slack") == 0
    await rig.ends(alert_id, attempt=1, generation=0)


@pytest.mark.faults
async def test_a_row_that_is_not_counted_is_not_there(rig: Rig) -> None:
    async with rig.dies_at("ledger_total"):
        alert_id = await rig.accept()
    assert rig.query("SELECT 1 FROM alerts.delivery WHERE alert_id = %s", alert_id) == []
    await rig.ends(alert_id, attempt=1, generation=0)


async def test_some_work_of_one_write_published_delivers_each_once(rig: Rig) -> None:
    await rig.start(slack={"concurrency": 1})  # a message each
    async with rig.locked("LOCK TABLE alerts.ledger_total IN SHARE MODE"):
        first, second, third = ids = await rig.accept_together(3)
        await rig.waits_for_a_lock()
        held = rig.broker.stall_before(UP, second.encode())
    await held.wait()
    await rig.row(first, state="delivered")
    for alert_id in (second, third):
        await rig.row(alert_id, state="pending", attempt=0)
    await rig.kill()
    await rig.restart()
    await rig.end()
    for alert_id in ids:
        await rig.row(alert_id, attempt=1, generation=0)


async def test_a_batch_published_and_not_acked_delivers_each_once(rig: Rig) -> None:
    await rig.start(slack=MANY)
    held = rig.broker.stall_before(UP, b"alert.works")
    ids = await rig.accept_together(3)
    await held.wait()
    await rig.broker.resume()
    for alert_id in ids:
        await rig.row(alert_id, state="delivered")
    held = rig.broker.stall_before(UP, b"alert.works")
    ids += await rig.accept_together(3)
    await held.wait()
    await rig.kill()
    assert await rig.depth("alerts.slack") == 0
    await rig.restart()
    await rig.end()
    for alert_id in ids:
        await rig.row(alert_id, attempt=1, generation=0)


async def test_of_a_batch_each_row_comes_again_by_its_own_state(rig: Rig) -> None:
    """Killed before the refused row's own message leaves, while another is being sent."""
    await rig.start(slack=MANY)
    await rig.stack.sandbox.behave("slack", status=500, fail_next=1)
    rig.slack.stall(UP)
    ids = await rig.accept_together(3)
    for alert_id in ids:
        await rig.row(alert_id, state="sending", attempt=1)
    held = rig.broker.stall_before(UP, b"alerts.slack.retry")
    await rig.slack.resume()
    await held.wait()
    await rig.kill()
    await rig.until_depth("alerts.slack", 1)
    states = [(await rig.row(alert_id)).state for alert_id in ids]
    assert sorted(states) == ["delivered", "delivered", "pending"]
    await rig.restart()
    await rig.end()
    attempts = [(await rig.row(alert_id, state="delivered")).attempt for alert_id in ids]
    assert sorted(attempts) == [1, 1, 2]


@pytest.mark.faults
async def test_a_batch_without_a_response_delivers_each_again(rig: Rig) -> None:
    await rig.start(slack=MANY)
    rig.slack.stall(DOWN)
    ids = await rig.accept_together(3)
    await rig.reached_slack(3)
    await rig.kill()
    await rig.restart()
    await rig.end(duplicates=3)
    for alert_id in ids:
        await rig.row(alert_id, attempt=2, generation=0)


async def test_work_published_and_not_confirmed_delivers_once(rig: Rig) -> None:
    # The confirm and the work itself come in either order.
    held = rig.broker.stall_before(DOWN, ACK, b"alert.work")
    alert_id = await rig.accept()
    await held.wait()
    await rig.kill()
    await rig.until_depth("alerts.slack", 1)
    await rig.row(alert_id, state="pending", attempt=0)
    await rig.ends(alert_id, attempt=1, generation=0)


async def test_work_published_and_the_intake_not_acked_delivers_once(rig: Rig) -> None:
    for queue in ("alerts.slack.retry", "alerts.slack"):
        await rig.until_depth(queue, 0)  # no ack of a copy that the test before left
    held = rig.broker.stall_before(UP, ACK)
    alert_id = await rig.accept()
    await held.wait()
    await rig.row(alert_id, state="delivered")
    await rig.kill()
    await rig.ends(alert_id, attempt=1)


@pytest.mark.faults
async def test_accepted_over_http_and_not_committed_leaves_nothing(rig: Rig, proxy: Proxy) -> None:
    text, key = f"key {uuid.uuid4()}", str(uuid.uuid4())
    body = {"event_type": "slack_alert", "payload": {"text": text}}
    headers = {"Idempotency-Key": key}
    await proxy.refuse()
    async with rig.dies_at("outbox"):
        asked = asyncio.create_task(
            rig.stack.http("POST", "/api/alerts", body, key="service", headers=headers)
        )
    assert (await asked).status == 503
    assert rig.query("SELECT 1 FROM alerts.delivery WHERE payload ->> 'text' = %s", text) == []
    await rig.restart()
    rig.accepted[await rig.stack.alert(text, key=key)] = text
    await rig.end()


@pytest.mark.faults
async def test_a_claim_that_has_not_committed_counts_no_attempt(rig: Rig) -> None:
    await rig.stack.sandbox.behave("slack", status=500, fail_next=1)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="pending", attempt=1)
    row = "SELECT 1 FROM alerts.delivery WHERE alert_id = %s FOR UPDATE"
    async with rig.locked(row, alert_id):
        await rig.waits_for_a_lock()
        await rig.kill()
    await rig.row(alert_id, state="pending", attempt=1)
    await rig.ends(alert_id, attempt=2, attempts=2)


async def test_claimed_and_not_sent_delivers_once_and_counts_the_attempt(rig: Rig) -> None:
    rig.slack.stall(UP)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="sending", attempt=1)
    await rig.kill()
    assert await rig.stack.sandbox.received("slack", refused_too=True) == []
    await rig.ends(alert_id, attempt=2, attempts=2)  # what kills its process runs out of attempts


@pytest.mark.faults
async def test_a_message_redelivered_during_a_send_outlives_its_worker(rig: Rig) -> None:
    await rig.start(slack={"timeout": 10.0, "retry_delays": [10.5, 12]})
    rig.slack.stall(UP)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="sending", attempt=1)
    said = len(rig.stack.log("alerts"))
    rig.broker.cut()  # the worker goes on; RabbitMQ redelivers the message
    await until(lambda: '"reason": "parked"' in rig.stack.log("alerts")[said:], 10)
    await rig.row(alert_id, state="sending", attempt=1)
    await rig.kill()
    await rig.ends(alert_id, attempt=2, generation=0)


async def test_sent_without_a_response_delivers_again(rig: Rig) -> None:
    alert_id = await rig.in_flight()
    await rig.kill()
    await rig.row(alert_id, state="sending", attempt=1)
    await rig.ends(alert_id, duplicates=1, attempt=2)


@pytest.mark.faults
async def test_answered_and_not_settled_delivers_again(rig: Rig) -> None:
    async with rig.dies_at("attempt"):
        alert_id = await rig.accept()
        await rig.reached_slack(1)
    await rig.row(alert_id, state="sending", attempt=1)
    await rig.ends(alert_id, duplicates=1, attempt=2)


async def test_delivered_and_not_acked_is_not_sent_again(rig: Rig) -> None:
    alert_id = await rig.in_flight()
    rig.broker.stall(UP)
    await rig.slack.resume()
    await rig.row(alert_id, state="delivered")
    await rig.kill()
    await rig.until_depth("alerts.slack", 1)
    await rig.restart()
    await rig.until_depth("alerts.slack", 0)
    await rig.end()
    await rig.row(alert_id, attempt=1)


@pytest.mark.faults
async def test_refused_and_not_rejected_is_tried_when_it_is_due(rig: Rig) -> None:
    await rig.start(slack={"retry_delays": [10, 11]})  # longer than the service takes to start
    await rig.stack.sandbox.behave("slack", status=500, fail_next=1)
    alert_id = await rig.in_flight()
    rig.broker.stall(UP)
    await rig.slack.resume()
    due_at = (await rig.row(alert_id, state="pending", attempt=1)).due_at
    await rig.kill()
    await rig.until_depth("alerts.slack", 1)
    await rig.restart()
    await rig.end()
    assert (await rig.row(alert_id, attempt=2, attempts=2)).last_attempt_at >= due_at


@pytest.mark.faults
async def test_two_copies_of_a_longer_delay_deliver_once(rig: Rig) -> None:
    await rig.stack.sandbox.behave("slack", status=500, fail_next=2)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="pending", attempt=1)
    rig.slack.stall(DOWN)
    await rig.reached_slack(2)
    held = rig.broker.stall_before(UP, ACK)
    await rig.slack.resume()
    await held.wait()
    await rig.row(alert_id, state="pending", attempt=2)
    await rig.until_depth("alerts.slack.retry.4", 1)
    await rig.kill()
    await rig.until_depth("alerts.slack", 1)  # two copies now
    await rig.ends(alert_id, attempt=3, attempts=3)


async def told(rig: Rig, alert_id: str, dead_before: int) -> None:
    """Wait for all that a failure owes: it is escalated once and its ids are in .dead."""
    await rig.row(alert_id, state="failed")
    rig.failed.add(alert_id)
    await rig.until_depth("alerts.slack.dead", dead_before + 1)
    assert len(escalations(rig, alert_id)) == 1
    await rig.end()


def escalations(rig: Rig, alert_id: str) -> list[object]:
    return rig.query("SELECT 1 FROM alerts.escalation WHERE alert_id = %s", alert_id)


@pytest.mark.parametrize("held", ["escalation", pytest.param("outbox", marks=pytest.mark.faults)])
async def test_a_failure_that_has_not_committed_is_escalated_once(rig: Rig, held: str) -> None:
    dead = await rig.depth("alerts.slack.dead") or 0
    await rig.stack.sandbox.behave("slack", status=422)
    alert_id = await rig.in_flight()
    async with rig.locked(f"LOCK TABLE alerts.{held} IN SHARE MODE"):
        await rig.slack.resume()
        await rig.moves_in_a_transaction(alert_id)
        await rig.kill()
    await rig.row(alert_id, state="sending", attempt=1)
    assert escalations(rig, alert_id) == []
    assert await rig.depth("alerts.slack.dead") == dead
    await rig.restart()
    await told(rig, alert_id, dead)


@pytest.mark.faults
async def test_an_unreported_failure_is_reported(rig: Rig) -> None:
    dead = await rig.depth("alerts.slack.dead") or 0
    await rig.stack.sandbox.behave("slack", status=422)
    alert_id = await rig.in_flight()
    rig.broker.stall(UP)
    await rig.slack.resume()
    await rig.row(alert_id, state="failed")
    await rig.kill()
    assert await rig.depth("alerts.slack.dead") == dead
    await rig.restart()
    await told(rig, alert_id, dead)


@pytest.mark.faults
async def test_attempts_exhausted_by_dead_workers_are_escalated_once(rig: Rig) -> None:
    await rig.start(slack={"retry_delays": [2.5]})
    dead = await rig.depth("alerts.slack.dead") or 0
    alert_id = None
    for attempt in (1, 2):
        rig.slack.stall(UP)
        if attempt == 2:
            await rig.restart()  # the lease may be over: it sends at once
        alert_id = alert_id or await rig.accept()
        await rig.row(alert_id, state="sending", attempt=attempt)
        await rig.kill()
    assert alert_id is not None
    async with rig.locked("LOCK TABLE alerts.escalation IN SHARE MODE"):
        await rig.restart()
        await rig.moves_in_a_transaction(alert_id)
        await rig.kill()
    await rig.row(alert_id, state="sending", attempt=2)
    assert escalations(rig, alert_id) == []
    await rig.restart()
    await told(rig, alert_id, dead)
    assert (await rig.row(alert_id)).reason == "exhausted"


async def failed(rig: Rig) -> str:
    await rig.stack.sandbox.behave("slack", status=422, fail_next=1)
    alert_id = await rig.accept()
    await rig.row(alert_id, state="failed")
    return alert_id


async def retried(rig: Rig, alert_id: str) -> None:
    answer = await rig.stack.http("POST", "/api/dlq/retry", {"ids": [alert_id]}, key="admin")
    assert answer.body == {"matched": 1, "requeued": 1, "skipped": 0}


@pytest.mark.faults
async def test_published_from_the_outbox_and_not_deleted_delivers_once(rig: Rig) -> None:
    alert_id = await failed(rig)
    rig.broker.stall(UP)
    await retried(rig, alert_id)
    async with rig.dies_at("outbox"):
        await rig.broker.resume()
        await rig.row(alert_id, state="delivered")
    assert len(rig.query("SELECT 1 FROM alerts.outbox WHERE routing_key = 'alerts.slack'")) == 1
    await rig.ends(alert_id, attempt=2, generation=1)


@pytest.mark.faults
async def test_a_manual_retry_that_has_not_committed_changes_nothing(rig: Rig) -> None:
    alert_id = await failed(rig)
    async with rig.locked("LOCK TABLE alerts.outbox IN SHARE MODE"):
        retrying = asyncio.create_task(
            rig.stack.http("POST", "/api/dlq/retry", {"ids": [alert_id]}, key="admin")
        )
        await rig.moves_in_a_transaction(alert_id)
        await rig.kill()
    assert (await retrying).status >= 500
    await rig.row(alert_id, state="failed", generation=0, attempts=1)
    await rig.restart()
    await retried(rig, alert_id)
    await rig.end()
    await rig.row(alert_id, attempt=2, generation=1, attempts=1)


@pytest.mark.faults
async def test_a_backlog_release_that_has_not_committed_changes_nothing(rig: Rig) -> None:
    await rig.start(
        slack={
            "retry_delays": [8],
            "concurrency": 1,
            "breaker": {"fail_max": 2, "reset_timeout": 1.0},
        }
    )
    await rig.stack.sandbox.behave("slack", status=500, fail_next=2)
    ids = [await rig.accept() for _ in range(2)]
    for alert_id in ids:
        await rig.row(alert_id, state="pending", attempt=1)
    async with rig.holding_work():
        trial = await rig.accept()
        await rig.row(trial, state="delivered")
        await rig.moves_in_a_transaction(ids[0])
        await rig.kill()
    for alert_id in ids:
        await rig.row(alert_id, state="pending", generation=0, attempts=1)
    await rig.restart()
    await rig.end()
    for alert_id in ids:
        await rig.row(alert_id, attempt=2)


async def lose_the_copy(rig: Rig) -> str:
    """Accept an alert, fail its first attempt, and delete its only copy."""
    rig.stack.vhost.set_retry(r"^alerts\.slack\.retry$", 3600)
    await rig.stack.sandbox.behave("slack", status=500, fail_next=1)
    alert_id = await rig.accept()
    await rig.until_depth("alerts.slack.retry", 1)
    rig.stack.vhost.call("DELETE", "queues", "alerts.slack.retry/contents")
    rig.stack.vhost.call("DELETE", "policies", "own")
    await rig.row(alert_id, state="pending", attempt=1)
    return alert_id


@pytest.mark.faults
async def test_a_reconciliation_that_has_not_committed_is_repeated(rig: Rig) -> None:
    alert_id = await lose_the_copy(rig)
    await rig.start(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
    async with rig.locked("LOCK TABLE alerts.outbox IN SHARE MODE"):
        await rig.moves_in_a_transaction(alert_id)
        await rig.kill()
    await rig.row(alert_id, state="pending", generation=0)
    await rig.ends(alert_id, attempt=2)


@pytest.mark.faults
async def test_an_epoch_that_was_not_marked_begins_again(rig: Rig) -> None:
    alert_id = await lose_the_copy(rig)
    rig.query("DELETE FROM alerts.epoch")
    rig.slack.stall(UP)  # or a duplicate may leave: this kill is to hit the reconciler alone
    held = rig.broker.stall_before(UP, b"alerts.epoch.")
    await rig.start(ALERTS_RECONCILE_SECONDS="0.5")
    await held.wait()
    await rig.row(alert_id, generation=1)  # requeued first, or a death here would lose it
    (begun,) = rig.query("SELECT id FROM alerts.epoch")
    await rig.kill()
    await rig.restart()

    async def marked() -> bool:
        (now,) = rig.query("SELECT id FROM alerts.epoch")
        return now != begun and await rig.depth(f"alerts.epoch.{now.id}") == 0

    await eventually(marked, 30)
    await rig.end()
    assert (await rig.row(alert_id)).attempt in {2, 3}
