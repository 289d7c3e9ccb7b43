"""The ledger check in the metrics."""

import aiohttp
import pytest
from sqlalchemy import make_url

from deploy.up.servers import Postgres
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.brokers import Vhost, leaderless
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.promise("P1")


async def test_the_metrics_show_the_ledger_check(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")
    await subject.failed(1, "x")  # without an escalation: a digest would be accepted, too
    await subject.until(await subject.accept(), "delivered")
    await shown(
        subject,
        'alerts_ledger_rows{state="failed",target="slack"} 1.0',
        'alerts_ledger_rows{state="pending",target="slack"} 0.0',
        'alerts_ledger_term{term="accepted"} 2.0',
        'alerts_ledger_term{term="delivered"} 1.0',
        'alerts_ledger_term{term="unread"} 0.0',
        "alerts_ledger_ok 1.0",
    )


async def test_a_failed_ledger_check_shows_in_the_metrics(alerts: StartAlerts) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")
    await subject.until(await subject.accept(), "delivered")
    await subject.execute("UPDATE ledger_total SET accepted = accepted + 1")
    await shown(subject, "alerts_ledger_ok 0.0")


async def test_an_unavailable_database_makes_the_ledger_check_unknown(
    alerts: StartAlerts, postgres: Postgres
) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")
    await subject.stop()
    async with Proxy(postgres.port) as way:
        url = make_url(subject.database).set(port=way.port)
        subject.environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
        way.stall()  # the first check takes a while
        await subject.start()
        await shown(subject, "database_connected 0.0")
        assert "alerts_ledger_ok NaN" in (await subject.metrics()).splitlines()
        await way.resume()
        await shown(subject, "database_connected 1.0", "alerts_ledger_ok 1.0")
        await way.refuse()
        await shown(subject, "database_connected 0.0", "alerts_ledger_ok NaN")
        await subject.stop()


async def test_an_unknown_number_of_unread_messages_makes_the_check_unknown(
    alerts: StartAlerts, vhost: Vhost
) -> None:
    subject = await alerts(ALERTS_RECONCILE_SECONDS="1")

    with leaderless(vhost, "alerts.intake.dead"):
        # what was seen before serves all callers for a second
        await eventually(
            subject.check, so=lambda check: (check["ok"], check["unread"]) == (None, None)
        )
        await shown(subject, "alerts_ledger_ok NaN", 'alerts_ledger_term{term="unread"} NaN')
    await shown(subject, "alerts_ledger_ok 1.0")


async def shown(subject: Alerts, *wanted: str) -> None:
    async def so() -> bool:
        try:
            lines = (await subject.metrics()).splitlines()
        except aiohttp.ClientConnectorError:  # /health responds a moment earlier
            return False
        return all(line in lines for line in wanted)

    await eventually(so, 30)
