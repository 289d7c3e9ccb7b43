"""P1: what finally failed is told to a person, also when mail itself was down."""

from typing import Any

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually

QUICK = {"ALERTS_ESCALATION_SECONDS": "0.5", "ESCALATION_EMAIL": "ops@example.com"}


async def digests(subject: Alerts) -> list[dict[str, Any]]:
    mails = await subject.sandbox.mails()
    return [mail for mail in mails if mail["To"][0]["Address"] == "ops@example.com"]


async def told(subject: Alerts, count: int) -> list[dict[str, Any]]:
    """The digests, once they speak of so many alerts."""

    async def enough() -> list[dict[str, Any]] | None:
        found = await digests(subject)
        numbers = [int(mail["Subject"].split()[1]) for mail in found]
        assert sum(numbers) <= count
        return found if sum(numbers) == count else None

    return await eventually(enough, 40)


async def test_many_failures_of_a_target_are_one_digest_that_says_what_to_do(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(ALERTS_ESCALATION_SECONDS="6")
    await subject.sandbox.behave("slack", status=404)
    for alert_id in [await subject.accept() for _ in range(12)]:
        await subject.until(alert_id, "failed")
    found = await told(subject, 12)
    assert len(found) <= 2  # a window may end between them
    text = found[-1]["Text"]
    assert "slack" in found[-1]["Subject"]
    assert "404" in text
    assert "/api/dlq/retry" in text
    assert (await subject.check())["ok"]


async def test_while_mail_is_down_the_escalation_waits_and_is_told_afterwards(
    alerts: StartAlerts,
) -> None:
    subject = await alerts(**QUICK)
    await subject.sandbox.behave("email", status=550)  # for good: the digest itself fails
    await subject.sandbox.behave("slack", status=404)
    await subject.until(await subject.accept(), "failed")

    async def digest_failed() -> bool:
        failed = (
            "SELECT count(*) FROM delivery WHERE event_type = 'escalation' AND state = 'failed'"
        )
        return bool(await subject.scalar(failed))

    await eventually(digest_failed, 30)
    assert await digests(subject) == []
    await subject.sandbox.behave("email", status=200)
    await told(subject, 1)
    assert await subject.scalar("SELECT count(*) FROM escalation") == 1  # none of the digests'
