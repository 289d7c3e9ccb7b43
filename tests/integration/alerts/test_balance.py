"""What the metrics tell of the ledger."""

import sqlalchemy as sa

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually


async def test_the_metrics_tell_what_waits_for_a_person_and_that_the_equation_holds(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    await subject.until(await subject.accept(), "delivered")
    await subject.sandbox.behave("slack", status=410)
    await subject.until(await subject.accept(), "failed")
    await told_after_a_start(
        subject,
        'alerts_ledger_rows{state="failed",target="slack"} 1.0',
        'alerts_ledger_rows{state="pending",target="slack"} 0.0',
        'alerts_ledger_term{term="accepted"} 2.0',
        'alerts_ledger_term{term="delivered"} 1.0',
        'alerts_ledger_term{term="unread"} 0.0',
        "alerts_ledger_ok 1.0",
    )


async def test_an_equation_that_does_not_hold_is_told(alerts: StartAlerts) -> None:
    subject = await alerts()
    await subject.until(await subject.accept(), "delivered")
    async with subject.engine.begin() as tx:
        await tx.execute(sa.text("UPDATE ledger_total SET accepted = accepted + 1"))
    await told_after_a_start(subject, "alerts_ledger_ok 0.0")


async def told_after_a_start(subject: Alerts, *wanted: str) -> None:
    """See these lines soon after a start: the next look is far."""
    subject.stop()
    await subject.start()

    async def told() -> bool:
        lines = (await subject.metrics()).splitlines()
        return all(line in lines for line in wanted)

    await eventually(told)
