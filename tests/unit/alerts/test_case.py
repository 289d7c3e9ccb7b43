"""The menus of answers, and what their items mean."""

from datetime import UTC, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from libs.domain.hours import Hours
from services.alerts.rules.case import (
    Answer,
    Choice,
    Links,
    Verb,
    Via,
    chosen,
    hashed,
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


def test_hours_without_an_end_have_no_morning() -> None:
    assert menu(Verb.LATER, ALWAYS) == (Choice.HOUR,)
    assert menu(Verb.LATER, OFFICE) == (Choice.HOUR, Choice.MORNING)
    assert menu(Verb.TAKEN, OFFICE) == ()


LINKS = Links(b"k" * 32, "https://ostoja.example")


def test_another_case_person_generation_or_key_has_another_token() -> None:
    case = UUID(int=2)
    others = {
        LINKS.token(UUID(int=1), "anna", 0),
        LINKS.token(case, "ewa", 0),
        LINKS.token(case, "anna", 1),
        Links(b"j" * 32, "https://ostoja.example").token(case, "anna", 0),
    }
    assert len(others | {LINKS.token(case, "anna", 0)}) == 5


def test_neither_the_hash_nor_a_log_of_a_link_shows_its_token_or_the_key() -> None:
    token = LINKS.token(UUID(int=1), "anna", 0)
    assert token.encode() not in hashed(token)
    assert "kkk" not in repr(LINKS)
