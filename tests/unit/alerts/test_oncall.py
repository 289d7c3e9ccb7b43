"""Who is on call: by overrides, by the shifts of an iCalendar file, otherwise whom one names."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.domain.hours import Hours
from services.alerts.config.rota import AGAIN, Rota, read
from services.alerts.rules.shifts import OnCall, Rule, Shift, gaps, who

WARSAW = ZoneInfo("Europe/Warsaw")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)


def shift(begins: int, ends: int, person: str) -> Shift:
    """Hours from NOON."""
    return Shift(NOON + begins * HOUR, NOON + ends * HOUR, person)


@pytest.mark.parametrize(
    ("shifts", "overrides", "expected"),
    [
        ([shift(-1, 2, "anna")], [], OnCall("anna", Rule.SHIFT, NOON + 2 * HOUR)),
        ([shift(0, 2, "anna")], [], OnCall("anna", Rule.SHIFT, NOON + 2 * HOUR)),
        ([shift(-2, 0, "anna")], [], OnCall("ewa", Rule.OTHERWISE)),
        ([shift(3, 5, "anna")], [], OnCall("ewa", Rule.OTHERWISE, NOON + 3 * HOUR)),
        # The shift that began last, and the one beneath it when it is over.
        (
            [shift(-9, 9, "anna"), shift(-1, 1, "jan")],
            [],
            OnCall("jan", Rule.SHIFT, NOON + HOUR),
        ),
        (
            [shift(-1, 1, "anna")],
            [shift(-2, 4, "jan")],
            OnCall("jan", Rule.OVERRIDE, NOON + 4 * HOUR),
        ),
        # Two shifts of one person in a row are one time on call.
        (
            [shift(-1, 1, "anna"), shift(1, 3, "anna")],
            [],
            OnCall("anna", Rule.SHIFT, NOON + 3 * HOUR),
        ),
    ],
)
def test_an_override_comes_first_then_the_shift_that_began_last(
    shifts: list[Shift], overrides: list[Shift], expected: OnCall
) -> None:
    assert who("ewa", shifts, overrides, NOON) == expected
    assert who("ewa", shifts[::-1], overrides, NOON) == expected


some_shifts = st.lists(
    st.builds(
        lambda begins, length, person: shift(begins, begins + length, person),
        st.integers(-50, 50), st.integers(1, 30), st.sampled_from(["anna", "jan"]),
    ),
    max_size=6,
)  # fmt: skip


@given(some_shifts, some_shifts, st.integers(-60, 60))
def test_until_its_end_the_answer_stays_and_there_it_changes(
    shifts: list[Shift], overrides: list[Shift], hours: int
) -> None:
    now = NOON + hours * HOUR
    found = who("ewa", shifts, overrides, now)
    end = found.until or NOON + 100 * HOUR
    at = now
    while at < end:
        later = who("ewa", shifts, overrides, at)
        assert (later.person, later.rule) == (found.person, found.rule)
        at += HOUR
    if found.until:
        later = who("ewa", shifts, overrides, found.until)
        assert (later.person, later.rule) != (found.person, found.rule)


@given(some_shifts, some_shifts)
def test_the_gap_is_what_falls_to_the_schedule_s_own_person(
    shifts: list[Shift], overrides: list[Shift]
) -> None:
    hours = [who("ewa", shifts, overrides, NOON + n * HOUR).rule for n in range(24)]
    expected = hours.count(Rule.OTHERWISE) * HOUR
    found = gaps(shifts, overrides, NOON, NOON + 24 * HOUR)
    assert sum((end - begin for begin, end in found), timedelta()) == expected


def calendar(*events: str) -> str:
    body = "".join(
        f"BEGIN:VEVENT\nUID:{n}\n{event}\nEND:VEVENT\n" for n, event in enumerate(events)
    )
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//t//t//\n{body}END:VCALENDAR\n"
    return text.replace("\n", "\r\n")


def shifts_of(folder: Path, *events: str, at: datetime = NOON) -> list[Shift]:
    path = folder / "rota.ics"
    path.write_text(calendar(*events), encoding="utf-8")
    return read(path, WARSAW, at, at + timedelta(days=14))


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=WARSAW).astimezone(UTC)


def test_an_all_day_shift_is_a_day_of_the_hours_zone(tmp_path: Path) -> None:
    event = "DTSTART;VALUE=DATE:20261125\nDTEND;VALUE=DATE:20261127\nSUMMARY:Anna "
    assert shifts_of(tmp_path, event) == [
        Shift(local("2026-11-25 00:00"), local("2026-11-27 00:00"), "anna")
    ]


def test_a_day_on_which_the_clocks_change_has_23_or_25_hours(tmp_path: Path) -> None:
    for day, hours in (("20260329", 23), ("20261025", 25)):
        event = f"DTSTART;VALUE=DATE:{day}\nSUMMARY:anna"
        at = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        (found,) = shifts_of(tmp_path, event, at=at)
        assert found.ends - found.begins == hours * HOUR


def test_a_weekly_shift_stays_at_its_hour_over_a_change_of_clocks(tmp_path: Path) -> None:
    event = (
        "DTSTART;TZID=Europe/Warsaw:20260302T090000\nDTEND;TZID=Europe/Warsaw:20260302T170000\n"
        "RRULE:FREQ=WEEKLY;BYDAY=MO\nEXDATE;TZID=Europe/Warsaw:20260406T090000\nSUMMARY:jan"
    )
    found = shifts_of(tmp_path, event, at=local("2026-03-23 00:00"))
    assert [each.begins for each in found] == [local("2026-03-23 09:00"), local("2026-03-30 09:00")]
    assert shifts_of(tmp_path, event, at=local("2026-04-06 00:00"))[0].begins == local(
        "2026-04-13 09:00"
    )


def test_a_time_without_a_zone_is_in_the_hours_zone_and_a_cancelled_event_is_none(
    tmp_path: Path,
) -> None:
    events = (
        "DTSTART:20261125T140000\nDTEND:20261125T180000\nSUMMARY:anna",
        "DTSTART:20261125T140000Z\nDURATION:PT2H\nSUMMARY:jan",
        "DTSTART:20261125T140000\nDTEND:20261125T180000\nSUMMARY:ewa\nSTATUS:CANCELLED",
    )
    assert shifts_of(tmp_path, *events) == [
        Shift(local("2026-11-25 14:00"), local("2026-11-25 18:00"), "anna"),
        Shift(NOON + 2 * HOUR, NOON + 4 * HOUR, "jan"),
    ]


def test_a_shift_that_began_days_ago_is_known(tmp_path: Path) -> None:
    event = "DTSTART:20261116T080000Z\nDTEND:20261130T080000Z\nSUMMARY:anna"
    (found,) = shifts_of(tmp_path, event)
    assert found.covers(NOON)


@pytest.fixture
def rota(tmp_path: Path) -> Rota:
    hours = Hours(WARSAW, None, None)
    subject = Rota(tmp_path / "rota.ics", "ewa", hours, frozenset({"anna", "jan"}))
    write(subject, "DTSTART;VALUE=DATE:20261125\nSUMMARY:anna")
    subject.refresh(NOON)
    return subject


def write(rota: Rota, *events: str, text: str | None = None) -> None:
    before = rota.path.stat().st_mtime_ns if rota.path.exists() else 0
    rota.path.write_text(calendar(*events) if text is None else text, encoding="utf-8")
    os.utime(rota.path, ns=(before + 10**9, before + 10**9))


def people(rota: Rota) -> list[str]:
    return [each.person for each in rota.shifts]


def test_a_file_that_has_changed_is_read_again(rota: Rota) -> None:
    assert (people(rota), rota.fault) == (["anna"], None)
    write(rota, "DTSTART;VALUE=DATE:20261125\nSUMMARY:jan")
    rota.refresh(NOON)
    assert people(rota) == ["jan"]


@pytest.mark.parametrize("text", ["", "<html>", "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\n", "x" * 2**21])
def test_a_file_that_does_not_parse_leaves_the_last_good_one_and_a_fault(
    rota: Rota, text: str
) -> None:
    write(rota, text=text)
    for _ in range(2):
        rota.refresh(NOON)
        assert people(rota) == ["anna"]
        assert rota.fault is not None
    write(rota, "DTSTART;VALUE=DATE:20261125\nSUMMARY:jan")
    rota.refresh(NOON)
    assert (people(rota), rota.fault) == (["jan"], None)


def test_a_file_that_has_gone_leaves_the_last_one_and_a_fault(rota: Rota) -> None:
    rota.path.unlink()
    rota.refresh(NOON)
    assert people(rota) == ["anna"]
    assert rota.fault == "rota.ics: No such file or directory"


def test_whom_its_messages_cannot_reach_is_not_on_call_and_named(rota: Rota) -> None:
    write(rota, *(f"DTSTART;VALUE=DATE:20261125\nSUMMARY:{name}" for name in ("bob", "jan", "al")))
    rota.refresh(NOON)
    assert people(rota) == ["jan"]
    assert rota.fault == (
        "rota.ics: al, bob are not in [people] with what the schedule's messages need"
    )


def test_shifts_stay_known_as_time_passes_without_a_change_of_the_file(rota: Rota) -> None:
    write(rota, "DTSTART:20261101T080000Z\nDURATION:PT8H\nRRULE:FREQ=DAILY\nSUMMARY:anna")
    rota.refresh(NOON)
    later = NOON + timedelta(days=30)
    assert not any(each.covers(later) for each in rota.shifts)
    rota.refresh(NOON + AGAIN / 2)
    rota.refresh(later)
    assert any(each.covers(later) for each in rota.shifts)
