"""An unhealthy target: its queue keeps its messages, and no other target is delayed.

One that refuses us is held: its alerts wait without using an attempt. A stop with targets that hang
ends in time, and nothing is sent twice.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import aio_pika
import pytest

from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.targets import answer, listening, request

pytestmark = pytest.mark.promise("P6")


async def consumers(subject: Alerts, queue: str) -> int:
    async with await aio_pika.connect(subject.vhost.admin_url()) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.consumer_count or 0


async def test_an_open_breaker_takes_no_message_and_its_trip_is_an_attempt(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack={"breaker": {"fail_max": 1, "reset_timeout": 3600}})
    await eventually(lambda: consumers(subject, "alerts.slack"), so=lambda found: found == 1)
    await subject.sandbox.behave("slack", status=503)
    alert_id = await subject.accept()
    await eventually(lambda: consumers(subject, "alerts.slack"), so=lambda found: found == 0)
    # It stops taking messages before it tells the others, and the ledger.
    await eventually(subject.breaker, so=lambda found: found["state"] == "open")
    await eventually(lambda: subject.scalar("SELECT count(*) FROM attempt"))
    _, story = await subject.http("GET", f"/api/alerts/{alert_id}")
    (attempt,) = story["deliveries"][0]["history"]
    assert (attempt["outcome"], attempt["reason"], attempt["status"]) == (
        "failed",
        "server_error",
        503,
    )
    _, health = await subject.http("GET", "/health/deep")
    assert (health["status"], health["circuit_breakers"]["slack"]["state"]) == ("degraded", "open")
    untouched = await subject.accept()
    assert await subject.until(untouched, "pending")
    assert await consumers(subject, "alerts.monday") == 1
    assert (await subject.row(untouched)).attempt == 0


async def test_a_429_neither_trips_nor_counts_and_pauses_only_its_target(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack={"breaker": {"fail_max": 1, "reset_timeout": 3600}})
    await subject.sandbox.behave("slack", status=429, retry_after=2)
    alert_id = await subject.accept("lead.qualified")
    await subject.until(alert_id, "delivered", "monday")
    await eventually(subject.breaker, so=lambda found: found["paused"])
    shown = await subject.breaker()
    assert (shown["state"], shown["failures"]) == ("closed", 0)
    await subject.sandbox.behave("slack", status=200)
    await subject.until(alert_id, "delivered", attempts=1)


@pytest.mark.quick
async def test_a_hanging_target_does_not_delay_another(alerts: StartAlerts) -> None:
    subject = await alerts(monday={"timeout": 10.0, "retry_delays": [20]})
    await subject.sandbox.behave("monday", hang=True)
    ids = [await subject.accept("lead.qualified") for _ in range(40)]
    for alert_id in ids:
        row = await subject.until(alert_id, "delivered", "slack")
        assert (row.finished_at - row.accepted_at).total_seconds() < 10
    _, stats = await subject.http("GET", "/api/dlq/stats")
    assert stats["targets"]["slack"]["delivered"] == 40
    assert stats["targets"]["monday"]["delivered"] == 0


HANGING = ("slack", "webhook", "sms")
EACH = 40  # several times a target's concurrency


async def test_a_stop_with_hanging_targets_ends_in_time(alerts: StartAlerts) -> None:
    hangs = {"timeout": 8.0, "retry_delays": [9, 9], "concurrency": 4}
    subject = await alerts(**dict.fromkeys(HANGING, hangs))
    for target in HANGING:
        await subject.sandbox.behave(target, hang=True)
    await (
        subject.stop()
    )  # so that all wait: the first time-out may come before the last is accepted
    accepted = {
        await subject.accept("slack_alert" if target == "slack" else target): target
        for target in HANGING
        for _ in range(EACH)
    }
    await subject.start()

    sending = "SELECT count(*) FROM delivery WHERE state = 'sending'"
    await eventually(lambda: subject.scalar(sending), so=lambda n: n >= 4 * len(HANGING))
    begun = time.monotonic()
    await subject.stop()
    took = time.monotonic() - begun
    assert subject.log.read_text().count('"event": "service.stopped"') == 2
    assert '"event": "service.drain_timed_out"' not in subject.log.read_text()
    assert '"event": "consumer.abandoned"' not in subject.log.read_text()
    assert took < 15, took  # one time-out of 8 s, and not one for each target
    tried = "SELECT count(*) FROM delivery WHERE attempt > 0"
    assert await subject.scalar(tried) == 4 * len(HANGING)
    assert await subject.scalar(sending) == 0
    await subject.sandbox.heal()
    await subject.start()
    for alert_id, target in accepted.items():
        row = await subject.until(alert_id, "delivered", target, seconds=60)
        assert row.attempt <= 2
    for target in HANGING:
        received = await subject.sandbox.received(target)
        assert set(Counter(str(each["body"]) for each in received).values()) == {1}
    assert (await subject.check())["in_doubt"] == 0


async def test_a_new_process_keeps_the_start_of_an_incident(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"breaker": {"fail_max": 1, "reset_timeout": 4}, "concurrency": 1})
    await subject.shut()
    since = (await eventually(subject.breaker, so=lambda found: found["open_since"]))["open_since"]
    subject.kill9()
    await subject.start()
    line = 'alerts_breaker_state{state="open",target="slack"} 1.0'  # as the dead process left it
    await eventually(subject.metrics, 20, so=lambda found: line in found)
    assert (await subject.breaker())["open_since"] == since

    await subject.sandbox.behave("slack", status=200)
    await subject.until(await subject.accept(), "delivered")
    incidents = "SELECT count(*) FROM incident"
    await eventually(lambda: subject.scalar(incidents), so=lambda found: found == 0)


# Five times the reset timeout from one trial to the next. A refused alert is due before that.
HOLDS: dict[str, Any] = {"breaker": {"fail_max": 1000, "reset_timeout": 0.5}, "concurrency": 1}
FOR_LONG: dict[str, Any] = {"breaker": {"fail_max": 1000, "reset_timeout": 3600}, "concurrency": 1}


async def until_held(subject: Alerts, said: str, target: str = "slack") -> None:
    await eventually(
        lambda: subject.breaker(target), so=lambda found: found["paused"] == f"refused us: {said}"
    )


async def tried(subject: Alerts, target: str = "slack") -> list[str]:
    everything = await subject.sandbox.received(target, refused_too=True)
    return [one["body"]["text"] for one in everything]


async def test_alerts_of_a_held_target_wait_and_use_no_attempt(alerts: StartAlerts) -> None:
    subject = await alerts(slack=HOLDS)
    await subject.sandbox.behave("slack", status=410)
    ids = [await subject.accept() for _ in range(6)]
    await until_held(subject, "410")
    await eventually(lambda: tried(subject), 30, so=lambda found: len(found) >= 4)
    texts = await tried(subject)
    assert len(set(texts[:4])) == 4  # each trial is another alert's
    for alert_id in ids:
        row = await subject.row(alert_id)
        assert (row.state, row.attempts) in {("pending", 0), ("sending", 1)}
    assert (await subject.check())["failed"] == 0

    await subject.sandbox.behave("slack", status=200)
    for alert_id in ids:
        assert (await subject.until(alert_id, "delivered")).attempts == 1
    found = await subject.breaker()
    assert (found["state"], found["paused"], found["open_since"]) == ("closed", False, None)


@pytest.mark.parametrize("restarted", [False, True])
async def test_trying_it_now_or_a_start_ends_it(alerts: StartAlerts, *, restarted: bool) -> None:
    subject = await alerts(slack=FOR_LONG)
    await subject.sandbox.behave("slack", status=401)
    ids = [await subject.accept() for _ in range(3)]
    await until_held(subject, "401")
    # the first is at once, and then none for five hours
    await eventually(lambda: tried(subject), so=lambda found: len(found) == 2)
    await subject.sandbox.behave("slack", status=200)  # somebody has corrected .env
    if restarted:
        await subject.stop()
        await subject.start()
    else:
        assert (await subject.http("POST", "/api/breakers/slack/reset"))[0] == 200
    for alert_id in ids:
        await subject.until(alert_id, "delivered")


async def test_an_alert_that_alone_is_refused_holds_nothing_for_long_and_fails(
    alerts: StartAlerts,
) -> None:
    async def particular(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            refused = b"poison" in await request(reader)
            writer.write(answer(404, b"no such lead") if refused else answer(200, b"ok"))

    async with listening(particular) as port:
        subject = await alerts(
            slack=HOLDS | {"concurrency": 8}, SLACK_WEBHOOK_URL=f"http://127.0.0.1:{port}/"
        )
        poison = [await subject.accept(payload={"text": f"poison {n}"}) for n in range(3)]

        async def all_failed() -> bool:
            await subject.until(await subject.accept(), "delivered")
            return {(await subject.row(each)).state for each in poison} == {"failed"}

        await eventually(all_failed, 60)
        for alert_id in poison:
            row = await subject.row(alert_id)
            assert (row.reason, row.attempts) == ("gone", 1)
            assert row.attempt >= 2  # never at the first refusal
    assert (await subject.check())["ok"]


async def test_mails_that_leave_once_wait_for_a_mail_server_that_refuses_us(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts(email={"breaker": HOLDS["breaker"]})
    await subject.sandbox.behave("email", stage="mail", status=530)
    once = {"address": "a@example.com", "purpose": "marketing", "reference": "r"}
    payload = {"to": "a@example.com", "subject": "s", "text": "t"}
    alert_id = await subject.accept("followup", once=once, payload=payload)
    await until_held(subject, "530", "email")
    # so no withdrawal waits for it
    await until(lambda: len(consent.returned) >= 2, 30)
    row = await subject.row(alert_id, "email")
    assert row.state in {"pending", "claimed", "sending"}
    assert row.attempts <= 1
    await subject.sandbox.behave("email", status=200)
    assert (await subject.until(alert_id, "delivered", "email")).attempts == 1
    assert len(await subject.sandbox.mails("a@example.com")) == 1
