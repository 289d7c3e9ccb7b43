"""Protocol A on real servers: every alert ends, whatever its target or its worker does."""

import json
import uuid
from typing import Any

import pytest

from libs.common.http import application
from libs.common.messaging.broker import Message
from tests.integration.alerts.conftest import Alerts, StartAlerts, accepted, write
from tests.support.brokers import Vhost, leaderless
from tests.support.eventually import eventually
from tests.support.servers import frozen

pytestmark = pytest.mark.promise("P1")


async def texts(subject: Alerts, target: str = "slack") -> list[str]:
    return [str(one["body"]) for one in await subject.sandbox.received(target)]


@pytest.mark.quick
async def test_an_accepted_alert_is_delivered_and_its_history_shown(subject: Alerts) -> None:
    alert_id = await subject.accept(payload={"text": "Zażółć gęślą jaźń"})
    await subject.until(alert_id, "delivered", attempt=1, generation=0, request_id="request-1")
    (got,) = await subject.sandbox.received("slack")
    assert "Zażółć gęślą jaźń" in str(got["body"])
    status, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    assert (status, story["state"], story["attempts"]) == (200, "delivered", 1)
    (delivery,) = story["deliveries"]
    (attempt,) = delivery["history"]
    assert (attempt["outcome"], attempt["status"], attempt["excerpt"]) == ("delivered", 200, "ok")
    assert await subject.check() | {"delivered": 1, "ok": True} == await subject.check()


def lead(lead_id: str, at: str, **known: Any) -> dict[str, Any]:
    return {"lead_id": lead_id, "at": at, "name": "Anna", "summary": "remont kuchni", **known}


async def test_a_lead_update_changes_its_item_in_monday(alerts: StartAlerts) -> None:
    template = "monday-lead.j2"
    subject = await alerts(
        monday={"templates": {"lead.qualified": template, "lead.updated": template}}
    )
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    steps = (
        ("lead.qualified", lead(one, "2026-11-26T10:00:00+00:00")),
        ("lead.qualified", lead(other, "2026-11-26T10:00:01+00:00")),
        ("lead.updated", lead(one, "2026-11-26T10:02:00+00:00", email="anna@example.com")),
        ("lead.updated", lead(one, "2026-11-26T10:01:00+00:00", email="old@example.com")),  # late
        ("lead.qualified", lead(one, "2026-11-26T10:00:00+00:00")),  # its response was lost
    )
    for event_type, payload in steps:
        alert_id = await subject.accept(event_type, payload=payload)
        await subject.until(alert_id, "delivered", "monday")

    bodies = [each["body"] for each in await subject.sandbox.received("monday")]
    assert ["create_item" in body["query"] for body in bodies] == [True, True, False]
    assert "anna@example.com" in bodies[2]["variables"]["values"]


async def test_each_channel_speaks_its_providers_protocol(subject: Alerts) -> None:
    ids = {name: await subject.accept(name) for name in ("email", "sms", "webhook")}
    for target, alert_id in ids.items():
        await subject.until(alert_id, "delivered", target)
    (mail,) = await subject.sandbox.mails()
    assert [to["Address"] for to in mail["To"]] == ["staff@example.com"]


@pytest.mark.quick
async def test_an_exhausted_alert_fails_with_an_escalation_and_a_dead_letter(
    subject: Alerts,
) -> None:
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    await subject.until(alert_id, "failed", reason="exhausted", attempt=3)
    assert await subject.scalar("SELECT reason FROM escalation") == "exhausted"
    await eventually(lambda: subject.depth("alerts.slack.dead"), so=lambda found: found == 1)
    _, failed = await subject.http("GET", "/api/dlq/failed")
    assert [(one["id"], one["retry_count"]) for one in failed["items"]] == [(alert_id, 2)]
    status = "SELECT status FROM dead_letter_queue"
    assert await subject.scalar(status) == "failed"

    await subject.sandbox.behave("slack", status=200)
    _, answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer == {"matched": 1, "requeued": 1, "skipped": 0}
    await subject.until(
        alert_id, "delivered", generation=1, attempt=4, attempts=1, operator="tester"
    )
    assert (await subject.check())["ok"]


async def test_intake_holds_no_more_alerts_in_memory_than_its_prefetch(subject: Alerts) -> None:
    with frozen(subject.process.pid):  # RabbitMQ still sends up to the prefetch
        ids = [await subject.accept() for _ in range(60)]
        await eventually(lambda: subject.depth("alerts.intake"), so=lambda found: found == 60 - 50)
    for alert_id in ids:
        await subject.until(alert_id, "delivered")


async def test_an_alert_without_a_route_fails_and_is_escalated(subject: Alerts) -> None:
    alert_id = await subject.accept("slack_alert", target="removed-target")
    await subject.until(alert_id, "failed", "unrouted", reason="unrouted")
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1


