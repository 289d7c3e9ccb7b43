"""The start of the works, as people write it in Polish and English: vocabulary/time.toml has the words.

A start is `asap` or a date, and after a space the word for what the person named, so that it is
said back in their words: `2027-06 summer`. fact_texts.py has these words in each language.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from services.followups.reading import name
from services.followups.reading.text import MARK, PHONE_MARK
from services.followups.reading.tokens import Match, Token, Vocabulary

Kind = Literal["date", "day", "number", "weekday", "next", "span", "asap", "now"]
""" `number` is `15.03`, `now` is `teraz` or `szybko`."""

WORDS = Vocabulary("time", "beside_a_time")
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_EASTER = 0
_FEASTS = {
    "before_christmas": (12,), "after_christmas": (12, 27), "after_new_year": (1,), "after_epiphany": (1, 7), "winter_break": (1,),
    "after_winter_break": (3,), "before_may_weekend": (5,), "may_weekend": (5,), "after_may_weekend": (5,), "holidays": (7,),
    "after_holidays": (9,), "after_harvest": (9,), "barbara": (12, 4), "nicholas": (12, 6), "valentine": (2, 14), "saints": (11, 1),
    "women": (3, 8), "independence": (11, 11), "before_easter": (_EASTER, 0), "after_easter": (_EASTER, 2), "corpus": (_EASTER, 60),
}  # fmt: skip
"""Month, and day if there is one, from which on the works may start; or days after Easter."""
_MOST = 20
"""Times that are read of a message: each looks at the whole of it."""
_PART_ENDS = {"early": 10, "first_half": 15, "mid": 20}
_LED = {"po": "after", "after": "after", "nach": "after", "do": "until", "until": "until", "by": "until", "bis": "until",
        "przed": "before", "before": "before", "vor": "before"}  # fmt: skip
_WHOLE_DAY = len("2027-03-15")
_ONE_BEFORE = 11


@dataclass(frozen=True, slots=True)
class Date:
    """A time in a text."""

    start: int
    end: int
    """Numbers of tokens."""
    said: str
    """`asap`, or a date, and what it was called."""
    kind: Kind


def read(text: str, tokens: list[Token], today: date, *, bare: bool) -> list[Date]:
    """Return the times that a text names, in its order; without the names of people.

    :param bare: a month's name alone is enough
    """
    found: list[Date] = []
    taken: set[int] = set()
    heard = WORDS.find("time", tokens)
    matches = [each for each in heard if each.name in _RULES and (bare or each.name not in _BARE)]
    ends = {each.start: each.end for each in heard if each.name == "next_year"}
    for each in sorted(matches, key=lambda each: (_ORDER[each.name], each.start - each.end)):
        if not taken.isdisjoint(range(each.start, each.end)) or _is_none(text, tokens, each):
            continue
        end = ends.get(each.end, each.end) if each.name in _IN_A_YEAR else each.end
        said = _RULES[each.name](each, date(today.year + 1, 1, 1) if end != each.end else today)
        if each.name in _NO_TIMES:
            taken.update(range(each.start, each.end))
        elif said:
            if len(said) == _WHOLE_DAY and each.name in _DAYS:
                said += _led(tokens, each.start)
            taken.update(range(each.start, end))
            start = each.start
            while bare and each.name == "month" and "{month}" not in tokens[start].kinds:
                start += 1
            found.append(Date(start, end, said, _KINDS.get(each.name, "date")))
    return sorted(found, key=lambda each: each.start)[:_MOST]


def _led(tokens: list[Token], start: int) -> str:
    before = [each.word for each in tokens[max(0, start - 2) : start]]
    lead = before[0] if before[-1:] in (["dnia"], ["dniu"]) else before[-1] if before else ""
    return f" {_LED[lead]}" if lead in _LED else ""


def _is_none(text: str, tokens: list[Token], each: Match) -> bool:
    """Return whether the words around it say that it is not a time."""
    if each.name in _MONTHS and (each.end - each.start == 1 or each.value == "next"):
        return _is_name(text, tokens, each.start)
    before = tokens[each.start - 1].word if each.start else ""
    after, kinds = tokens[each.end][2:4] if each.end < len(tokens) else ("", {})
    is_amid = after not in {"", ",", ".", ";", "!", "bo"}
    match each.value, each.name:
        case "late", "day":  # `w styczniu po 20`
            return is_amid or each.said["day"][0] < 20
        case "q", _:  # `Q3` is also how smooth plaster is
            return "year" not in each.said and any("{plaster}" in one.kinds for one in tokens)
        case "juz", _:
            return bool(after) and before != "mozna" and "{after_juz}" not in kinds
        case _, "bare_year":
            return sum(one.word.isalnum() for one in tokens) > each.end - each.start
    return each.name == "alone" and (is_amid or before not in {"", ",", ";", "."})


_TITLED = name.FIRST_NAMES | {"pan", "pani", "panstwo", "nazwisko"}
_BEGIN = {"pan", "pani", "jestem", "ja", "tu", "kontakt", "pozdrawiam", "powazaniem", ",", ";", ".", ":", MARK, ""}  # fmt: skip
_OF_SURNAMES = ("ska", "ski", "cka", "cki", "wicz", "czyk")


def _is_name(text: str, tokens: list[Token], at: int) -> bool:
    """`Grzegorz Maj`, `Maj Grzegorz`, `pani Luty`, `Wróbel-Maj`, `Jan Nowak`, `maja nowak 600 100 200`"""
    token = tokens[at]
    before = tokens[at - 1].word if at else ""
    after = [each.word for each in tokens[at + 1 : at + 4]]
    is_title = text[token.start : token.end].istitle()
    if token.word in name.FIRST_NAMES and before in _BEGIN:
        if is_title:
            then = next((each for each, word in enumerate(after) if word not in {",", "i"}), len(after))  # fmt: skip
            is_last = at + then + 2 >= len(tokens) and after[then:] in ([], ["."], ["!"])
            return is_last or after[then] == MARK or _is_capital(text, tokens, at + 1 + then)
        return (
            text[token.end :].lstrip(" ,").startswith(PHONE_MARK)
            or "".join(after[:1]).endswith(_OF_SURNAMES)
            or ("".join(after[:1]).isalpha() and after[1:2] in ([","], [MARK]) and MARK in after[1:])
        )  # fmt: skip
    if is_title and (
        (before == "-" and _is_capital(text, tokens, at - 2))
        or (after[:1] == ["-"] and _is_capital(text, tokens, at + 2))
    ):
        return True
    is_low = at == 0 or text[tokens[at - 1].start].islower()
    is_named = before in _TITLED and (is_low or text[token.start].isupper())
    follows = is_title and _is_capital(text, tokens, at + 1) and after[0] in name.FIRST_NAMES
    return "{surname}" in token.kinds and (is_named or follows)


def _is_capital(text: str, tokens: list[Token], at: int) -> bool:
    """Return whether this token is a word like a surname, or an initial with its full stop."""
    if not 0 <= at < len(tokens):
        return False
    start, end, _, kinds, *_ = tokens[at]
    is_long = end - start > 1 or text[end : end + 1] == "."
    return is_long and text[start:end].istitle() and "{month}" not in kinds


# --- What a phrase means -----------------------------------------------------------------------


def _date(each: Match, _: date) -> str | None:
    year, month, *day = each.said[each.value][0][:: 1 if each.value == "iso" else -1]
    said = _days(year if year > 99 else 2000 + year, month, *(day or [1]) * 2)
    return said if day else said and said[: len("2027-03")]


def _year(each: Match, today: date, month: int, day: int = 0) -> int:
    return each.said["year"][0] if "year" in each.said else _coming(today, month, day)


def _month(each: Match) -> int:
    kinds = ("month", "sure", "english", "roman_month")
    return next(int(each.said[kind][0]) for kind in kinds if kind in each.said)


def _nth(each: Match) -> int:
    kinds = ("ordinal", "number", "roman", "day")
    return next((int(each.said[kind][0]) for kind in kinds if kind in each.said), 4)


def _day(each: Match, today: date) -> str | None:
    month = _month(each)
    days = each.said.get("day") or [sum(each.said.get("tens", ())) + _nth(each)]
    return _days(_year(each, today, month, days[-1]), month, days[0], days[-1])


def _week_of(each: Match, today: date) -> str | None:
    """Return a day of the week: `trzeci tydzień lutego`."""
    nth, month = _nth(each), _month(each)
    day = 7 * nth - 3
    found = _days(_year(each, today, month, day), month, day, day) if nth < 5 else None
    return found and f"{found} week"


def _day_number(each: Match, today: date) -> str | None:
    day, month = each.said["day_month"][0]
    return _days(_coming(today, month, day), month, (each.said.get("day") or [day])[0], day)


def _named_month(each: Match, today: date) -> str | None:
    if each.value in {"two", "next"}:
        return _two_months(each, today)
    month = _month(each)
    part = (each.said.get("part") or each.said.get("half") or [""])[0]
    year = _year(each, today, month, _PART_ENDS.get(part, 0))
    return f"{year}-{month:02} {part}".rstrip()


def _two_months(each: Match, today: date) -> str | None:
    """`maj albo czerwiec`, `między lutym a kwietniem`"""
    month, other = each.said.get("sure", []) + each.said["month"]
    later = (other - month) % 12
    link = each.said["link"][0] if "link" in each.said else ""
    if later == _ONE_BEFORE:  # `marzec, może luty`
        month, later = other, 1
    if later != 1 and not (link and later):
        return None
    year = _coming(today, month)
    if "year" in each.said:
        year = each.said["year"][-1] - (month + later > 12)
    return f"{year}-{month:02} {link or 'or'}_{later}"


def _coming(today: date, month: int, day: int | None = None) -> int:
    """Return the year in which this month, or this day of it if not 0, comes next."""
    past = (month, day or 31) < (today.month, today.day if day else 0)
    return today.year + past


def _quarter(each: Match, today: date) -> str | None:
    month = _nth(each) * 3 - 2
    if not 1 <= month <= 10:
        return None
    year = _year(each, today, month + 2)
    if year == today.year and month < today.month <= month + 2:  # it has begun, and lasts
        month = today.month
    return f"{year}-{month:02} quarter"


def _half_year(each: Match, today: date) -> str:
    month = 7 if _nth(each) == 2 else 1
    year = _year(each, today, month + 3)
    return f"{max(f'{year}-{month:02}', f'{today:%Y-%m}')} half_year"


def _season(each: Match, today: date) -> str:
    month = SEASONS[each.value]
    if "year" not in each.said and (today.month - month) % 12 < 2:  # it has begun, and lasts
        return f"{today:%Y-%m} {each.value}"
    return f"{_year(each, today, month)}-{month:02} {each.value}"


def _next(each: Match, today: date) -> str:
    if each.value == "week":
        return f"{today + timedelta(days=7)} week"
    later = {"month": f"{_months_later(today, 1):%Y-%m}", "new_year": f"{today.year + 1}-01 after_new_year"}  # fmt: skip
    return later.get(each.value) or f"{today.year + (each.value == 'year')}"


_SPANS = {12: "in_a_year", 6: "in_half_a_year"}


def _span(each: Match, today: date) -> str:
    said = [float(one) for one in each.said.get("count", ())]
    count, unit = said[0] if said else 1, each.value
    if unit == "half":  # half a month
        return f"{today:%Y-%m} about"
    if unit in {"days", "weeks"}:
        return f"{today + timedelta(**{unit: count})} about"
    if unit == "month_or":  # `za miesiąc, dwa`
        said, count, unit = [1, count], 1, "months"
    months = {"months": count, "years": count * 12, "half_year": 6}[unit]
    named = _SPANS.get(int(months), "about") if months == int(months) else "about"
    if unit == "months" and len(said) > 1 and 0 < said[1] - count < _ONE_BEFORE:
        named = f"or_{int(said[1] - count)}"
    half = timedelta(days=15 * (months % 1 > 0))
    return f"{_months_later(today + half, int(months)):%Y-%m} {named}"


def _months_later(today: date, months: int) -> date:
    year, month = divmod(today.month - 1 + months, 12)
    return date(today.year + year, month + 1, 1)


def _weekday(each: Match, today: date) -> str:
    day = each.said["weekday"][0]
    if each.value == "weeks":
        weeks = int(float((each.said.get("count") or [1])[0]))
        return f"{today + timedelta(days=7 * weeks + day - today.weekday())}"
    ahead = (day - today.weekday() - 1) % 7 + 1
    if "coming" in each.said and today.weekday() + ahead < 7:
        ahead += 7  # the next one is next week's
    return (today + timedelta(days=ahead)).isoformat()


def _feast(each: Match, today: date) -> str:
    """Return a feast, or the day after `po Barbórce`; those of rules/start_words.toml with their name."""
    feast, is_named = each.value, each.name != "fixed_feast"
    start, *day = _FEASTS[feast]
    if start == _EASTER:
        days = (_easter(year) + timedelta(days=day[0]) for year in (today.year, today.year + 1))
        found = next(one for one in days if one > today)
        said = f"{found:%Y-%m}" if feast == "before_easter" else f"{found}"
    else:
        said = f"{_coming(today, start, *day)}" + "".join(f"-{one:02}" for one in (start, *day))
    if is_named:
        return f"{said} {feast}"
    return f"{date.fromisoformat(said) + timedelta(days=each.said['when'] == ['after'])}"


def _easter(year: int) -> date:
    """Butcher's algorithm: Western Easter Sunday."""
    a, b, c = year % 19, year // 100, year % 100
    d = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    e = (32 + 2 * (b % 4) + 2 * (c // 4) - d - c % 4) % 7
    f = d + e - 7 * ((a + 11 * d + 22 * e) // 451) + 114
    return date(year, f // 31, f % 31 + 1)


def _of_year(each: Match, today: date) -> str:
    part = each.said["part"][0]
    month = {"mid": 6, "late": 12}.get(part, 1)
    later = "coming" in each.said and "year" not in each.said
    year = today.year + 1 if later else _year(each, today, month)
    return f"{year}-{month:02} {part}_year"


def _days(year: int, month: int, first: int, last: int) -> str | None:
    try:
        start, end = date(year, month, first), date(year, month, last)
    except ValueError:
        return None
    return f"{start} days_{last}" if start < end else end.isoformat()


_RULES: dict[str, Callable[[Match, date], str | None]] = {
    "no_time": lambda _, __: None,
    "date": _date, "roman": _named_month, "day": _day, "spoken_day": _day, "week_of": _week_of, "day_number": _day_number,
    "month": _named_month, "bare_month": _named_month, "quarter": _quarter, "fixed_feast": _feast,
    "half_year": _half_year, "feast": _feast, "alone": _feast, "season": _season, "of_year": _of_year, "next": _next,
    "weekday": _weekday, "span": _span, "asap": lambda _, __: "asap", "tomorrow": lambda _, today: f"{today + timedelta(days=1)}",
    "no_now": lambda _, __: None, "now": lambda _, __: "asap", "year": lambda each, _: f"{each.said['year'][0]}",
    "bare_year": lambda each, _: f"{each.said['year'][0]}",
}  # fmt: skip
"""The first that names a token has it."""
_ORDER = {rule: number for number, rule in enumerate(_RULES)}
_KINDS: dict[str, Kind] = {"day_number": "number", "weekday": "weekday", "next": "next", "span": "span", "asap": "asap", "now": "now"}  # fmt: skip
_MONTHS = {"month", "bare_month"}
_NO_TIMES = {"no_time", "no_now"}
_BARE = {"bare_month", "bare_year", "now"}
_DAYS = {"day", "spoken_day", "day_number", "date"}
_IN_A_YEAR = {"day", "month", "bare_month", "quarter", "feast", "season"}
