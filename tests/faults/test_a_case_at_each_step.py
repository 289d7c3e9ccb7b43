"""kill -9 of the alerts service at each step of protocol D (docs/protocols.md).

As in test_killed_at_each_step.py, each test holds the service at one step, kills it there, looks at
what is left, and starts it again. Then the case ends as P9 says: answered once, or after every step
of its chain was handed out once. A step is due when the test says so.
"""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.faults.conftest import ACK, Rig
from tests.support.cases import Cases, sections
from tests.support.proxy import DOWN, UP, Direction, Proxy

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
SECTIONS = sections()


async def opened(rig: Rig, cases: Cases) -> str:
    """Return a case whose alert is delivered and acknowledged."""
    case_id = await cases.open()
    await rig.until_depth("alerts.slack", 0)
    return case_id


async def test_an_alert_that_is_not_committed_opens_no_case(rig: Rig, cases: Cases) -> None:
    before = (await cases.check())["opened"]
    async with rig.dies_at("case_total"):
        case_id = await rig.accept()
    for table in ("delivery", "alert_case"):
        assert rig.query(f"SELECT 1 FROM alerts.{table} WHERE alert_id = %s", case_id) == []
    await rig.restart()
    await cases.case(case_id, state="open", step=0)
    await cases.run_out(case_id)
    await cases.end(case_id, "unanswered", steps=2)
    assert (await cases.check())["opened"] == before + 1


async def test_an_alert_that_comes_again_opens_no_second_case(rig: Rig, cases: Cases) -> None:
    before = (await cases.check())["opened"]
    held = rig.broker.stall_before(UP, ACK)
    case_id = await rig.accept()
    await held.wait()
    await cases.case(case_id, state="open")
    await rig.kill()
    await rig.until_depth("alerts.intake", 1)
    await rig.restart()
    await rig.until_depth("alerts.intake", 0)
    await cases.take(case_id)
    await cases.end(case_id, "answered", steps=0)
    assert (await cases.check())["opened"] == before + 1


@pytest.mark.parametrize("held", ["case_step", "outbox"])
async def test_a_step_that_is_not_committed_is_handed_out_once(
    rig: Rig, cases: Cases, held: str
) -> None:
    case_id = await opened(rig, cases)
    async with rig.dies_at(held):
        cases.due(case_id)
    await cases.case(case_id, state="open", step=0)
    assert cases.steps(case_id) == []
    await rig.restart()
    await cases.step(case_id, state="delivered", attempt=1)
    await cases.run_out(case_id)
    await cases.end(case_id, "unanswered", steps=2)


async def test_a_step_that_is_not_published_is_delivered_once(rig: Rig, cases: Cases) -> None:
    case_id = await opened(rig, cases)
    rig.broker.stall(UP)
    cases.due(case_id)
    await cases.step(case_id, state="pending", attempt=0)
    await rig.kill()
    await rig.restart()
    await cases.step(case_id, state="delivered", attempt=1)
    await cases.run_out(case_id)
    await cases.end(case_id, "unanswered", steps=2)


async def test_a_step_that_is_not_recorded_is_delivered_again(rig: Rig, cases: Cases) -> None:
    case_id = await opened(rig, cases)
    rig.slack.stall(DOWN)
    cases.due(case_id)
    await rig.reached_slack(2)
    async with rig.dies_at("case_place"):
        await rig.slack.resume()
    step = await cases.step(case_id, state="sending", attempt=1)
    await cases.place(step.alert_id, shown=None, receipt=None)
    await rig.restart()
    await cases.step(case_id, state="delivered", attempt=2)
    await cases.take(case_id)
    await cases.end(case_id, "answered", steps=1, asked=2)


async def test_a_successor_that_is_not_brought_forward_comes_after_the_wait(
    rig: Rig, cases: Cases
) -> None:
    case_id = await opened(rig, cases)
    await rig.stack.sandbox.behave("slack", status=422, fail_next=1)
    rig.slack.stall(DOWN)
    cases.due(case_id)
    await rig.reached_slack(2)
    case = "SELECT 1 FROM alerts.alert_case WHERE alert_id = %s FOR UPDATE"
    async with rig.locked(case, case_id):
        await rig.slack.resume()
        await cases.step(case_id, state="failed")
        await rig.waits_for_a_lock()
        await rig.kill()
    await rig.restart()
    row = await cases.case(case_id, state="open", step=1)
    assert row.next_at > datetime.now(UTC) + timedelta(minutes=50)
    await cases.run_out(case_id)
    await cases.end(case_id, "unanswered", steps=2)


