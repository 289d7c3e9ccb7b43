"""Protocol A on real servers: every alert ends, whatever its target or its worker does."""

import asyncio
import uuid
from typing import Any

import sqlalchemy as sa

from libs.common.broker import Message
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted
from tests.support.eventually import eventually
from tests.support.servers import frozen


async def texts(subject: Alerts, target: str = "slack") -> list[str]:
    return [str(one["body"]) for one in await subject.sandbox.received(target)]


async def test_an_accepted_alert_arrives_and_its_story_can_be_read(alerts: StartAlerts) -> None:
    subject = await alerts()
    alert_id = await subject.accept(payload={"text": "Zażółć gęślą jaźń"})
    row = await subject.until(alert_id, "delivered")
    assert (row.attempt, row.turn, row.request_id) == (1, 0, "request-1")
    (got,) = await subject.sandbox.received("slack")
    assert "Zażółć gęślą jaźń" in str(got["body"])
    status, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    assert (status, story["state"], story["attempts"]) == (200, "delivered", 1)
    (delivery,) = story["deliveries"]
    (attempt,) = delivery["history"]
    assert (attempt["outcome"], attempt["status"], attempt["excerpt"]) == ("delivered", 200, "ok")
    assert await subject.check() | {"delivered": 1, "ok": True} == await subject.check()


async def test_a_lead_reaches_slack_and_monday_as_two_deliveries(alerts: StartAlerts) -> None:
    subject = await alerts()
    lead_id = await subject.accept("lead.qualified", payload={"text": "lead"})
    for target in ("slack", "monday"):
        await subject.until(lead_id, "delivered", target)
        assert len(await subject.sandbox.received(target)) == 1


async def test_each_channel_speaks_its_providers_protocol(alerts: StartAlerts) -> None:
    subject = await alerts()
    ids = {name: await subject.accept(name) for name in ("email", "sms", "webhook")}
    for target, alert_id in ids.items():
        await subject.until(alert_id, "delivered", target)
    (mail,) = await subject.sandbox.mails()
    assert [to["Address"] for to in mail["To"]] == ["staff@example.com"]


async def test_a_refused_attempt_waits_in_retry_and_the_next_one_delivers(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=500, fail_next=1)
    alert_id = await subject.accept()
    row = await subject.until(alert_id, "delivered")
    assert (row.attempt, row.spent) == (2, 2)
    assert row.error.startswith("server_error 500")
    _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    first, second = story["deliveries"][0]["history"]
    assert (first["outcome"], second["outcome"]) == ("failed", "delivered")
    assert first["at"] < second["at"]
    assert len(await texts(subject)) == 1


