"""The times that people name, in Polish and English.

vocabulary/time.toml has the words, and calendar.toml when they are.
A start is `asap` or a date, and after a space the word for what the person named, so that it is
said back in their words: `2027-06 summer`. fact_texts.py has these words in each language.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from services.followups.reading import name
from services.followups.reading.text import PHONE_MARK, told
from services.followups.reading.tokens import Match, Said, Vocabulary

_CALENDAR = told("calendar")
SEASONS: frozenset[str] = frozenset(_CALENDAR["seasons"])
NARROWED: frozenset[str] = frozenset(_CALENDAR["narrowed"]["yes"])
_PERIODS: dict[str, list[int]] = _CALENDAR["seasons"] | _CALENDAR["feasts"]
_ORDER = {rule: number for number, rule in enumerate(told("time"))}
"""The first rule that names a token has it."""
_MOST = 20
"""Times that are read of a message: each looks at the whole of it."""
_BARE = {"bare_month", "bare_season", "bare_year", "now"}
_NO_TIMES = {"no_time", "no_now"}


class Times(Said):
    vocabulary = Vocabulary("time")


@dataclass(frozen=True, slots=True)
class Date:
    """A time in a text."""

    start: int
    end: int
    """Numbers of tokens."""
    said: str
    """`asap`, or a date, and what it was called."""
    kinds: frozenset[str]
    """The table and value of its phrase, and the classes of its words."""


def read(said: Times, today: date, *, bare: bool) -> list[Date]:
    """Return the times that a text names, in its order; without the names of people.

    :param bare: a month's name alone is enough
    """
    found: list[Date] = []
    taken: set[int] = set()
    heard = [each for each in said.heard if bare or each.name not in _BARE]
    for each in sorted(heard, key=lambda each: (_ORDER[each.name], each.start - each.end)):
        rule = _RULES.get(each.name)
        is_taken = not taken.isdisjoint(range(each.start, each.end))
        if rule is None or is_taken or _is_name(said, each):
            continue
        time = rule(each, today)
        if time is not None or each.name in _NO_TIMES:
            taken.update(range(each.start, each.end))
        if time is not None:
            kinds = frozenset({each.name, each.value, *each.said})
            found.append(Date(each.start, each.end, time, kinds))
    return sorted(found, key=lambda each: each.start)[:_MOST]


def _is_name(times: Times, each: Match) -> bool:
    """`Grzegorz Maj`, `pani Luty`, `Wróbel-Maj`, `Maja Nowak`, `maja nowak 600 100 200`"""
    if each.name not in {"month", "bare_month"} or each.end > each.start + 1:
        return False
    word, is_title = times.tokens[each.start].word, times.is_title(each.start)
    if word in name.FIRST_NAMES:
        return PHONE_MARK in times.text or (
            is_title and not times.is_kind(each.start - 1, "{lead}")
        )
    beside = {*times.words(max(0, each.start - 1), each.start + 2)} - {word}
    is_named = not beside.isdisjoint(name.FIRST_NAMES | {"pan", "pani", "panstwo", "nazwisko"})
    return is_named or (is_title and "-" in beside)


# --- What a phrase means -----------------------------------------------------------------------


def _date(each: Match, _: date) -> str | None:
    year, month, *day = each.said["date"][0]
    said = _days(each, year, month, *(day or [1]) * 2)
    return said if day else said and said[: len("2027-03")]


def _days(each: Match, year: int, month: int, first: int, last: int) -> str | None:
    try:
        start, end = date(year, month, first), date(year, month, last)
    except ValueError:
        return None
    return (
        f"{start} days_{last}" if start < end else f"{end} {each.said.get('led', [''])[0]}".rstrip()
    )


def _number(each: Match, *kinds: str) -> int:
    """Return the value of the first of these classes that it says; 0 if it says none."""
    return next((int(each.said[kind][0]) for kind in kinds if kind in each.said), 0)


def _year(each: Match, today: date, month: int, day: int = 0) -> int:
    """Return the year that is said, or in which this month, or this day of it if not 0, comes next."""
    if "coming" in each.said:
        return today.year + 1
    past = (month, day or 31) < (today.month, today.day if day else 0)
    return each.said["year"][0] if "year" in each.said else today.year + past


def _day(each: Match, today: date) -> str | None:
    *day, month = each.said.get("day_month", [[_number(each, "month", "english")]])[0]
    days = [*each.said.get("day", ()), *day] or [_number(each, "tens") + _number(each, "ordinal")]
    return _days(each, _year(each, today, month, days[-1]), month, days[0], days[-1])


def _month(each: Match, today: date) -> str | None:
    """Return a month, a part of it or two of them: `maj albo czerwiec`, `między lutym a kwietniem`."""
    said = each.said
    month, *other = said.get("sure", []) + said.get("month", []) + said.get("roman_month", [])
    part = (said.get("part") or said.get("half") or [""])[0]
    if not other:
        year = _year(each, today, month, _CALENDAR["ends"].get(part, 0) % 31)
        return f"{year}-{month:02} {part}".rstrip()
    later, link = (other[0] - month) % 12, said.get("link", ["or"])[0]
    return f"{_year(each, today, month)}-{month:02} {link}_{later}"


def _part_of_year(each: Match, today: date) -> str | None:
    months = 3 if each.name == "quarter" else 6
    number = _number(each, "ordinal", "number", "roman", "day")
    if not 1 <= number <= 12 // months:  # `Q0`, `7 kw`
        return None
    return _begun(each, today, (number - 1) * months + 1, min(months, 4), each.name)


def _begun(each: Match, today: date, month: int, length: int, called: str, day: int = 0) -> str:
    """Return the first month (or day) of a period, or this month if the period has begun and lasts."""
    if each.said.keys().isdisjoint({"year", "coming"}) and (today.month - month) % 12 < length:
        return f"{today:%Y-%m} {called}"
    dated = f"{_year(each, today, month, day)}-{month:02}"
    return f"{dated}-{day:02} {called}" if day else f"{dated} {called}"


def _period(each: Match, today: date) -> str:
    """Return a season, a feast or a part of the year of rules/start_words.toml, with its name."""
    if (days := _CALENDAR["after_easter"].get(each.value)) is not None:
        after = (easter + timedelta(days) for easter in _CALENDAR["easters"])
        return f"{next(day for day in after if day > today)} {each.value}"
    month, *day = _PERIODS[each.value]
    return _begun(each, today, month, 2 if each.value in SEASONS else 0, each.value, *day)


def _span(each: Match, today: date) -> str:
    """Return the time after a number of days or months."""
    days, months, called = _CALENDAR["spans"][each.value]
    count = float((each.said.get("count") or [1])[0])
    if days:
        return f"{today + timedelta(days * count)} {called}".rstrip()
    months = int(months * count)
    year, month = divmod(today.month - 1 + months, 12)
    called = {12: "in_a_year", 6: "in_half_a_year"}.get(months, called)
    return f"{today.year + year}-{month + 1:02} {called}".rstrip()


def _weekday(each: Match, today: date) -> str:
    ahead = (each.said["weekday"][0] - today.weekday() - 1) % 7 + 1
    return f"{today + timedelta(ahead)}"


def _named_year(each: Match, today: date) -> str:
    return f"{each.said['year'][0] if 'year' in each.said else today.year + (each.value == 'next')}"


_RULES: dict[str, Callable[[Match, date], str | None]] = {
    **dict.fromkeys(_NO_TIMES, lambda _, __: None),
    **dict.fromkeys(("asap", "now"), lambda _, __: "asap"),
    **dict.fromkeys(("month", "bare_month"), _month),
    **dict.fromkeys(("quarter", "half_year"), _part_of_year),
    **dict.fromkeys(("feast", "season", "bare_season", "of_year"), _period),
    **dict.fromkeys(("year", "bare_year"), _named_year),
    "date": _date,
    "day": _day,
    "weekday": _weekday,
    "span": _span,
}