async def pending(rig: Rig, cases: Cases) -> str:
    """Return a case with a step that no worker has claimed yet."""
    case_id = await opened(rig, cases)
    rig.broker.stall(UP)
    cases.due(case_id)
    await cases.step(case_id, state="pending", attempt=0)
    return case_id


def how(verb: str) -> dict[str, Any]:
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    return {"key": str(uuid.uuid4()), **({"until": in_an_hour} if verb == "later" else {})}


@pytest.mark.parametrize("verb", ["taken", "later"])
async def test_an_answer_that_is_not_committed_changes_nothing(
    rig: Rig, cases: Cases, verb: str
) -> None:
    case_id, given = await pending(rig, cases), how(verb)
    async with rig.dies_at("case_answer"):
        answering = asyncio.create_task(cases.answer(case_id, verb, **given))
    assert (await answering).status >= 500
    row = await cases.case(case_id, state="open", generation=0, owner=None)
    assert row.next_at is not None
    assert (await cases.step(case_id)).state == "pending"
    assert rig.query("SELECT 1 FROM alerts.case_answer WHERE case_id = %s", case_id) == []
    await rig.restart()
    await cases.step(case_id, state="delivered", attempt=1)
    said = await cases.answer(case_id, verb, **given)
    assert said.status == 200, said
    if verb == "taken":
        await cases.end(case_id, "answered", steps=1)
    else:
        await cases.case(case_id, state="open", generation=1, step=0)
        await cases.run_out(case_id)
        await cases.end(case_id, "unanswered", steps=2, asked=3)


@pytest.mark.parametrize("verb", ["taken", "later"])
async def test_an_answer_without_a_response_is_taken_once(
    rig: Rig, cases: Cases, verb: str
) -> None:
    case_id, given = await pending(rig, cases), how(verb)
    said = await lost(rig, cases, case_id, verb, given)
    step = await cases.step(case_id, state="discarded", reason="answered", attempt=0)
    await rig.restart()
    again = await cases.answer(case_id, verb, **given)
    assert (again.status, again.body["version"]) == (200, said.version)
    await rig.until_depth("alerts.slack", 0)
    if verb == "taken":
        await cases.take(case_id, key=given["key"])
        await cases.end(case_id, "answered", steps=1, asked=0)
    else:
        await cases.case(case_id, state="open", generation=1, laters=1)
        await cases.run_out(case_id)
        await cases.end(case_id, "unanswered", steps=2, asked=2)
    await cases.place(step.alert_id, shown=None)


async def test_a_release_without_a_response_is_not_undone_by_the_taking_that_comes_again(
    rig: Rig, cases: Cases
) -> None:
    case_id, taking, giving = await opened(rig, cases), how("taken"), how("release")
    await cases.take(case_id, **taking)
    said = await lost(rig, cases, case_id, "release", giving)
    await rig.restart()
    again = await cases.answer(case_id, "release", **giving)
    assert (again.status, again.body["version"]) == (200, said.version)
    again = await cases.answer(case_id, **taking)
    assert (again.status, again.body["owner"]) == (200, "Anna")
    await cases.case(case_id, state="open", generation=1, owner=None)
    await cases.run_out(case_id)
    await cases.end(case_id, "unanswered", steps=2)


async def lost(
    rig: Rig, cases: Cases, case_id: str, verb: str, given: dict[str, Any], *, versions: int = 1
) -> Any:
    """Give an answer, and kill the service between its commit and its response; the case then."""
    before = (await cases.case(case_id)).version
    async with Proxy(int(rig.stack.values["ALERTS_PORT"])) as door:
        door.stall(DOWN)
        asked = cases.answer(case_id, verb, replica=door.port, **given)
        answering = asyncio.create_task(asked)
        row = await cases.case(case_id, version=before + versions)
        await rig.kill()
    with pytest.raises(aiohttp.ClientError):
        await answering
    return row