async def test_rows_of_a_removed_target_fail_and_are_escalated(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.5")
    (old,), (new,) = [
        await write(subject.engine, target="'left'", due_at=f"now() - interval '{hours} hours'")
        for hours in (2, 0)
    ]
    assert (await subject.until(str(old), "failed", "left")).reason == "unrouted"
    assert await subject.scalar("SELECT array_agg(alert_id) FROM escalation") == [old]
    queued = "SELECT count(*) FROM outbox WHERE type = 'alert.work'"
    assert await subject.scalar(queued) == 0  # `left` has no queue
    # Not at once: the target may be in the newer file of another replica.
    await subject.until(str(new), "pending", "left")
    assert (await subject.check())["ok"]


async def test_a_bad_row_does_not_stop_the_others_of_its_batch(subject: Alerts) -> None:
    bad: Any = {"text": "a\u0000b"}  # PostgreSQL's jsonb has no NUL
    ids = [await subject.accept() for _ in range(20)]
    await subject.accept(payload=bad)
    ids += [await subject.accept() for _ in range(20)]
    for alert_id in ids:
        await subject.until(alert_id, "delivered")


@pytest.mark.quick
async def test_alerts_accepted_over_http_without_the_broker_are_delivered_later(
    subject: Alerts,
) -> None:
    bodies = [accepted("slack_alert") for _ in range(3)]
    for _ in range(2):  # the gateway may repeat a call whose response it did not get
        status, _ = await subject.http("POST", "/internal/alerts", {"alerts": bodies})
        assert status == 202
    for body in bodies:
        await subject.until(str(body["id"]), "delivered")
    assert len(await texts(subject)) == 3
    assert (await subject.check())["accepted"] == 3


@pytest.mark.quick
async def test_lost_messages_are_requeued_in_the_next_generation(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
    await subject.until(await subject.accept(), "delivered")
    await subject.until_epoch()
    subject.vhost.set_retry(
        r"^alerts\.slack\.retry$", 3600
    )  # the message stays where it is deleted
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    await eventually(lambda: subject.depth("alerts.slack.retry"), so=lambda found: found == 1)
    subject.vhost.call("DELETE", "queues", "alerts.slack.retry/contents")
    await subject.sandbox.behave("slack", status=200)
    assert (await subject.until(alert_id, "delivered")).generation >= 1


async def test_a_row_discarded_while_pending_is_not_sent(subject: Alerts) -> None:
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    await subject.until(alert_id, "pending", attempt=1)
    body = {"ids": [alert_id], "reason": "no longer of interest"}
    assert await subject.http("POST", "/api/dlq/discard", body) == (200, {"discarded": 1})
    await subject.sandbox.behave("slack", status=200)
    await eventually(lambda: subject.depth("alerts.slack.retry"), so=lambda found: found == 0)
    row = await subject.row(alert_id)
    assert (row.state, row.reason, row.error) == ("discarded", "manual", "no longer of interest")
    assert await texts(subject) == []


async def test_alerts_accepted_in_a_batch_are_independent(subject: Alerts) -> None:
    good = [accepted("slack_alert") for _ in range(3)]
    together = {"alerts": [good[0], {"id": "none"}, *good[1:], {}, good[0]]}
    await subject.gateway.publish(
        "alerts", "alerts.intake", Message(good[0]["id"], "alerts.accepted", together)
    )
    for each in good:
        await subject.until(each["id"], "delivered")

    await eventually(subject.check, so=lambda found: found["unread"] == 2)
    assert sorted(await texts(subject)) == sorted(str(each["payload"]) for each in good)


@pytest.mark.quick
@pytest.mark.control("P1")
async def test_an_unread_message_fails_the_ledger_check(subject: Alerts) -> None:
    assert (await subject.check())["ok"]
    broken = Message(str(uuid.uuid4()), "alert.accepted", {"id": "none"})
    await subject.gateway.publish("alerts", "alerts.intake", broken)
    await eventually(subject.check, so=lambda terms: terms["unread"] == 1 and not terms["ok"])


PUBLISHED_AGAIN = '"event": "reconcile.requeued"'


async def test_rows_whose_messages_may_be_queued_are_not_requeued(
    alerts: StartAlerts, vhost: Vhost
) -> None:
    vhost.set_retry(r"^alerts\.slack\.retry$", 600)
    subject = await alerts(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
    await subject.sandbox.behave("slack", status=500)
    await subject.accept()
    await eventually(lambda: subject.depth("alerts.slack.retry"), so=lambda found: found > 0)
    with leaderless(vhost, "alerts.slack.retry"):
        before = subject.log.read_text().count(PUBLISHED_AGAIN)  # perhaps when the epoch began
        overdue = "SELECT count(*) FROM delivery WHERE due_at < now() - interval '4 seconds'"
        await eventually(lambda: subject.scalar(overdue))
    assert subject.log.read_text().count(PUBLISHED_AGAIN) == before


@pytest.mark.parametrize("levels", [29, 30, 31, 32])
async def test_every_payload_the_gateway_accepts_is_accepted_on_both_ways(
    alerts: StartAlerts, levels: int
) -> None:
    nested: Any = "end"
    for _ in range(levels):
        nested = {"a": nested}
    payload = {"text": f"deep {levels}", **nested}
    asked = json.dumps({"event_type": "slack_alert", "payload": payload}).encode()
    if levels > 31:
        with pytest.raises(application.Problem):
            application.check_json(asked)  # as the gateway does
        return
    application.check_json(asked)
    subject = await alerts()
    body = accepted("slack_alert", payload=payload)
    status, _ = await subject.http("POST", "/internal/alerts", {"alerts": [body]})
    assert status == 202
    await subject.until(body["id"], "delivered")
    await subject.until(await subject.accept(payload=payload), "delivered")
