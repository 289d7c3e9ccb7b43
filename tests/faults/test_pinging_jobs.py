"""kill -9 of the alerts service at each step of a job that fails and of its return."""

import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.faults.conftest import Rig
from tests.support.cases import sections
from tests.support.eventually import eventually

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
SECTIONS = sections("heartbeat.missed")


@pytest.mark.parametrize("table", ["heartbeat_watch", "heartbeat_ping", "case_total", "outbox"])
async def test_killed_at_a_step_of_a_failure_it_is_told_once(rig: Rig, table: str) -> None:
    name = f"job {uuid.uuid4()}"
    body = {"name": name, "every": "1h", "grace": "10m"}
    made = (await rig.stack.http("POST", "/api/heartbeats", body, key="admin")).body

    async def ping(signal: str) -> None:
        assert (await rig.stack.http("POST", urlsplit(made["url"]).path + signal)).status == 200

    def down() -> bool:
        watch = "SELECT case_id FROM alerts.heartbeat_watch WHERE id = %s"
        (row,) = rig.query(watch, made["id"])
        return row.case_id is not None

    def told() -> list[Any]:
        mine = (
            "SELECT payload ->> 'text', resolved FROM alerts.delivery"
            " WHERE payload ->> 'heartbeat' = %s AND target = 'slack' ORDER BY accepted_at"
        )
        return [tuple(row) for row in rig.query(mine, name)]

    async def applied(*, fails: bool) -> None:
        async def so() -> bool:
            return down() == fails

        await eventually(so, 60)

    async with rig.dies_at(table):
        await ping("/3")
    assert (down(), told()) == (False, [])
    await rig.restart()
    await applied(fails=True)
    failed = (f"{name} failed with exit code 3", False)
    assert told() == [failed]
    await rig.until_depth("alerts.pings", 0)
    if table == "case_total":  # what is back opens no case
        return
    async with rig.dies_at(table):
        await ping("")
    await rig.restart()
    await applied(fails=False)
    assert told() == [failed, (f"{name} is back", True)]
    await eventually(rig.stack.balanced, 90)
