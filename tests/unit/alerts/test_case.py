"""The menus of answers, and what their items mean."""

from datetime import UTC, datetime, time, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from libs.domain.hours import Hours
from services.alerts.rules.case import (
    MENUS,
    Answer,
    ButtonValue,
    Choice,
    Verb,
    Via,
    chosen,
    menu,
)
from services.alerts.rules.heartbeats import ALWAYS

ZONE = ZoneInfo("Europe/Warsaw")
OFFICE = Hours(ZONE, time(9), time(17))
FRIDAY = datetime(2026, 11, 27, 11, tzinfo=UTC)


def answer(choice: Choice | None, verb: Verb = Verb.LATER) -> Answer:
    return Answer(verb, "anna", "Anna", Via.SLACK, "key", choice=choice)


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        (OFFICE, FRIDAY - timedelta(days=1), datetime(2026, 11, 27, 9, tzinfo=ZONE)),
        (OFFICE, FRIDAY, datetime(2026, 11, 30, 9, tzinfo=ZONE)),  # over the weekend
        (OFFICE, datetime(2027, 3, 26, 11, tzinfo=UTC), datetime(2027, 3, 29, 9, tzinfo=ZONE)),
        # In Warsaw it is already the next day.
        (
            OFFICE,
            datetime(2026, 11, 24, 23, 30, tzinfo=UTC),
            datetime(2026, 11, 26, 9, tzinfo=ZONE),
        ),
    ],
)
def test_tomorrow_is_when_the_hours_next_begin(
    hours: Hours, now: datetime, expected: datetime
) -> None:
    assert chosen(answer(Choice.MORNING), hours, now).until == expected


def test_an_hour_is_one_of_the_clock() -> None:
    assert chosen(answer(Choice.HOUR), OFFICE, FRIDAY).until == FRIDAY + timedelta(hours=1)


@pytest.mark.parametrize("choice", MENUS[Verb.NOT_A_LEAD])
def test_a_reason_is_recorded_as_it_was_chosen(choice: Choice) -> None:
    given = chosen(answer(choice, Verb.NOT_A_LEAD), OFFICE, FRIDAY)
    assert (given.reason, given.until) == (choice, None)


def test_hours_without_an_end_have_no_morning() -> None:
    assert menu(Verb.LATER, ALWAYS) == (Choice.HOUR,)
    assert menu(Verb.LATER, OFFICE) == (Choice.HOUR, Choice.MORNING)
    assert menu(Verb.TAKEN, OFFICE) == ()


@pytest.mark.parametrize("choice", [None, *Choice])
def test_a_button_s_value_is_read_back_and_fits_slack(choice: Choice | None) -> None:
    value = ButtonValue(uuid4(), 999_999_999, uuid4(), choice)
    assert ButtonValue.read(str(value)) == value
    assert len(str(value)) <= 150


@pytest.mark.parametrize("text", ["", f"{UUID(int=0)} 0", f"{UUID(int=0)} 0 {UUID(int=0)} never"])
def test_no_other_value_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"values|valid"):
        ButtonValue.read(text)
