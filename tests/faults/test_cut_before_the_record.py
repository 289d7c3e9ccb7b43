"""PostgreSQL goes away between a target's answer and the statement that records it.

The process lives and knows the outcome, so nobody may receive the alert again, however long it
takes: only a kill -9 at this step explains a duplicate.
"""

import asyncio

import pytest

from tests.faults.conftest import Rig
from tests.support.proxy import DOWN

pytestmark = pytest.mark.promise("P1")

AWAY_SECONDS = 20.0  # far beyond the target's lease and the margin in it


@pytest.mark.faults
@pytest.mark.parametrize("seconds", ["3600", "2"])
async def test_delivered_with_the_database_cut_off_before_the_record_arrives_once(
    rig: Rig, seconds: str
) -> None:
    await rig.start(ALERTS_RECONCILE_SECONDS=seconds, ALERTS_OVERDUE_SECONDS=seconds)
    held = rig.slack.stall_before(DOWN, b"HTTP/1.1 200")
    alert_id = await rig.accept()
    await held.wait()
    await rig.row(alert_id, state="sending")
    await rig.database.refuse()
    await rig.slack.resume()
    await asyncio.sleep(AWAY_SECONDS)
    await rig.row(alert_id, state="sending")
    await rig.database.resume()
    await rig.end(duplicates=0)
    await rig.row(alert_id, state="delivered", attempt=1)
