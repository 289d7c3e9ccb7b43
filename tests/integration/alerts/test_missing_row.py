"""Work messages whose ledger row is gone: lost by the database, or purged."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.alerts import messages
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.integration.alerts.test_dead_letter_moved_back import INTAKE_DEAD, dead_letters
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P1")


async def publish(subject: Alerts, alert_id: str, age: timedelta = timedelta()) -> None:
    message = messages.work(UUID(alert_id), "slack", 0, None, datetime.now(UTC) - age)
    await subject.gateway.publish("alerts", "alerts.slack", message)


async def test_an_alert_whose_row_was_lost_is_kept_and_reported(alerts: StartAlerts) -> None:
    subject = await alerts(slack={"retry_delays": [2.0]})
    await subject.sandbox.behave("slack", status=500)
    alert_id = await subject.accept()
    await subject.until(alert_id, "pending", attempt=1)
    # as after a failover to a lagging replica
    await subject.execute("DELETE FROM delivery")
    await subject.execute("DELETE FROM ledger_total")

    await eventually(subject.check, 20, so=lambda terms: terms["unread"] == 1 and not terms["ok"])
    ((reason, body),) = await dead_letters(subject, INTAKE_DEAD)
    assert (reason, body["alert_id"], body["target"]) == ("no row", alert_id, "slack")
    assert 'alerts_missing_row_total{target="slack"} 1.0' in await subject.metrics()


async def test_a_late_duplicate_of_a_purged_row_is_acknowledged(alerts: StartAlerts) -> None:
    subject = await alerts()
    alert_id = await subject.accept()
    await subject.until(alert_id, "delivered")
    before = datetime.now(UTC)
    status, answer = await subject.http("POST", "/api/dlq/cleanup", {"older_than_hours": 0})
    assert (status, answer) == (200, {"deleted": 1})
    await publish(subject, alert_id, age=timedelta(hours=1))
    # A row written after the last purge cannot have been purged.
    await publish(subject, lost := str(uuid4()), age=datetime.now(UTC) - before)

    async def kept() -> list[str]:
        return [body["alert_id"] for _, body in await dead_letters(subject, INTAKE_DEAD)]

    assert await eventually(kept) == [lost]
    await subject.until_empty("slack", "slack.retry")
    assert await kept() == [lost]
