"""Facts in words, for visitors, mails and staff."""

import re
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

from libs.common import beside
from services.followups.rules.facts import RANGES, Facts

CONTACTS = frozenset({"email", "phone"})
_SPACE = "\N{NO-BREAK SPACE}"
_THOUSANDS = {"pl": _SPACE, "uk": _SPACE, "ru": _SPACE, "de": "."}
_MOBILE = ("45", "50", "51", "53", "57", "60", "66", "69", "72", "73", "78", "79", "88")
_QUARTERS = ("I", "II", "III", "IV")
_OPTIONAL = re.compile(r"\[([^\[\]]*\{[^\[\]]*)\]")
"""`[telefon {company_phone}|e-mail {company_email}]`: the first of them that is known."""
_NAMES = re.compile(r"\{(\w+)\}")
_STARTS: dict[str, dict[str, Any]] = beside.toml(__file__, "start_words.toml")


def describe_area(area: float, language: str, least: int | None = None) -> str:
    text = _range(f"{area:g} m²", f"{least}", area, least, language)
    return text if language == "en" else text.replace(".", ",")


def _range(text: str, low: str, most: float, least: int | None, language: str) -> str:
    """Say a range: one from 0 has no lower end, and one with equal ends has no upper one."""
    if least in {0, most}:
        return str(_STARTS[language]["up_to" if least == 0 else "over"].format(fact=text))
    return f"{low}-{text}" if least else text


def without_optional(text: str) -> str:
    return _OPTIONAL.sub("", text)


def filled(text: str, known: Mapping[str, str | None], later: Collection[str] = ()) -> str:
    """Fill in what is known; other names stay in braces.

    :param known: None leaves out the brackets that a name is in, and its alternatives
    :param later: names that are filled in later, with the brackets that they are in
    """

    def first(found: re.Match[str]) -> str:
        names = _NAMES.findall(found[1])
        if not set(names).isdisjoint(later):
            return found[0]
        if any(known.get(name, "") is None for name in names):
            return ""
        ways = found[1].split("|")
        return next((way for way in ways if all(known.get(n, n) for n in _NAMES.findall(way))), "")

    text = _OPTIONAL.sub(first, text)
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value or "")
    return text


def grouped(number: int, language: str) -> str:
    return f"{number:,}".replace(",", _THOUSANDS.get(language, ","))


def describe_budget(budget: int, currency: str | None, language: str) -> str:
    unit = "zł" if language == "pl" and currency in {None, "PLN"} else currency or "PLN"
    return f"{grouped(budget, language)}{_SPACE}{unit}"


@lru_cache(256)
def describe_start(start: str, language: str) -> str:
    """Say a start as the person named it: `latem 2027`, not the month that it is sorted by.

    :raises ValueError: it is not a date
    """
    words = _STARTS.get(language, _STARTS["en"])
    if start == "asap":
        return str(words["asap"])
    if start.endswith(" handover"):
        when = describe_start(start.removesuffix(" handover"), language)
        return str(words["named"]["handover"]).format(when=when)
    stored, _, name = start.partition(" ")
    name, _, last = name.rpartition("_") if name[-1:].isdecimal() else (name, "", "0")
    year, *rest = map(int, stored.split("-"))
    if not rest:
        return str(year)
    first = date(year, rest[0], rest[1] if rest[1:] else 1)
    values = _date_words(first, words, int(last))
    exact = words["day"] if rest[1:] else "{month} {year}"
    values["date"] = (words["day"] if rest[1:] else "{of_month} {year}").format(**values)
    return str(words["named"].get(name, exact)).format(**values)


def _date_words(day: date, words: Mapping[str, Any], last: int = 0) -> dict[str, Any]:
    """Return what the texts of start_words.toml may contain.

    :param last: the last day, or how many months later the time ends
    """
    years, month = divmod(day.month - 1 + last, 12)
    named = words["months"][day.month - 1]
    values = {
        "year": day.year,
        "month": named,
        "last": last,
        "last_month": words["months"][month],
        "last_year": day.year + years,
        "of_month": words.get("of_months", words["months"])[day.month - 1],
        "of_next_month": words.get("of_months", words["months"])[day.month % 12],
        "day": day.day,
        "winter": f"{day.year - (day.month < 12)}/{(day.year + (day.month == 12)) % 100:02}",
        "quarter": _QUARTERS[(day.month - 1) // 3],
        "number": (day.month + 2) // 3,
        "half": 1 + (day.month > 6),
    }
    if day.weekday():
        monday = _date_words(day - timedelta(days=day.weekday()), words)
        return values | {"monday": monday["monday"]}
    return values | {"monday": words["day"].format(**values)}


def describe_phone(phone: str) -> str:
    """Group the digits of a Polish number, so that a person can check it."""
    number = phone.removeprefix("+48")
    if len(number) != 9 or number == phone:
        return phone
    ends = (3, 6) if number.startswith(_MOBILE) else (2, 5, 7)
    groups = (number[start:end] for start, end in pairwise((0, *ends, 9)))
    return _SPACE.join(("+48", *groups))


def describe(facts: Facts, language: str) -> str:
    """List what was understood, so that the person can correct it."""
    parts = [
        facts.name,
        facts.city,
        facts.area and describe_area(facts.area, language, facts.area_from),
        _budget(facts, language),
        facts.start and describe_start(facts.start, language),
        facts.email,
        facts.phone and describe_phone(facts.phone),
    ]
    return ", ".join(part for part in parts if part)


def _budget(facts: Facts, language: str) -> str | None:
    if facts.budget is None:
        return None
    text = describe_budget(facts.budget, facts.currency, language)
    low = describe_budget(facts.budget_from or 0, facts.currency, language).rpartition(_SPACE)[0]
    return _range(text, low, facts.budget, facts.budget_from, language)


def wishes(known: Mapping[str, Any], language: str) -> list[str]:
    """Describe what else a lead wants, by what other conversations said, each in a line."""
    lines = []
    for each in known.get("also", ()):
        same = {name for name in CONTACTS if each.get(name) == known.get(name)}
        also = {name: value for name, value in each.items() if name not in same}
        facts = of_lead(also)
        if wish := ", ".join(filter(None, (facts.wish, describe(facts, language)))):
            lines.append(_STARTS[language]["also"].format(wish=wish))
    return lines


def of_lead(known: Mapping[str, Any]) -> Facts:
    """Return the facts that a lead's row has: a range counts while its upper end stands."""
    ranges = {name: known.get(f"{name}_range", (None, None)) for name in RANGES}
    least = {f"{n}_from": low for n, (low, high) in ranges.items() if high == known.get(n)}
    return Facts.of({**known, **least})


def for_lead(facts: Facts) -> dict[str, Any]:
    """Return facts as a lead's row has them."""
    known = facts.known()
    for name in RANGES:
        if (low := known.pop(f"{name}_from", None)) is not None:
            known[f"{name}_range"] = [low, known[name]]
    return known


def summary(known: Mapping[str, Any], language: str) -> str:
    """Return one line for sales."""
    facts = of_lead(known)
    parts = [
        facts.wish,
        facts.city,
        facts.area and describe_area(facts.area, language, facts.area_from),
        _budget(facts, language),
        facts.start and f"start: {describe_start(facts.start, language)}",
        *wishes(known, language),
    ]
    return " · ".join(part for part in parts if part)
