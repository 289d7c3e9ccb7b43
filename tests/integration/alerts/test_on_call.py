"""Whom a step asks: by the schedule's file, by an override, while the service runs."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.rules.shifts import Shift
from services.alerts.store.cases import overrides
from tests.integration.alerts.cases import Cases
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.integration.alerts.test_case_http import PEOPLE, lead, sections
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
SMS = {"to": "sms", "call": "sales", "wait": "12h"}


async def add(engine: AsyncEngine, begins: int, ends: int, schedule: str = "sales") -> int | None:
    shift = Shift(NOW + begins * HOUR, NOW + ends * HOUR, "ewa")
    async with engine.begin() as tx:
        return await overrides.add(tx, schedule, shift, by="ola", why="ill")


async def test_overrides_of_one_schedule_do_not_overlap(engine: AsyncEngine) -> None:
    assert await add(engine, 0, 2) is not None
    assert await add(engine, 1, 3) is None
    assert await add(engine, -1, 5) is None
    assert await add(engine, 2, 3) is not None
    assert await add(engine, 1, 3, "ops") is not None
    async with engine.connect() as tx:
        found = await overrides.current(tx)
    assert {name: len(some) for name, some in found.items()} == {"sales": 2, "ops": 1}


async def test_of_many_at_once_that_overlap_one_is_made(engine: AsyncEngine) -> None:
    made = await asyncio.gather(*(add(engine, 0, 2) for _ in range(10)))
    assert sum(each is not None for each in made) == 1


async def test_one_that_is_over_or_removed_does_not_count(engine: AsyncEngine) -> None:
    await add(engine, -3, -1)
    number = await add(engine, 0, 1)
    async with engine.begin() as tx:
        assert (await overrides.run(tx, "remove", id=number or 0)).rowcount
        assert not (await overrides.run(tx, "remove", id=number or 0)).rowcount
        assert await overrides.current(tx) == {}


def on_duty(folder: Path, person: str) -> None:
    yesterday = f"{NOW - timedelta(days=1):%Y%m%d}"
    tomorrow = f"{NOW + timedelta(days=2):%Y%m%d}"
    lines = (
        "BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//t//t//", "BEGIN:VEVENT", "UID:1",
        f"DTSTART;VALUE=DATE:{yesterday}", f"DTEND;VALUE=DATE:{tomorrow}", f"SUMMARY:{person}",
        "END:VEVENT", "END:VCALENDAR", "",
    )  # fmt: skip
    (folder / "rota.ics").write_text("\r\n".join(lines), encoding="utf-8")


async def called(subject: Alerts) -> list[str]:
    return [str(each["body"]["to"]) for each in await subject.sandbox.received("sms")]


async def test_a_step_asks_who_is_on_call_when_it_is_handed_out(
    alerts: StartAlerts, tmp_path: Path
) -> None:
    ewa, anna = PEOPLE["ewa"]["phone"], PEOPLE["anna"]["phone"]
    on_duty(tmp_path, "Ewa")
    subject = await alerts(sections=sections(chain=[SMS]))

    async def asks(expected: str) -> bool:
        await lead(subject)
        before = len(await called(subject))
        got = await eventually(lambda: _more(subject, before), 30)
        return got[-1] == expected

    assert await asks(ewa)
    on_duty(tmp_path, "anna")
    await eventually(lambda: asks(anna), 60)
    async with subject.engine.begin() as tx:
        shift = Shift(NOW - HOUR, NOW + HOUR, "ewa")
        await overrides.add(tx, "sales", shift, by="ola", why=None)
    await eventually(lambda: asks(ewa), 60)
    (tmp_path / "rota.ics").write_text("no calendar", encoding="utf-8")
    await overrides.run.alone(subject.engine, "remove", id=1)
    await eventually(lambda: asks(anna), 60)  # the last good file still counts


def override(person: str = "ewa", hours: int = 2, **changes: Any) -> dict[str, Any]:
    ends = (datetime.now(UTC) + hours * HOUR).isoformat()
    return {"schedule": "sales", "person": person, "ends": ends, **changes}


async def test_an_override_is_made_shown_and_removed_by_its_number(
    alerts: StartAlerts, tmp_path: Path
) -> None:
    on_duty(tmp_path, "anna")
    subject = await alerts(sections=sections(chain=[SMS]))

    async def now() -> dict[str, Any]:
        _, found = await subject.http("GET", "/api/oncall")
        return dict(found)

    sales = (await now())["schedules"]["sales"]
    assert (sales["name"], sales["rule"], sales["fault"]) == ("Anna Nowak", "shift", None)
    assert sales["gap_seconds"] == 0
    gaps = [(each["begins"], each["ends"]) for each in sales["gaps"]]
    assert gaps == [
        (each["begins"], each["ends"]) for each in sales["week"] if each["rule"] == "otherwise"
    ]
    path = "/api/oncall/overrides"
    status, made = await subject.http("POST", path, override(why="Anna is ill"))
    assert status == 200
    found = await now()
    sales = found["schedules"]["sales"]
    assert (sales["name"], sales["rule"]) == ("Ewa Lis", "override")
    (listed,) = found["overrides"]
    assert (listed["id"], listed["why"], sales["until"]) == (
        made["id"],
        "Anna is ill",
        listed["ends"],
    )
    assert (await subject.http("POST", path, override()))[0] == 409
    assert (await subject.http("DELETE", f"{path}/{made['id']}"))[0] == 200
    assert (await subject.http("DELETE", f"{path}/{made['id']}"))[0] == 404
    assert (await now())["schedules"]["sales"]["person"] == "anna"


async def test_an_override_may_end_at_a_time_of_any_offset(alerts: StartAlerts) -> None:
    subject = await alerts(sections=sections(chain=[SMS]))
    far = override(ends="2999-12-04T10:42:00.4+21:32")  # PostgreSQL takes no offset of 16 hours
    assert (await subject.http("POST", "/api/oncall/overrides", far))[0] == 200
    _, found = await subject.http("GET", "/api/oncall")
    assert [each["ends"] for each in found["overrides"]] == ["2999-12-03T13:10:00.400000+00:00"]


async def test_quiet_hours_are_set_shown_and_taken_back_and_others_are_asked_first(
    alerts: StartAlerts, tmp_path: Path
) -> None:
    on_duty(tmp_path, "anna")
    file = {"begins": "01:00", "ends": "01:01", "zone": "UTC"}
    people = PEOPLE | {"anna": PEOPLE["anna"] | {"quiet": file}}
    chain = [SMS, {"to": "sms", "person": "ewa", "wait": "12h"}]
    subject = await alerts(sections=sections(chain=chain) | {"people": people})
    path = "/api/oncall/quiet/anna"
    around = (datetime.now(UTC) + each * HOUR for each in (-1, 1))
    begins, ends = (f"{each:%H:%M}" for each in around)
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    weekly = {"days": days, "begins": begins, "ends": ends, "zone": "UTC"}

    async def shown(operator: str = "tester") -> Any:
        _, found = await subject.http("GET", "/api/oncall", X_Operator=operator)
        return found["people"]["anna"]["quiet"], found["you"]

    of_the_file = file | {"days": days, "critical": False}
    assert await shown() == (of_the_file, None)
    status, told = await subject.http("PUT", path, {"weekly": weekly})
    assert (status, told["quiet"]) == (200, weekly | {"critical": False})
    assert await shown("staff:7 Anna Nowak") == (told["quiet"], "anna")
    for anna in ({"X_Operator": "staff:7 Anna Nowak"}, {"X_Operator": "staff:9 Nobody"}):
        known = 200 if "Anna" in anna["X_Operator"] else 404
        own = "/api/oncall/quiet"
        assert (await subject.http("PUT", own, {"weekly": weekly}, **anna))[0] == known
        status, found = await subject.http("GET", own, **anna)
        assert (status, found.get("quiet")) == (known, told["quiet"] if known == 200 else None)

    async def asks(*expected: str) -> bool:
        before = len(await called(subject))
        await lead(subject)
        return (await eventually(lambda: _more(subject, before), 30))[-1] in expected

    await eventually(lambda: asks(PEOPLE["ewa"]["phone"]), 60)
    assert (await subject.http("PUT", path, {}))[1]["quiet"] == of_the_file
    await eventually(lambda: asks(PEOPLE["anna"]["phone"]), 60)


async def _more(subject: Alerts, before: int) -> list[str]:
    got = await called(subject)
    return got if len(got) > before else []


async def test_a_file_that_cannot_be_used_is_told_in_a_mail(
    alerts: StartAlerts, tmp_path: Path
) -> None:
    on_duty(tmp_path, "bob")
    subject = await alerts(sections=sections(chain=[SMS]), ESCALATION_EMAIL="ops@example.com")
    (mail,) = await eventually(lambda: subject.sandbox.mails("ops@example.com"), 30)
    assert mail["Subject"] == "Ostoja: the rota sales is not as its file says"
    assert "rota.ics: bob is not in [people] with what" in mail["Text"]
    cases = Cases(subject.engine)
    (row,) = await cases.rows("SELECT kind, target FROM incident")
    assert (row.kind, row.target) == ("rota", "sales")