async def test_an_alert_whose_tries_are_used_up_fails_is_escalated_and_lies_in_dead(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    row = await subject.until(alert_id, "failed")
    assert (row.reason, row.attempt) == ("exhausted", 3)
    assert await subject.scalar("SELECT reason FROM escalation") == "exhausted"

    async def dead() -> bool:
        return await subject.depth("alerts.slack.dead") == 1

    await eventually(dead)
    _, failed = await subject.http("GET", "/api/dlq/failed")
    assert [(one["id"], one["retry_count"]) for one in failed["items"]] == [(alert_id, 2)]
    status = "SELECT status FROM dead_letter_queue"
    assert await subject.scalar(status) == "failed"

    await subject.sandbox.behave("slack", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer == {"matched": 1, "requeued": 1, "skipped": 0}
    row = await subject.until(alert_id, "delivered")
    assert (row.turn, row.attempt, row.spent, row.operator) == (1, 4, 1, "tester")
    assert (await subject.check())["ok"]


async def test_what_will_never_work_fails_at_once_with_the_targets_own_words(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=410)
    alert_id = await subject.accept()
    row = await subject.until(alert_id, "failed")
    assert (row.reason, row.attempt) == ("gone", 1)
    assert "410" in row.error


async def test_a_429_spends_no_attempt_and_holds_the_target_back(alerts: StartAlerts) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=429, retry_after=1, fail_next=1)
    alert_id = await subject.accept()
    row = await subject.until(alert_id, "delivered")
    assert (row.attempt, row.spent) == (2, 1)


async def test_twins_of_a_work_message_deliver_once(alerts: StartAlerts) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", delay_seconds=0.3)
    alert_id = await subject.accept()
    body = {"alert_id": alert_id, "target": "slack", "turn": 0}
    for _ in range(20):
        twin = Message(str(uuid.uuid4()), "alert.work", body)
        await subject.gateway.publish("alerts", "alerts.slack", twin)
    await subject.until(alert_id, "delivered")

    async def gone() -> bool:
        queues = ("alerts.slack", "alerts.slack.retry", "alerts.slack.dead")
        return [await subject.depth(queue) for queue in queues] == [0, 0, 0]

    await eventually(gone)
    assert len(await texts(subject)) == 1
    assert (await subject.row(alert_id)).attempt == 1


async def test_the_same_alert_published_often_is_one_row_and_one_delivery(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    alert_id = str(uuid.uuid4())
    await asyncio.gather(*(subject.accept(alert_id=alert_id) for _ in range(20)))
    await subject.until(alert_id, "delivered")
    assert len(await texts(subject)) == 1
    assert (await subject.check())["accepted"] == 1


async def test_so_many_alerts_and_no_more_are_in_memory_before_they_are_in_the_ledger(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    with frozen(subject.process.pid):  # RabbitMQ sends what the process may hold all the same
        ids = [await subject.accept() for _ in range(60)]

        async def left_in_the_queue() -> bool:
            return await subject.depth("alerts.intake") == 60 - 50  # 12.5 MiB, each of 256 KiB

        await eventually(left_in_the_queue)
    for alert_id in ids:
        await subject.until(alert_id, "delivered")


async def test_an_alert_with_no_target_left_is_failed_and_escalated_not_dropped(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    alert_id = await subject.accept("slack_alert", target="removed-target")
    row = await subject.until(alert_id, "failed", "unrouted")
    assert row.reason == "unrouted"
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1


async def test_what_waits_for_a_target_that_left_the_file_fails_and_is_escalated(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(ALERTS_SWEEP_SECONDS="0.5")
    hours_due = {str(uuid.uuid4()): hours for hours in (2, 0)}
    async with subject.engine.begin() as tx:
        for alert_id, hours in hours_due.items():
            await tx.execute(
                sa.text("""
                    INSERT INTO delivery (alert_id, target, event_type, severity, source, payload,
                        accepted_at, state, due_at)
                    VALUES (:id, 'left', 'slack_alert', 'info', 'test', '{}', now(), 'pending',
                        now() - make_interval(hours => :hours))
                """),
                {"id": uuid.UUID(alert_id), "hours": hours},
            )
        await tx.execute(sa.text("INSERT INTO ledger_total (target, accepted) VALUES ('left', 2)"))
    old, new = hours_due
    assert (await subject.until(old, "failed", "left")).reason == "unrouted"
    assert await subject.scalar("SELECT array_agg(alert_id) FROM escalation") == [uuid.UUID(old)]
    assert await subject.scalar("SELECT count(*) FROM outbox") == 0  # there is no such queue
    # It may be a newer file's, of a replica beside this one.
    await subject.until(new, "pending", "left")
    assert (await subject.check())["ok"]


async def test_a_batch_with_one_row_that_cannot_be_written_writes_the_others(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    bad: Any = {"text": "a\u0000b"}  # PostgreSQL's jsonb has no NUL
    ids = [await subject.accept() for _ in range(20)]
    await subject.accept(payload=bad)
    ids += [await subject.accept() for _ in range(20)]
    for alert_id in ids:
        await subject.until(alert_id, "delivered")


async def test_without_the_broker_the_same_ids_are_taken_over_http_and_delivered_later(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    bodies = [accepted("slack_alert") for _ in range(3)]
    for _ in range(2):  # the gateway may repeat what it does not know to be taken
        status, _ = await subject.http("POST", "/internal/alerts", {"alerts": bodies})
        assert status == 202
    for body in bodies:
        await subject.until(str(body["id"]), "delivered")
    assert len(await texts(subject)) == 3
    assert (await subject.check())["accepted"] == 3


async def test_a_worker_killed_between_send_and_record_delivers_again_and_loses_nothing(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack={"timeout": 3.0, "retry_delays": [3.5, 3.5]})
    await subject.sandbox.behave("slack", delay_seconds=2.5, fail_next=None)
    alert_id = await subject.accept()
    await subject.until(alert_id, "sending")
    await asyncio.sleep(0.3)  # the request is at the target by now; a wrong guess only sends once
    subject.kill9()
    await subject.sandbox.behave("slack", status=200)
    await subject.start()
    row = await subject.until(alert_id, "delivered")
    assert (row.attempt, row.spent) == (2, 2)
    assert "died" in row.error
    assert len(await texts(subject)) == 2  # at least once: the one place where a twin may arise
    assert (await subject.check())["ok"]


async def test_a_message_that_kills_its_worker_each_time_ends_failed(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"timeout": 1.0, "retry_delays": [1.5]})
    await subject.sandbox.behave("slack", hang=True)
    alert_id = await subject.accept()
    for number in (1, 2):

        async def claimed(number: int = number) -> bool:
            row = await subject.row(alert_id)
            return row is not None and (row.state, row.attempt) == ("sending", number)

        await eventually(claimed, 20)
        subject.kill9()
        await subject.start()
    row = await subject.until(alert_id, "failed")
    assert (row.reason, row.attempt) == ("exhausted", 2)
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1


async def test_lost_copies_are_swept_and_delivered_under_the_next_turn(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(ALERTS_SWEEP_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
    await subject.until(await subject.accept(), "delivered")  # the first sweep has marked its epoch

    async def marked() -> bool:
        return bool(await subject.scalar("SELECT count(*) FROM epoch"))

    await eventually(marked)
    subject.vhost.set_retry(r"^alerts\.slack\.retry$", 3600)  # the copy stays where it is deleted
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()

    async def waits() -> bool:
        return await subject.depth("alerts.slack.retry") == 1

    await eventually(waits)
    subject.vhost.call("DELETE", "queues", "alerts.slack.retry/contents")
    await subject.sandbox.behave("slack", status=200)
    assert (await subject.until(alert_id, "delivered")).turn >= 1


async def test_a_row_discarded_while_it_waits_is_not_sent(alerts: StartAlerts) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()

    async def waits() -> bool:
        row = await subject.row(alert_id)
        return row is not None and row.state == "pending" and row.attempt == 1

    await eventually(waits)
    body = {"ids": [alert_id], "reason": "no longer of interest"}
    assert await subject.http("POST", "/api/dlq/discard", body) == (200, {"discarded": 1})
    await subject.sandbox.behave("slack", status=200)

    async def gone() -> bool:
        return await subject.depth("alerts.slack.retry") == 0

    await eventually(gone)
    row = await subject.row(alert_id)
    assert (row.state, row.reason, row.error) == ("discarded", "by_hand", "no longer of interest")
    assert await texts(subject) == []


async def test_of_alerts_accepted_together_each_is_taken_as_if_alone(alerts: StartAlerts) -> None:
    subject = await alerts()
    good = [accepted("slack_alert") for _ in range(3)]
    together = {"alerts": [good[0], {"id": "none"}, *good[1:], {}, good[0]]}
    await subject.gateway.publish(
        "alerts", "alerts.intake", Message(good[0]["id"], "alerts.accepted", together)
    )
    for each in good:
        await subject.until(each["id"], "delivered")

    async def told() -> bool:
        return bool((await subject.check())["unread"] == 2)

    await eventually(told)
    assert sorted(await texts(subject)) == sorted(str(each["payload"]) for each in good)


async def test_an_accepted_message_that_no_row_can_be_made_of_is_told_by_the_check(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    assert (await subject.check())["ok"]
    broken = Message(str(uuid.uuid4()), "alert.accepted", {"id": "none"})
    await subject.gateway.publish("alerts", "alerts.intake", broken)

    async def told() -> bool:
        terms = await subject.check()
        return terms["unread"] == 1 and not terms["ok"]

    await eventually(told)
