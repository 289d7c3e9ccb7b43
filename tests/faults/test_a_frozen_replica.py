"""Two alerts processes; one is frozen (SIGSTOP) past its lease and then goes on."""

import pytest

from tests.faults.conftest import Rig, Start
from tests.support.consumers import until
from tests.support.servers import frozen

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1")]


@pytest.mark.parametrize("late", [200, 500])
async def test_an_outcome_recorded_after_the_lease_changes_nothing(
    rig: Rig, start_second: Start, late: int
) -> None:
    if late != 200:
        await rig.stack.sandbox.behave("slack", status=late, fail_next=1)
    alert_id = await rig.in_flight()
    with frozen(rig.stack.pid("alerts")):
        await rig.slack.resume()  # the answer waits for it to wake
        start_second(ALERTS_RECONCILE_SECONDS="0.5", ALERTS_OVERDUE_SECONDS="1")
        before = await rig.row(alert_id, state="delivered", attempt=2)  # requeued once, or twice

    await until(lambda: f'"{alert_id}", "attempt": 1,' in rig.stack.log("alerts"), 30)
    assert await rig.row(alert_id) == before
    history = rig.query(
        "SELECT number, outcome FROM alerts.attempt WHERE alert_id = %s ORDER BY number", alert_id
    )
    assert [each.number for each in history] == [1, 2]
    await rig.end(duplicates=1 if late == 200 else 0)
