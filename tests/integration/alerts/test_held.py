"""A target that refuses us: it is held, and its alerts wait without using an attempt."""

import asyncio
from typing import Any

import pytest

from tests.integration.alerts.conftest import Alerts, Consent, StartAlerts
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.targets import answer, listening, request

pytestmark = pytest.mark.promise("P6")

# Five times the reset timeout from one trial to the next. A refused alert is due before that.
HOLDS: dict[str, Any] = {"breaker": {"fail_max": 1000, "reset_timeout": 0.5}, "concurrency": 1}
FOR_LONG: dict[str, Any] = {"breaker": {"fail_max": 1000, "reset_timeout": 3600}, "concurrency": 1}


async def shown(subject: Alerts, target: str = "slack") -> dict[str, Any]:
    _, health = await subject.http("GET", "/health/deep")
    found: dict[str, Any] = health["circuit_breakers"][target]
    return found


async def until_held(subject: Alerts, said: str, target: str = "slack") -> None:
    await eventually(
        lambda: shown(subject, target), so=lambda found: found["paused"] == f"refused us: {said}"
    )


async def tried(subject: Alerts, target: str = "slack") -> list[str]:
    everything = await subject.sandbox.received(target, refused_too=True)
    return [one["body"]["text"] for one in everything]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_alerts_of_a_held_target_wait_and_use_no_attempt(
    alerts: StartAlerts, status: int
) -> None:
    subject = await alerts(slack=HOLDS)
    await subject.sandbox.behave("slack", status=status)
    ids = [await subject.accept() for _ in range(6)]
    await until_held(subject, str(status))
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
    found = await shown(subject)
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
            await subject.until(await subject.accept(), "delivered", seconds=10)
            return {(await subject.row(each)).state for each in poison} == {"failed"}

        await eventually(all_failed, 30)
        for alert_id in poison:
            row = await subject.row(alert_id)
            assert (row.reason, row.attempts) == ("gone", 1)
            assert row.attempt >= 2  # never at the first refusal
    assert (await subject.check())["ok"]


async def test_a_refused_alert_is_not_singled_out_before_another_was_delivered(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(slack=HOLDS)
    await subject.sandbox.behave("slack", status=404)
    alert_id = await subject.accept()

    async with asyncio.timeout(30):
        while len(await tried(subject)) < 3:
            await subject.http("POST", "/api/breakers/slack/reset")
            await asyncio.sleep(0.5)
    assert (await subject.row(alert_id)).state in {"pending", "sending"}
    await subject.sandbox.behave("slack", status=200)
    await subject.until(alert_id, "delivered")


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
