"""What the metrics tell of the ledger."""

import aiohttp
import sqlalchemy as sa
from sqlalchemy import make_url

from deploy.local.servers import Postgres
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually
from tests.support.proxy import Proxy


async def test_the_metrics_tell_what_waits_for_a_person_and_that_the_equation_holds(
    alerts: StartAlerts,
) -> None:
    subject = await alerts()
    await subject.failed(1, "x")  # of which no digest tells: it would be accepted, too
    await subject.until(await subject.accept(), "delivered")
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


async def test_a_database_that_is_away_is_told_and_no_equation_of_which_nobody_knows(
    alerts: StartAlerts, postgres: Postgres
) -> None:
    subject = await alerts(ALERTS_SWEEP_SECONDS="1")
    subject.stop()
    async with Proxy(postgres.port) as way:
        url = make_url(subject.database).set(port=way.port)
        subject.environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
        way.stall()  # the first look takes its time
        await subject.start()
        await told(subject, "database_connected 0.0")
        assert "alerts_ledger_ok NaN" in (await subject.metrics()).splitlines()
        await way.resume()
        await told(subject, "database_connected 1.0", "alerts_ledger_ok 1.0")
        await way.refuse()
        await told(subject, "database_connected 0.0", "alerts_ledger_ok NaN")
        subject.stop()


async def told_after_a_start(subject: Alerts, *wanted: str) -> None:
    """See these lines soon after a start: the next look is far."""
    subject.stop()
    await subject.start()
    await told(subject, *wanted)


async def told(subject: Alerts, *wanted: str) -> None:
    async def so() -> bool:
        try:
            lines = (await subject.metrics()).splitlines()
        except aiohttp.ClientConnectorError:  # /health answers a moment before them
            return False
        return all(line in lines for line in wanted)

    await eventually(so, 30)
