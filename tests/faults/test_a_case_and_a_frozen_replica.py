"""Two alerts processes and a case; one is frozen (SIGSTOP) past its lease and then goes on."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest

from tests.faults.conftest import Rig
from tests.support.cases import Cases, sections
from tests.support.eventually import eventually
from tests.support.proxy import UP
from tests.support.servers import frozen

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
SECTIONS = sections()
START = Callable[[], Awaitable[int]]


async def fenced(rig: Rig, alert_id: str) -> None:
    """Wait until the replica that was frozen has seen that it was overtaken."""

    async def so() -> bool:
        lines = rig.stack.log("alerts").splitlines()
        return any("delivery.fenced" in line and str(alert_id) in line for line in lines)

    await eventually(so, 30)


@pytest.mark.parametrize("held", ["request", "record"])
async def test_a_step_in_flight_at_the_answer_ends_saying_who_has_it(
    rig: Rig, cases: Cases, start_other: START, held: str
) -> None:
    """Its message arrives after the 200, or was there before and is recorded after it."""
    case_id = await cases.open()
    if held == "request":
        reached = rig.slack.stall_before(UP, case_id.encode())
    else:
        reached = rig.database.stall_before(UP, b"attempt_reason text")
    cases.due(case_id)
    await reached.wait()
    step = await cases.step(case_id, state="sending", attempt=1)
    with frozen(rig.stack.pid("alerts")):
        other = await start_other()
        await cases.take(case_id, replica=other)
        await cases.step(case_id, state="discarded", reason="answered", attempt=1)
        told = await cases.place(step.alert_id, want=1, shown=1)
        await rig.slack.resume()
        await rig.database.resume()
    await fenced(rig, step.alert_id)
    await cases.end(case_id, "answered", steps=1)
    late = await cases.place(step.alert_id, want=2, shown=2)
    # Whoever waits for Slack gives up while it is frozen, and never learns the receipt.
    assert (late.receipt != told.receipt) == (held == "record")


async def test_a_step_that_is_not_written_at_the_answer_asks_nobody(
    rig: Rig, cases: Cases, start_other: START
) -> None:
    """Claimed before the answer and written after it, it says who has it."""
    case_id = await cases.open()
    held = rig.database.stall_before(UP, b"step_generation")
    cases.due(case_id)
    await held.wait()
    await cases.step(case_id, state="sending", attempt=1)
    said = len(rig.stack.log("alerts"))
    with frozen(rig.stack.pid("alerts")):
        other = await start_other()
        await cases.take(case_id, replica=other)
        await cases.step(case_id, state="discarded", reason="answered", attempt=1)
        await rig.database.resume()

    async def went_on() -> bool:
        """Return whether it was overtaken, or has waited too long for PostgreSQL to read it."""
        log = rig.stack.log("alerts")[said:]
        return "delivery.fenced" in log or "consumer.database_unavailable" in log

    await eventually(went_on, 30)
    await cases.step(case_id, state="discarded", attempt=1)
    await cases.end(case_id, "answered", steps=1, asked=0)


async def test_a_late_update_is_overwritten_by_one_that_says_who_has_it_now(
    rig: Rig, cases: Cases, start_other: START
) -> None:
    case_id = await cases.open()
    held = rig.slack.stall_before(UP, b"taken by Ewa")
    await cases.take(case_id, "ewa")
    await held.wait()
    update = await cases.update(case_id, state="sending", attempt=1)
    with frozen(rig.stack.pid("alerts")):
        other = await start_other()
        said = await cases.answer(case_id, "release", "ewa", replica=other)
        assert said.status == 200
        await cases.take(case_id, "jan", replica=other)
        await cases.update(case_id, state="delivered", attempt=2)
        await rig.slack.resume()
    await fenced(rig, update.alert_id)
    await cases.end(case_id, "answered", steps=0)
    shown = [body["text"] for body in await cases._received("slack") if "ts" in body]
    assert ["Ewa" in text for text in shown] == [False, True, False]


async def test_a_timer_frozen_in_its_transaction_hands_out_nothing_after_the_answer(
    rig: Rig, cases: Cases, start_other: START
) -> None:
    """Its transaction holds the case; the server ends it, and the answer that waits is taken."""
    case_id = await cases.open()
    with ExitStack() as thawing:
        async with rig.locked("LOCK TABLE alerts.outbox IN SHARE MODE"):
            cases.due(case_id)
            await rig.waits_for_a_lock()
            thawing.enter_context(frozen(rig.stack.pid("alerts")))
        other = await start_other()

        async def taken() -> bool:
            said = await cases.answer(case_id, replica=other, key="the same")
            assert said.status in {200, 503}, said
            return said.status == 200

        await eventually(taken, 30)
        await cases.take(case_id, replica=other, key="the same")
    await rig.flowing()
    await cases.end(case_id, "answered", steps=0)
