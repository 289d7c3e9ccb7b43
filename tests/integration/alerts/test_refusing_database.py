"""PostgreSQL is there but refuses: read-only after a failover, or a missing privilege."""

from contextlib import closing

import psycopg2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.brokers import Vhost
from tests.support.eventually import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.promise("P1")

COUNT = 20
MORE_THAN_TEN = 13


def execute(running: Alerts, *statements: str) -> None:
    with closing(psycopg2.connect(running.database.superuser_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


async def deliveries(running: Alerts) -> float:
    """Count the messages of alerts.intake that ended, in any way."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(await running.metrics())
        for sample in family.samples
        if sample.name == "broker_consumed_total" and sample.labels["queue"] == "alerts.intake"
    )


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (
            "ALTER ROLE alerts IN DATABASE {} SET default_transaction_read_only = on",
            "ALTER ROLE alerts IN DATABASE {} RESET default_transaction_read_only",
        ),
        (
            "REVOKE INSERT ON alerts.delivery FROM alerts",
            "GRANT INSERT ON alerts.delivery TO alerts",
        ),
        (
            "ALTER TABLE alerts.delivery RENAME COLUMN severity TO severity_of_later",
            "ALTER TABLE alerts.delivery RENAME COLUMN severity_of_later TO severity",
        ),
    ],
    ids=["read-only", "right missing", "migration missing"],
)
async def test_alerts_refused_by_the_database_ten_times_are_all_delivered(
    alerts: StartAlerts, vhost: Vhost, refuse: str, allow: str
) -> None:
    async with Proxy(vhost.server.port) as broker:
        url = vhost.url("alerts").replace(f":{vhost.server.port}/", f":{broker.port}/")
        running = await alerts(AMQP_URL=url, ALERTS_RECONCILE_SECONDS="0.5")
        name = running.database.name
        execute(
            running,
            refuse.format(name),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE usename = 'alerts' AND datname = '{name}'",
        )
        accepted = [await running.accept() for _ in range(COUNT)]
        for number in range(1, MORE_THAN_TEN + 1):

            async def all_returned(wanted: int = COUNT * number) -> bool:
                assert running.process.poll() is None, running.log.read_text()[-5000:]
                broker.cut()
                return await deliveries(running) >= wanted

            await eventually(lambda: running.depth("alerts.intake"), so=lambda found: found == 0)
            await eventually(all_returned, every=1)
        execute(running, allow.format(name))
        for alert_id in accepted:
            await running.until(alert_id, "delivered", seconds=60)
        assert running.process.poll() is None
        assert await running.depth("alerts.intake.dead") == 0
        received = await running.sandbox.received("slack")
        assert len(received) == COUNT