async def test_a_cancelling_that_is_not_committed_changes_nothing(rig: Rig, cases: Cases) -> None:
    case_id = await pending(rig, cases)
    path, body = f"/api/cases/{case_id}/cancel", {"reason": "a test"}
    async with rig.dies_at("case_answer"):
        cancelling = asyncio.create_task(rig.stack.http("POST", path, body, key="admin"))
    assert (await cancelling).status >= 500
    await cases.case(case_id, state="open")
    assert (await cases.step(case_id)).state == "pending"
    await rig.restart()
    await cases.step(case_id, state="delivered", attempt=1)
    assert (await rig.stack.http("POST", path, body, key="admin")).status == 200
    await cases.end(case_id, "cancelled", steps=1)


async def test_what_resolves_a_case_and_is_not_committed_comes_again(
    rig: Rig, cases: Cases
) -> None:
    key = str(uuid.uuid4())
    case_id = await cases.open(dedup_key=key)
    async with rig.dies_at("ledger_total"):
        await rig.stack.alert("over", dedup_key=key, resolved=True)
    await cases.case(case_id, state="open", reason=None)
    await rig.restart()
    await cases.case(case_id, state="cancelled", reason="resolved")
    await cases.end(case_id, "cancelled", steps=0)


@pytest.mark.parametrize("way", [UP, DOWN])
async def test_a_step_recalled_in_flight_is_not_sent_again(
    rig: Rig, cases: Cases, way: Direction
) -> None:
    case_id = await opened(rig, cases)
    rig.slack.stall(way)
    cases.due(case_id)
    await cases.step(case_id, state="sending", attempt=1)
    asked = 0
    if way is DOWN:
        await rig.reached_slack(2)
        asked = 1
    await cases.take(case_id)
    await cases.step(case_id, state="sending", recalled=True)
    await rig.kill()
    await rig.start(ALERTS_RECONCILE_SECONDS="0.5")
    await cases.step(case_id, state="discarded", reason="answered", attempt=1)
    await cases.end(case_id, "answered", steps=1, asked=asked)


async def test_an_update_that_is_not_committed_is_ordered_again(rig: Rig, cases: Cases) -> None:
    case_id = await opened(rig, cases)
    async with rig.dies_at("outbox"):
        await cases.take(case_id)
    await cases.place(case_id, want=1, ordered=0, shown=0)
    await rig.restart()
    await cases.update(case_id, state="delivered", attempt=1)
    await cases.end(case_id, "answered", steps=0)


@pytest.mark.parametrize(
    ("held", "state", "attempt"), [("broker", "pending", 0), ("slack", "sending", 1)]
)
async def test_an_update_that_is_not_published_or_sent_is_sent_once(
    rig: Rig, cases: Cases, held: str, state: str, attempt: int
) -> None:
    case_id = await opened(rig, cases)
    getattr(rig, held).stall(UP)
    await cases.take(case_id)
    await cases.update(case_id, state=state, attempt=attempt)
    await rig.kill()
    await rig.restart()
    await cases.update(case_id, state="delivered", attempt=attempt + 1)
    await cases.end(case_id, "answered", steps=0)


async def test_an_update_that_is_not_recorded_is_taken_over(rig: Rig, cases: Cases) -> None:
    case_id = await opened(rig, cases)
    rig.slack.stall(DOWN)
    await cases.take(case_id)
    await rig.reached_slack(2)
    async with rig.dies_at("case_place"):
        await rig.slack.resume()
    await cases.place(case_id, want=1, ordered=1, shown=0)
    await rig.restart()
    await cases.update(case_id, state="delivered", attempt=2)
    await cases.place(case_id, want=1, shown=1)
    await cases.end(case_id, "answered", steps=0)


async def test_a_chain_whose_end_is_not_committed_ends_once(rig: Rig, cases: Cases) -> None:
    case_id = await opened(rig, cases)
    for number in range(2):
        cases.due(case_id)
        await cases.step(case_id, number, state="delivered")
    async with rig.dies_at("escalation"):
        cases.due(case_id)
    await cases.case(case_id, state="open", step=2)
    await rig.restart()
    await cases.case(case_id, state="unanswered")
    await cases.end(case_id, "unanswered", steps=2)
    await cases.take(case_id)
    row = await cases.case(case_id, state="answered", late=True)
    assert row.owner == "anna"
    await cases.end(case_id, "answered", steps=2)
