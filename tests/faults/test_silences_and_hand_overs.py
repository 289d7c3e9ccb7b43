"""kill -9 of the alerts service while silences begin and end and cases change hands.

No alert is lost (P1): each one ends delivered, or discarded with the silence's id, and then its
case asks at the silence's end (P9).
"""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults.conftest import Rig
from tests.faults.test_a_case_at_each_step import lost, opened
from tests.support.cases import Cases, sections
from tests.support.system import Answer

pytestmark = [pytest.mark.faults, pytest.mark.promise("P1"), pytest.mark.promise("P9")]
SECTIONS = sections()
PUMP = "payload.text=~pump.*"


async def call(rig: Rig, method: str, path: str, body: Any = None) -> Answer:
    return await rig.stack.http(method, path, body, key="admin", headers={"X-Operator": "ola"})


async def begin(rig: Rig, matcher: str = PUMP) -> Answer:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"matchers": [matcher], "ends": ends, "why": "a test"}
    return await call(rig, "POST", "/api/silences", body)


def own(rig: Rig, alert_id: str) -> list[Any]:
    return rig.query("SELECT state, reason FROM alerts.delivery WHERE alert_id = %s", alert_id)


async def test_a_silenced_alert_that_is_not_committed_comes_again_and_is_silenced(
    rig: Rig, cases: Cases
) -> None:
    number = (await begin(rig)).body["id"]
    async with rig.dies_at("ledger_total"):
        alert_id = await rig.stack.alert(f"pump {uuid.uuid4()}")
    assert own(rig, alert_id) == []
    await rig.restart()
    await rig.row(alert_id, state="discarded")
    await cases.case(alert_id, state="open", silence=number, step=0)
    assert (await call(rig, "DELETE", f"/api/silences/{number}")).body["cases"] == 1
    await cases.step(alert_id, state="delivered")


async def test_a_silence_that_is_not_committed_silences_nothing(rig: Rig, cases: Cases) -> None:
    async with rig.dies_at("outbox"):
        beginning = asyncio.create_task(begin(rig))
    assert (await beginning).status >= 500
    await rig.restart()
    assert (await call(rig, "GET", "/api/silences")).body["items"] == []
    await rig.row(await rig.stack.alert(f"pump {uuid.uuid4()}"), state="delivered")


async def test_an_end_that_is_not_committed_ends_nothing(rig: Rig, cases: Cases) -> None:
    number = (await begin(rig)).body["id"]
    alert_id = await rig.stack.alert(f"pump {uuid.uuid4()}")
    await cases.case(alert_id, state="open", silence=number)
    async with rig.dies_at("outbox"):
        ending = asyncio.create_task(call(rig, "DELETE", f"/api/silences/{number}"))
    assert (await ending).status >= 500
    await rig.restart()
    assert (await cases.case(alert_id)).next_at > datetime.now(UTC)
    assert (await call(rig, "DELETE", f"/api/silences/{number}")).body["cases"] == 1
    await cases.step(alert_id, state="delivered")


async def test_a_hand_over_that_is_not_committed_leaves_the_owner(rig: Rig, cases: Cases) -> None:
    case_id, key = await opened(rig, cases), str(uuid.uuid4())
    await cases.take(case_id)
    async with rig.dies_at("case_step"):
        handing = asyncio.create_task(cases.answer(case_id, "hand_over", to="ewa", key=key))
    assert (await handing).status >= 500
    await cases.case(case_id, state="answered", owner="anna", generation=0)
    await rig.restart()
    assert (await cases.answer(case_id, "hand_over", to="ewa", key=key)).status == 200
    await cases.case(case_id, state="answered", owner="ewa", generation=1)
    await cases.step(case_id, state="delivered")


async def test_a_hand_over_without_a_response_is_one(rig: Rig, cases: Cases) -> None:
    case_id, given = await opened(rig, cases), dict[str, Any](to="ewa", key=str(uuid.uuid4()))
    await cases.take(case_id)
    before = (await cases.case(case_id)).version
    # Release, taking and the message to the colleague: a version each.
    said = await lost(rig, cases, case_id, "hand_over", given, versions=3)
    assert (said.owner, said.version) == ("ewa", before + 3)
    await rig.restart()
    again = await cases.answer(case_id, "hand_over", **given)
    assert (again.status, again.body["version"]) == (200, said.version)
    await cases.step(case_id, state="delivered")
    steps = "SELECT 1 FROM alerts.case_step WHERE case_id = %s AND generation = 1"
    assert len(rig.query(steps, case_id)) == 1
