"""What people do with a case they have, and when they are not asked (docs/protocols.md, D)."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.answers import Refusal
from services.alerts.rules.case import Person, Refused, Rules, Verb
from services.alerts.rules.silence import Weekly
from tests.integration.alerts.cases import (
    PEOPLE,
    RULES,
    Cases,
    answer,
    closed_for_two_days,
    with_policy,
)
from tests.integration.alerts.conftest import StartAlerts
from tests.integration.alerts.test_case_forgotten import NEEDS, forget, rules
from tests.integration.alerts.test_case_http import PEOPLE as SECTION
from tests.integration.alerts.test_case_http import call, sections

pytestmark = pytest.mark.promise("P9")

MINUTES = timedelta(minutes=30)


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine, rules())


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
