"""Who is on call: by overrides, by the shifts of an iCalendar file, otherwise whom one names."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import beside
from libs.domain.hours import Hours
from services.alerts.config.rota import AGAIN, Rota, read
from services.alerts.rules.shifts import OnCall, Rule, Shift, gaps, who

SAID = beside.toml(__file__)
WARSAW = ZoneInfo("Europe/Warsaw")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)


def shift(begins: int, ends: int, person: str) -> Shift:
    """Hours from NOON."""
    return Shift(NOON + begins * HOUR, NOON + ends * HOUR, person)


SHIFT, HOUR_3 = Rule.SHIFT, NOON + 3 * HOUR


@pytest.mark.parametrize(
    ("shifts", "overrides", "expected"),
    [
        ([(-1, 2, "anna")], [], OnCall("anna", SHIFT, NOON + 2 * HOUR)),
        ([(0, 2, "anna")], [], OnCall("anna", SHIFT, NOON + 2 * HOUR)),
        ([(-2, 0, "anna")], [], OnCall("ewa", Rule.OTHERWISE)),
        ([(3, 5, "anna")], [], OnCall("ewa", Rule.OTHERWISE, HOUR_3)),
        # The shift that began last, and the one beneath it when it is over.
        ([(-9, 9, "anna"), (-1, 1, "jan")], [], OnCall("jan", SHIFT, NOON + HOUR)),
        ([(-1, 1, "anna")], [(-2, 3, "jan")], OnCall("jan", Rule.OVERRIDE, HOUR_3)),
        # Two shifts of one person in a row are one time on call.
        ([(-1, 1, "anna"), (1, 3, "anna")], [], OnCall("anna", SHIFT, HOUR_3)),
    ],
)
def test_an_override_comes_first_then_the_shift_that_began_last(
    shifts: list[tuple[int, int, str]], overrides: list[tuple[int, int, str]], expected: OnCall
) -> None:
    own, instead = ([shift(*each) for each in some] for some in (shifts, overrides))
    assert who("ewa", own, instead, NOON) == expected
    assert who("ewa", own[::-1], instead, NOON) == expected


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


@pytest.mark.parametrize("row", SAID["calendar"], ids=lambda row: row["case"])
def test_a_calendar_says_who_has_which_shift(tmp_path: Path, row: dict[str, Any]) -> None:
    found = shifts_of(tmp_path, *row["events"], at=local(row["at"]))
    told = [
        f"{each.begins.astimezone(WARSAW):%Y-%m-%d %H:%M} {(each.ends - each.begins) / HOUR:g} h"
        f" {each.person}"
        for each in found
    ]
    assert told == row["shifts"]


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
