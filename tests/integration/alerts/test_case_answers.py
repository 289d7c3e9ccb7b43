"""After the 200 of an answer no step of its chain starts (docs/protocols.md, D, steps 5 to 13).

The tests of the model's rules are named after docs/models/answer.pml.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.answers import Refusal
from services.alerts.rules.case import Answer, Refused, Verb
from services.alerts.store import incidents
from services.alerts.store.cases import cases as store
from services.alerts.store.incidents import Way
from services.alerts.store.ledger import upkeep
from tests.integration.alerts.cases import (
    DELIVERED,
    FAILED,
    NEVER,
    Cases,
    answer,
    soon,
    with_policy,
)
from tests.integration.alerts.conftest import waits_for_a_row
from tests.support.eventually import eventually

pytestmark = [pytest.mark.quick, pytest.mark.promise("P9")]


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine)


def refused(result: Mapping[str, Any] | Refusal) -> Refused:
    assert isinstance(result, Refusal), result
    return result.why


async def test_of_ten_people_at_once_one_is_the_owner(subject: Cases) -> None:
    """Rule LOCK."""
    case_id = await subject.accept()
    given = [answer(person=f"person {number}") for number in range(10)]

    async def pressed(one: Answer) -> Mapping[str, Any] | Refusal:
        while True:
            with suppress(DBAPIError):  # the limit of 2 s: a person presses again
                return await subject.answer(case_id, one)

    async with subject.engine.begin() as held:  # until some of them have read, if they do not lock
        await store.lock(held, case_id)
        answering = [asyncio.create_task(pressed(each)) for each in given]
        await eventually(lambda: waits_for_a_row(subject.engine))
    results = await asyncio.gather(*answering)
    taken = [result for result in results if isinstance(result, Mapping)]
    others = [result for result in results if isinstance(result, Refusal)]
    assert len(taken) == 1
    owner = taken[0]["owner"]
    assert {(each.why, each.owner) for each in others} == {(Refused.ANSWERED, owner)}
    assert (await subject.case(case_id)).owner_name == owner


async def test_the_same_key_gets_the_same_result_and_changes_nothing(subject: Cases) -> None:
    """Rule KEY: taken, given back, and the taking comes again."""
    case_id = await subject.accept()
    taking = answer()
    first = await subject.answer(case_id, taking)
    assert await subject.answer(case_id, taking) == first
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert await subject.answer(case_id, taking) == first
    await subject.sees(case_id, state="open", owner=None)
    other = answer(person="ewa", key=taking.key)
    assert refused(await subject.answer(case_id, other)) is Refused.KEY_USED


async def test_an_answer_discards_the_steps_that_are_pending(subject: Cases) -> None:
    """Rule TAKE."""
    case_id = await subject.accept()
    await subject.tick(2)
    await subject.take(case_id)
    steps = await subject.steps(case_id)
    assert [(each.state, each.reason) for each in steps] == [("discarded", "answered")] * 2
    assert not await subject.claimable(steps[0])
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 2
    assert await subject.balanced()


async def test_a_step_in_flight_is_not_tried_again_after_the_answer(subject: Cases) -> None:
    """Rule MARK: a failed attempt ends it, a successful one delivers it."""
    for outcome, state in ((FAILED, "discarded"), (NEVER, "discarded"), (DELIVERED, "delivered")):
        case_id, step = await subject.asked()
        job = await subject.claim(step)
        await subject.take(case_id)
        (step,) = await subject.steps(case_id)
        assert (step.state, step.recalled) == ("sending", True)
        assert await subject.settle(job, outcome) == state
        (step,) = await subject.steps(case_id)
        assert (step.state, step.recalled) == (state, False)
    assert await subject.balanced()


async def test_a_recalled_step_whose_worker_died_is_discarded_and_not_taken_over(
    subject: Cases,
) -> None:
    """Rule MARK."""
    case_id, step = await subject.asked()
    await subject.claim(step, lease=0)
    await subject.take(case_id)
    assert not await subject.claimable(step, take_over=True)
    await upkeep.run.alone(subject.engine, "discard_recalled")
    (step,) = await subject.steps(case_id)
    assert (step.state, step.reason) == ("discarded", "answered")


async def test_a_late_worker_changes_nothing_after_the_recall(subject: Cases) -> None:
    """Rule CAS."""
    case_id, step = await subject.asked()
    late = await subject.claim(step, lease=0)
    await subject.claim(step, take_over=True)
    await subject.take(case_id)
    assert await subject.settle(late, FAILED) is None
    (step,) = await subject.steps(case_id)
    assert (step.state, step.recalled) == ("sending", True)


async def test_nothing_makes_a_step_pending_once_its_chain_is_over(subject: Cases) -> None:
    """Rule CREATE."""
    case_id, step = await subject.asked()

    async def may() -> bool:
        async with subject.engine.begin() as tx:
            return await store.may_be_pending(tx, step.alert_id)

    assert await may()
    await subject.take(case_id)
    assert not await may()
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert not await may()  # the chain began anew: the step is of an older generation


async def test_what_a_case_shows_does_not_fall_back_with_the_others(subject: Cases) -> None:
    """Rule CREATE: many rows of many cases cannot lock their cases first."""
    case_id = await subject.accept(severity="critical")
    other = await subject.accept(severity="critical", event_type="slack_alert")
    await subject.tick()
    way = Way("slack", "email", after=0)
    async with subject.engine.begin() as tx:
        others = await incidents.stuck(tx, way, asks=False, batch=10)
        asking = await incidents.stuck(tx, way, asks=True, batch=10)
    assert others == [other]
    (step,) = await subject.steps(case_id)
    assert asking == [case_id, step.alert_id]


async def test_release_begins_the_chain_anew_at_once_with_steps_of_its_own(subject: Cases) -> None:
    """Rules GEN and ARM."""
    case_id = await subject.accept()
    await subject.tick()
    await subject.take(case_id)
    await subject.answer(case_id, answer(Verb.RELEASE))
    await subject.sees(case_id, state="open", generation=1, step=0, owner=None)
    await subject.timer.run()
    old, new = await subject.steps(case_id)
    assert (old.state, new.state) == ("discarded", "pending")
    assert old.alert_id != new.alert_id


async def test_only_the_owner_and_an_admin_release(subject: Cases) -> None:
    """Rule OWN."""
    case_id = await subject.accept()
    await subject.take(case_id)
    assert refused(await subject.answer(case_id, answer(Verb.RELEASE, "ewa"))) is Refused.ANSWERED
    assert (await subject.case(case_id)).owner == "anna"
    await subject.answer(case_id, answer(Verb.RELEASE, "ewa", admin=True))
    assert (await subject.case(case_id)).state == "open"


async def test_only_an_admin_reopens(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.run_out(case_id)
    assert refused(await subject.answer(case_id, answer(Verb.REOPEN))) is Refused.ADMIN
    await subject.answer(case_id, answer(Verb.REOPEN, admin=True))
    await subject.sees(case_id, state="open", generation=1, step=0)
    assert await subject.rows("SELECT * FROM escalation WHERE target = 'cases'") == []


async def test_later_begins_the_chain_anew_then(subject: Cases) -> None:
    """Rules GEN and ARM."""
    case_id = await subject.accept()
    await subject.tick()
    until = soon(1800)
    await subject.answer(case_id, answer(Verb.LATER, until=until))
    await subject.sees(case_id, state="open", generation=1, step=0, next_at=until)
    assert (await subject.steps(case_id))[0].state == "discarded"
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 1


async def test_later_has_its_limits(engine: AsyncEngine) -> None:
    subject = Cases(engine, with_policy(later_times=2, later_most=7200.0))
    case_id = await subject.accept()

    async def later(seconds: float) -> Mapping[str, Any] | Refusal:
        return await subject.answer(case_id, answer(Verb.LATER, until=soon(seconds)))

    assert refused(await later(7500)) is Refused.TOO_LATE
    assert refused(await later(-1)) is Refused.TOO_LATE
    assert refused(await subject.answer(case_id, answer(Verb.LATER))) is Refused.TOO_LATE
    assert isinstance(await later(5000), Mapping)
    assert refused(await later(5000)) is Refused.TOO_LATE  # together more than two hours
    assert isinstance(await later(1000), Mapping)
    assert refused(await later(10)) is Refused.TOO_LATE  # a third time
    assert isinstance(await subject.answer(case_id, answer()), Mapping)


async def test_a_late_answer_to_an_unanswered_case_counts_and_says_so(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.run_out(case_id)
    later = await subject.answer(case_id, answer(Verb.LATER, until=soon()))
    assert refused(later) is Refused.TOO_LATE
    await subject.take(case_id)
    await subject.sees(case_id, state="answered", late=True, owner_name="Anna Nowak")
    assert {step.state for step in await subject.steps(case_id)} == {"discarded"}
    assert await subject.rows("SELECT * FROM escalation WHERE target = 'cases'") == []


async def test_a_cancelled_case_is_not_revived(subject: Cases) -> None:
    """Rule END."""
    case_id = await subject.accept(dedup_key="disk")
    await subject.tick()
    await subject.answer(case_id, answer(Verb.CANCEL, reason="a test", admin=True))
    for verb in (Verb.TAKEN, Verb.DONE, Verb.REOPEN, Verb.RELEASE):
        result = await subject.answer(case_id, answer(verb, admin=True))
        assert refused(result) is Refused.ENDED
        assert isinstance(result, Refusal)
        assert result.reason == "manual"
    again = answer(Verb.CANCEL, reason="again", admin=True)
    assert refused(await subject.answer(case_id, again)) is Refused.ENDED
    await subject.accept(dedup_key="disk", resolved=True)
    await subject.sees(case_id, state="cancelled", reason="manual")
    assert {step.state for step in await subject.steps(case_id)} == {"discarded"}


async def test_a_case_that_is_answered_is_not_cancelled(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    result = await subject.answer(case_id, answer(Verb.CANCEL, reason="x", admin=True))
    assert refused(result) is Refused.ANSWERED


async def test_closing_takes_it_and_only_the_owner_closes(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.answer(case_id, answer(Verb.NOT_A_LEAD, reason="spam"))
    row = await subject.sees(case_id, state="answered", outcome="not_a_lead", owner="anna")
    assert refused(await subject.answer(case_id, answer(Verb.WON, "ewa"))) is Refused.ANSWERED
    await subject.answer(case_id, answer(Verb.LOST))
    await subject.sees(case_id, outcome="lost", answered_at=row.answered_at)


async def test_each_change_makes_every_place_due_to_be_told(subject: Cases) -> None:
    """Rule TOLD."""
    case_id = await subject.accept()
    await subject.tick()

    async def wants() -> set[int]:
        return {row.want for row in await subject.rows("SELECT want FROM case_place")}

    assert await wants() == {0}
    await subject.take(case_id)
    assert await wants() == {1}
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert await wants() == {2}
    await subject.answer(case_id, answer(Verb.CANCEL, reason="x", admin=True))
    assert await wants() == {3}


async def test_the_role_of_the_service_cannot_rewrite_an_answer(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await subject.execute("UPDATE case_answer SET reason = NULL")  # an erasure
    for statement in ("UPDATE case_answer SET person = 'x'", "DELETE FROM case_answer"):
        with pytest.raises(DBAPIError):
            await subject.execute(statement)
