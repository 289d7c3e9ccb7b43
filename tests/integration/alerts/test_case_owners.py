"""A case that somebody has is given back, handed over, put off (docs/protocols.md, D)."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.answers import Answers, Refusal
from services.alerts.rules.case import Change, Person, Refused, Rules, State, Verb
from services.alerts.rules.silence import Weekly
from services.alerts.store.cases import cases as store
from services.alerts.store.cases import privacy as case_privacy
from tests.integration.alerts.cases import (
    NEVER,
    PEOPLE,
    RULES,
    Cases,
    answer,
    closed_for_two_days,
    dies_at,
    with_policy,
)
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.integration.alerts.test_case_http import PEOPLE as SECTION
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


MINUTES = timedelta(minutes=30)


def handed(to: str = "ewa", person: str = "anna", **fields: Any) -> Any:
    return answer(Verb.HAND_OVER, person, to=PEOPLE.get(to), to_key=to, **fields)


def wish(at: datetime | None = None, person: str = "anna", **fields: Any) -> Any:
    return answer(Verb.REMIND, person, until=at or datetime.now(UTC) + MINUTES, **fields)


async def why(subject: Cases, case_id: Any, given: Any) -> Any:
    result = await subject.answer(case_id, given)
    return result.why if isinstance(result, Refusal) else None


async def test_an_owner_is_reminded_when_they_asked_for_it_at_whatever_hour(
    engine: AsyncEngine,
) -> None:
    closed = replace(with_policy(hours="office"), hours={"office": closed_for_two_days()})
    subject = Cases(engine, replace(closed, needs=NEEDS))
    case_id = await subject.accept()
    await subject.take(case_id)
    given = wish()
    assert await why(subject, case_id, given) is None
    assert await why(subject, case_id, given) is None  # the same key
    await subject.sees(case_id, state="answered", owner="anna", next_at=given.until, wished=True)
    await forget(subject)
    assert [(step.person, step.state) for step in await subject.steps(case_id)] == [
        ("anna", "pending")
    ]
    await subject.sees(case_id, state="answered", next_at=None, wished=False, reminded=False)
    assert await why(subject, case_id, wish()) is None  # once more
    await forget(subject)
    assert [step.number for step in await subject.steps(case_id)] == [0, 1]
    assert await subject.balanced()


async def test_only_the_owner_of_a_live_case_asks_for_it_and_not_for_years(subject: Cases) -> None:
    case_id = await subject.accept()
    assert await why(subject, case_id, wish()) is Refused.STALE
    await subject.take(case_id)
    assert await why(subject, case_id, wish(person="ewa", admin=True)) is Refused.ANSWERED
    late = datetime.now(UTC) + timedelta(days=15)
    assert await why(subject, case_id, wish(late)) is Refused.TOO_LATE
    assert await why(subject, case_id, wish(datetime.now(UTC))) is Refused.TOO_LATE
    await subject.answer(case_id, answer(Verb.DONE))
    assert await why(subject, case_id, wish()) is Refused.STALE
    assert await why(subject, case_id, handed()) is Refused.STALE


async def test_a_case_is_handed_over_and_the_colleague_is_told(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.tick()
    await subject.take(case_id)
    given = handed()
    result = await subject.answer(case_id, given)
    row = await subject.sees(
        case_id, state="answered", owner="ewa", owner_name="Ewa Lis", generation=1
    )
    assert isinstance(result, dict)
    assert (result["owner"], result["version"]) == ("Ewa Lis", row.version)
    assert await subject.answer(case_id, given) == result
    told = (await subject.steps(case_id))[-1]
    assert (told.person, told.target, told.state, told.number) == ("ewa", "sms", "pending", 0)
    assert row.next_at - row.answered_at == timedelta(hours=4)
    kept = await subject.rows("SELECT verb, person FROM case_answer ORDER BY id")
    assert [tuple(each) for each in kept][1:] == [("taken", "ewa"), ("hand_over", "anna")]
    assert await why(subject, case_id, answer(Verb.DONE, generation=0)) is Refused.STALE
    await forget(subject)  # the next message to her has another number
    assert [step.number for step in await subject.steps(case_id)][-2:] == [0, 1]
    assert (await subject.check())["ok"]
    assert await subject.balanced()


async def test_only_the_owner_and_an_admin_hand_over(subject: Cases) -> None:
    case_id = await subject.accept()
    assert await why(subject, case_id, handed()) is Refused.STALE
    await subject.take(case_id)
    assert await why(subject, case_id, handed("ewa", "ewa")) is Refused.ANSWERED
    before = await subject.case(case_id)
    assert await why(subject, case_id, handed("anna")) is None  # who has it
    assert await subject.case(case_id) == before
    assert await why(subject, case_id, handed("ewa", "ola", admin=True)) is None
    assert (await subject.case(case_id)).owner == "ewa"


def asleep(*names: str, critical: bool = False) -> Rules:
    """Return rules whose people are quiet for the hour around now."""
    now = datetime.now(UTC)
    clock = [(now + timedelta(hours=n)).time().replace(second=0, microsecond=0) for n in (-1, 1)]
    quiet = Weekly(frozenset(range(1, 8)), clock[0], clock[1], ZoneInfo("UTC"))
    people: dict[str, Person] = {
        key: replace(each, quiet=quiet, quiet_if_critical=critical) if key in names else each
        for key, each in PEOPLE.items()
    }
    return replace(RULES, people=people)


async def test_who_is_quiet_is_asked_after_who_is_not(engine: AsyncEngine) -> None:
    subject = Cases(engine, asleep("anna"))
    case_id = await subject.accept()
    await subject.tick()
    (step,) = await subject.steps(case_id)
    assert (step.person, step.target, step.number) == ("ewa", "email", 0)
    await subject.tick()
    row = await subject.case(case_id)
    assert len(await subject.steps(case_id)) == 1
    assert timedelta(minutes=50) < row.next_at - datetime.now(UTC) <= timedelta(hours=1)
    awake = Cases(engine, RULES)
    await awake.tick(3)
    assert [step.person for step in await subject.steps(case_id)] == ["ewa", "anna", "anna"]
    assert (await subject.case(case_id)).state == "unanswered"
    assert (await subject.check())["ok"]


@pytest.mark.parametrize(("even", "person"), [("", "anna"), ("critical", "ewa")])
async def test_a_critical_alert_asks_at_night_unless_told_not_to(
    engine: AsyncEngine, even: str, person: str
) -> None:
    subject = Cases(engine, asleep("anna", critical=bool(even)))
    case_id = await subject.accept(severity="critical")
    await subject.tick()
    assert [step.person for step in await subject.steps(case_id)] == [person]


async def test_a_forgetful_owner_is_not_reminded_in_their_sleep(engine: AsyncEngine) -> None:
    subject = Cases(engine, replace(rules(), people=asleep("anna").people))
    case_id = await subject.accept()
    await subject.take(case_id)
    await forget(subject)
    assert await subject.steps(case_id) == []
    await subject.answer(case_id, wish())
    await forget(subject)
    assert len(await subject.steps(case_id)) == 1


def rota(folder: Path, *people: str) -> list[datetime]:
    """Write shifts of a day each, from tomorrow; when they begin."""
    first = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(), UTC)
    days = [first + timedelta(days=n) for n in range(len(people))]
    events = (
        f"BEGIN:VEVENT\r\nUID:{day:%d}\r\nDTSTART:{day:%Y%m%dT%H%M%SZ}\r\nDURATION:P1D\r\n"
        f"SUMMARY:{person}\r\nEND:VEVENT\r\n"
        for day, person in zip(days, people, strict=True)
    )
    head = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//t//t//\r\n"
    (folder / "rota.ics").write_text(f"{head}{''.join(events)}END:VCALENDAR\r\n", encoding="utf-8")
    return days


async def test_two_shifts_are_swapped_and_a_case_is_handed_over_over_http(
    alerts: StartAlerts, tmp_path: Path
) -> None:
    days = rota(tmp_path, "anna", "ewa", "anna")
    subject = await alerts(sections=sections(chain=[{"to": "sms", "call": "sales", "wait": "12h"}]))
    _, shown = await call(subject, "GET", "/api/oncall", caller="admin")
    assert [each["person"] for each in shown["schedules"]["sales"]["shifts"]] == [
        "anna", "ewa", "anna",
    ]  # fmt: skip
    at = [(day + timedelta(hours=1)).isoformat() for day in days]
    body = {"schedule": "sales", "shifts": at[:2], "why": "a wedding"}
    for change, field in (
        ({"schedule": "ops"}, "schedule"),
        ({"shifts": [at[0], "2020-01-01T00:00:00Z"]}, "shifts.1"),
        ({"shifts": [at[0], at[2]]}, "shifts"),
        ({"shifts": at[:1]}, "shifts"),
    ):
        status, problem = await call(
            subject, "POST", "/api/oncall/swaps", body | change, caller="admin"
        )
        assert (status, problem["errors"][0]["field"]) == (422, field)
    status, made = await call(subject, "POST", "/api/oncall/swaps", body, caller="admin")
    assert (status, len(made["ids"])) == (200, 2)
    again, _ = await call(subject, "POST", "/api/oncall/swaps", body, caller="admin")
    assert again == 409
    _, shown = await call(subject, "GET", "/api/oncall", caller="admin")
    assert [(each["person"], each["begins"]) for each in shown["overrides"]] == [
        ("ewa", days[0].isoformat()), ("anna", days[1].isoformat()),
    ]  # fmt: skip
    assert {each["why"] for each in shown["overrides"]} == {"a wedding"}
    case_id = await subject.accept("lead.qualified", source="followups")
    await subject.until(case_id, "delivered")
    path = f"/api/cases/{case_id}/answer"

    async def says(**given: Any) -> tuple[int, Any]:
        return await call(subject, "POST", path, given)

    assert (await says(answer="taken", by="anna"))[0] == 200
    assert (await says(answer="hand_over", by="anna"))[0] == 422
    assert (await says(answer="hand_over", by="anna", to="nobody"))[0] == 422
    assert (await says(answer="remind", by="anna"))[0] == 422
    status, after = await says(answer="hand_over", by="anna", to="ewa")
    assert (status, after["owner"]) == (200, SECTION["ewa"]["name"])
