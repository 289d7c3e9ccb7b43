"""A case that was taken and forgotten is given back (docs/protocols.md, D, step 14)."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.answers import Answers
from services.alerts.rules.case import Change, Rules, State, Verb
from services.alerts.store.cases import cases as store
from services.alerts.store.cases import privacy as case_privacy
from tests.integration.alerts.cases import (
    NEVER,
    Cases,
    answer,
    closed_for_two_days,
    dies_at,
    with_policy,
)
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.integration.alerts.test_case_http import call, opened, sections
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

FOUR_HOURS = 4 * 3600.0
NEEDS = {"slack": "slack", "sms": "phone", "email": "email"}


def rules(**changes: Any) -> Rules:
    return replace(with_policy(done_within=FOUR_HOURS, **changes), needs=NEEDS)


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine, rules())


async def forget(subject: Cases, times: int = 1) -> None:
    """Let the time for an outcome be over, and the timer run."""
    for _ in range(times):
        await subject.execute(
            "UPDATE alert_case SET next_at = now() WHERE state = 'answered' AND outcome IS NULL"
        )
        await subject.timer.run()


async def given_back(subject: Cases, case_id: UUID) -> list[Any]:
    return await subject.rows(
        "SELECT person, verb, via, reason FROM case_answer WHERE case_id = :id AND via = 'timer'",
        id=case_id,
    )


async def test_a_take_is_due_after_its_time_and_an_outcome_takes_that_away(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    row = await subject.case(case_id)
    assert row.next_at - row.answered_at == timedelta(seconds=FOUR_HOURS)
    await subject.take(case_id)  # again: no more time
    assert (await subject.case(case_id)).next_at == row.next_at
    await subject.answer(case_id, answer(Verb.WON))
    assert (await subject.case(case_id)).next_at is None


async def test_the_owner_is_reminded_once_and_then_the_case_is_given_back(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.tick(2)
    await subject.take(case_id, "ewa")
    before = await subject.case(case_id)
    await forget(subject)
    reminder = (await subject.steps(case_id))[-1]
    assert (reminder.generation, reminder.number) == (0, 2)
    assert (reminder.person, reminder.target, reminder.state) == ("ewa", "sms", "pending")
    row = await subject.sees(case_id, state="answered", owner="ewa", reminded=True, step=2)
    assert row.next_at - reminder.handed_out_at == timedelta(seconds=FOUR_HOURS)
    assert row.ended_at == before.ended_at
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 3
    await forget(subject)
    row = await subject.sees(case_id, state="open", owner=None, generation=1, step=0)
    assert not row.reminded
    assert await given_back(subject, case_id) == [("ewa", "release", "timer", "no outcome in time")]
    assert (await subject.steps(case_id))[-1].state == "discarded"
    await subject.timer.run()  # the chain begins anew
    assert [step.number for step in await subject.steps(case_id) if step.generation == 1] == [0]
    assert await subject.balanced()


@pytest.mark.parametrize("verb", [Verb.WON, Verb.RELEASE])
async def test_what_the_owner_answers_recalls_the_reminder(subject: Cases, verb: Verb) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await forget(subject)
    await subject.answer(case_id, answer(verb))
    (reminder,) = await subject.steps(case_id)
    assert (reminder.state, reminder.reason) == ("discarded", "answered")
    await subject.timer.run()
    assert await given_back(subject, case_id) == []


async def test_a_resolved_or_erased_case_is_neither_reminded_nor_given_back(subject: Cases) -> None:
    resolved = await subject.accept(dedup_key="pump 7")
    erased = await subject.accept()
    for case_id in (resolved, erased):
        await subject.take(case_id)
    await forget(subject)
    await subject.accept(dedup_key="pump 7", resolved=True)
    async with subject.engine.begin() as tx:
        await case_privacy.erase(tx, erased)
    for case_id in (resolved, erased):
        assert (await subject.case(case_id)).next_at is None
        assert [step.state for step in await subject.steps(case_id)] == ["discarded"]
    await subject.timer.run()
    assert {(await subject.case(each)).state for each in (resolved, erased)} == {"answered"}


async def test_many_timers_remind_once_and_give_back_once(subject: Cases) -> None:
    ids = [await subject.accept() for _ in range(10)]
    for case_id in ids:
        await subject.take(case_id)
    for _ in range(2):
        await subject.execute("UPDATE alert_case SET next_at = now() WHERE state = 'answered'")
        await asyncio.gather(*(subject.timer.run() for _ in range(5)))
    for case_id in ids:
        assert len(await given_back(subject, case_id)) == 1
        assert (await subject.case(case_id)).generation == 1
        assert len([s for s in await subject.steps(case_id) if s.generation == 0]) == 1
    told = await subject.rows("SELECT body FROM outbox WHERE type = 'case.released'")
    assert sorted(row.body["case_id"] for row in told) == sorted(map(str, ids))
    assert await subject.balanced()


async def test_an_outcome_that_comes_first_keeps_the_case(subject: Cases) -> None:
    """Rule DUE: the timer looks again under the lock."""
    case_id = await subject.accept()
    await subject.take(case_id)
    await forget(subject)
    await subject.execute("UPDATE alert_case SET next_at = now()")
    async with subject.engine.begin() as held:
        row = await store.lock(held, case_id)
        giving = asyncio.create_task(Answers(subject.engine, subject.rules).give_back(case_id))
        await eventually(lambda: waits_for_a_row(subject.engine))
        await store.change(held, row, Change(State.ANSWERED, "anna", "Anna Nowak", Verb.WON))
    await giving
    await subject.sees(case_id, state="answered", outcome="won", generation=0)


async def test_a_timer_that_dies_before_its_commit_leaves_the_case_as_it_was(
    subject: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)

    for place in ("intake.outbox.add_all", "cases.answers.cases.record"):
        before = await subject.case(case_id)
        await subject.execute("UPDATE alert_case SET next_at = now()")
        with dies_at(monkeypatch, place, asyncio.CancelledError):
            await subject.timer.run()
        await subject.sees(
            case_id, state="answered", reminded=before.reminded, version=before.version
        )
        await subject.timer.run()
    assert (await subject.case(case_id)).generation == 1


async def test_outside_the_hours_the_owner_is_left_in_peace(engine: AsyncEngine) -> None:
    today, closed = datetime.now(UTC).date(), closed_for_two_days()
    subject = Cases(engine, replace(rules(hours="office"), hours={"office": closed}))
    case_id = await subject.accept()
    await subject.take(case_id)
    for reminded in (False, True):
        await subject.execute(f"UPDATE alert_case SET reminded = {reminded}")
        await forget(subject)
        row = await subject.sees(case_id, state="answered", reminded=reminded)
        assert (row.next_at.date(), row.next_at.hour) == (today + timedelta(days=2), 9)
    assert await subject.steps(case_id) == []


async def test_a_policy_that_left_the_configuration_reminds_no_one(engine: AsyncEngine) -> None:
    subject = Cases(engine, rules())
    case_id = await subject.accept()
    await subject.take(case_id)
    other = Cases(engine, Rules())
    await forget(other)
    await subject.sees(case_id, state="answered", next_at=None)


async def test_a_reminder_may_be_retried_until_the_case_moves_on(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await forget(subject)
    (reminder,) = await subject.steps(case_id)
    assert await subject.settle(await subject.claim(reminder), NEVER) == "failed"
    async with subject.engine.begin() as tx:
        assert await store.may_be_pending(tx, reminder.alert_id)
    await forget(subject)
    async with subject.engine.begin() as tx:
        assert not await store.may_be_pending(tx, reminder.alert_id)


async def test_an_overdue_reminder_is_a_fault_of_the_check(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await subject.execute("UPDATE alert_case SET next_at = now() - interval '2 minutes'")
    found = await subject.check()
    assert (found["ok"], found["stranded"]) == (False, 1)
    assert (await subject.case(case_id)).state == "answered"


LOST = "state = 'unanswered', owner = NULL, owner_name = NULL, answered_at = NULL"


async def test_an_owner_is_reminded_with_a_way_to_answer_and_then_asked_again(
    alerts: StartAlerts,
) -> None:
    ask = {"to": "email", "person": "anna", "wait": "1h"}
    subject = await alerts(sections=sections(within="1h", done_within="2s", chain=[ask]))
    case_id = await opened(subject)
    path = f"/api/cases/{case_id}"
    status, _ = await call(subject, "POST", f"{path}/answer", {"answer": "taken", "by": "anna"})
    assert status == 200
    mails = await eventually(lambda: subject.sandbox.mails("anna@example.pl"), 30)
    assert "Anna Nowak has had it since" in mails[0]["Subject"]
    assert "How did it end?\r\nAnswer: http" in mails[0]["Text"]
    assert "/a/" in mails[0]["Text"]
    _, case = await eventually(
        lambda: call(subject, "GET", path),
        so=lambda found: (found[1]["state"], found[1]["step"]) == ("open", 1),
    )
    assert case["generation"] == 1
    assert [each["via"] for each in case["answers"]] == ["api", "timer"]
    shown = await subject.metrics()
    for what in ("reminded", "released"):
        assert f'alerts_case_forgotten_total{{what="{what}"}} 1.0' in shown
