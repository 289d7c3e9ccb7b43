"""When the works are to start, as ordinary Polish and English writing says it."""

import re
from collections.abc import Callable
from datetime import date, timedelta

_MONTHS = (
    (r"stycz\w*|january|jan\b", 1),
    (r"lut(?:y|ego|ym)\b|february|feb\b", 2),
    (r"mar(?:zec|ca|cu|cem)\b|march|mar\b", 3),
    (r"kwie(?:cień|cien|tni\w*)\b|april|apr\b", 4),
    (r"maj(?:a|u|em)?\b|may", 5),
    (r"czerw(?:iec|ca|cu|cem)\b|june|jun\b", 6),
    (r"lip(?:iec|ca|cu|cem)\b|july|jul\b", 7),
    (r"sierp(?:ień|ien|ni\w*)\b|august|aug\b", 8),
    (r"wrze(?:sień|sien|śni\w*|sni\w*)\b|september|sept?\b", 9),
    (r"październik\w*|pazdziernik\w*|october|oct\b", 10),
    (r"listopad\w*|november|nov\b", 11),
    (r"grud(?:zień|zien|ni\w*)\b|december|dec\b", 12),
)
_MONTH = "|".join(pattern for pattern, _ in _MONTHS)
# English months double as words and names, `maj` hides in Maja: they need a word before them.
_UNMISTAKABLE = (
    r"stycz\w*|lutego|lutym|marca|marcu|kwietni\w*|czerwca|czerwcu|lipca|lipcu|sierpni\w*"
    r"|wrześni\w*|wrzesni\w*|październik\w*|pazdziernik\w*|listopad\w*|grudni\w*|january|february"
    r"|september|october|november|december"
)
_LEADING = (
    r"(?:od|w|na|do|przed|po|z|koło|około|start\w*:?|termin\w*:?|początk\w*|początek|połow\w*|końc\w*|koniec"
    r"|in|from|by|since|mid|early|late|around|about|until|before|after|of|beginning|end|next|this"
    r"|this\s+coming|\d{1,2}\.?(?:st|nd|rd|th)?)"
)
_ISO = re.compile(r"\b(?P<year>20\d\d)-(?P<month>0?[1-9]|1[0-2])(?:-(?P<day>[0-3]?\d))?\b")
_DOTTED = re.compile(
    r"(?<![\d.])(?P<day>[0-3]?\d)[./](?P<month>[01]?\d)[./](?P<year>(?:20)?\d\d)\b"
)
_MONTH_YEAR = re.compile(r"(?<![\d./])(?P<month>0?[1-9]|1[0-2])[./](?P<year>20\d\d)\b")
_DAY_MONTH = re.compile(
    rf"\b(?P<day>[1-9]|[12]\d|3[01])\.?(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<name>{_MONTH})"
    rf"(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_NAME_DAY = re.compile(
    r"\b(?P<name>january|february|march|april|may|june|july|august|september|october|november"
    r"|december)\s+(?P<day>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"\b(?:{_LEADING}\s+(?P<led>{_MONTH})|(?P<bare>{_MONTH})(?=,?\s+20\d\d)|(?P<sure>{_UNMISTAKABLE}))"
    rf"(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4}
_QUARTER = re.compile(
    r"\b(?:q(?P<q>[1-4])|(?P<k>[1-4]|iv|i{1,3})\.?\s*(?:kw(?:arta\w*|\.)|kw\b|quarter))"
    r"(?:\s*(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_ORDINAL_QUARTER = re.compile(
    r"\b(?P<ordinal>pierwsz|drugi|trzeci|czwart|first|second|third|fourth)\w*\s+(?:kwarta\w*|quarter)"
    r"(?:\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_ORDINALS = {
    "pierwsz": 1, "drugi": 2, "trzeci": 3, "czwart": 4,
    "first": 1, "second": 2, "third": 3, "fourth": 4,
}  # fmt: skip
_SEASON = re.compile(
    r"\b(?:(?P<spring>wiosn\w+|(?:in|this|next|by|early|late|the)\s+spring)"
    r"|(?P<summer>lat(?:em|o)\b|w\s+lecie|(?:in|this|next|by|early|late|the)\s+summer)"
    r"|(?P<autumn>jesie\w+|(?:in|this|next|by|early|late|the)\s+(?:autumn|fall))"
    r"|(?P<winter>zim(?:ą|a|ę|y|ie)\b|(?:in|this|next|by|early|late|the)\s+winter))"
    r"(?:\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_COUNTS = {
    "dwa": 2, "dwie": 2, "trzy": 3, "cztery": 4, "pięć": 5, "sześć": 6, "kilka": 3, "parę": 2,
    "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "couple of": 2,
    "a couple of": 2, "few": 3, "a few": 3, "pół": 6,
}  # fmt: skip
_IN = re.compile(
    rf"\b(?:za|in|within|w\s+ciągu)\s+(?:ok\.?\s+|około\s+|about\s+)?"
    rf"(?:(?P<count>\d{{1,2}}|{'|'.join(sorted(_COUNTS, key=len, reverse=True))})\s+)?"
    r"(?P<unit>dni\b|dzień|days?\b|tydzień|tygodni\w*|tyg\b\.?|weeks?\b|miesi\w+|mies\b\.?|months?\b"
    r"|rok\w*|roku|lata\b|years?\b)",
    re.IGNORECASE,
)
_NEXT = re.compile(
    r"\b(?:(?P<month>(?:w\s+)?(?:przyszły|następny|przyszłym|następnym|kolejnym)\s+miesi\w+|next\s+month)"
    r"|(?P<week>(?:w\s+)?(?:przyszły|następny|przyszłym|następnym)\s+tygo?d\w+|next\s+week)"
    r"|(?P<year>(?:w\s+)?(?:przyszły|następny|przyszłym|następnym)\s+ro(?:k|ku)\b|next\s+year)"
    r"|(?P<new_year>po\s+nowym\s+roku|od\s+nowego\s+roku|after\s+new\s+year))",
    re.IGNORECASE,
)
_ASAP = re.compile(
    r"\b(?:jak\s+najszybciej|jak\s+najprędzej|od\s+zaraz|od\s+ręki|natychmiast|zaraz|od\s+dziś"
    r"|od\s+jutra|już\s+teraz|asap|as\s+soon\s+as\s+possible|right\s+away|immediately|straight\s+away"
    r"|right\s+now)\b",
    re.IGNORECASE,
)
_YEAR_ONLY = re.compile(r"\b(?:w|in|na|od)\s+(?P<year>20\d\d)(?:\s*r(?:oku|\.)?)?\b", re.IGNORECASE)


def find(text: str, today: date, *, bare: bool) -> tuple[re.Match[str], str] | None:
    """Return where a start is said, and `asap` or the date; a date that has passed is none.

    :param bare: a month's name alone is enough
    """
    readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], str | None]], ...] = (
        (_ISO, _numeric), (_DOTTED, _numeric), (_MONTH_YEAR, _numeric),
        (_DAY_MONTH, _month_named), (_NAME_DAY, _month_named), (_NAMED, _month_named),
        (_QUARTER, _quarter), (_ORDINAL_QUARTER, _quarter), (_SEASON, _season), (_NEXT, _next),
        (_IN, _in), (_ASAP, lambda _, __: "asap"), (_YEAR_ONLY, lambda match, _: match["year"]),
    )  # fmt: skip
    if bare:
        readers = (*readers, (re.compile(rf"\b(?P<bare>{_MONTH})", re.IGNORECASE), _month_named))
    for pattern, meaning in readers:
        match = pattern.search(text)
        start = meaning(match, today) if match else None
        if match and start and (start == "asap" or start >= today.isoformat()[: len(start)]):
            return match, start
    return None


def _numeric(match: re.Match[str], _: date) -> str | None:
    parts = match.groupdict()
    year = int(parts["year"]) + (2000 if len(parts["year"]) == 2 else 0)
    try:
        said = date(year, int(parts["month"]), int(parts.get("day") or 1))
    except ValueError:
        return None
    return said.isoformat() if parts.get("day") else f"{said:%Y-%m}"


def _month_named(match: re.Match[str], today: date) -> str | None:
    parts = match.groupdict()
    name = next(parts[group] for group in ("name", "led", "bare", "sure") if parts.get(group))
    month = next(n for pattern, n in _MONTHS if re.fullmatch(pattern, name, re.IGNORECASE))
    given, day = parts.get("year"), parts.get("day")
    year = int(given) if given else _coming(today, month, int(day) if day else None)
    try:
        said = date(year, month, int(day or 1))
    except ValueError:
        return None
    return said.isoformat() if day else f"{said:%Y-%m}"


def _coming(today: date, month: int, day: int | None = None) -> int:
    """The year in which this month (or day of it) comes next."""
    past = (month, day or 31) < (today.month, today.day if day else 0)
    return today.year + past


def _quarter(match: re.Match[str], today: date) -> str:
    parts = match.groupdict()
    if ordinal := parts.get("ordinal"):
        quarter = _ORDINALS[ordinal.lower()]
    else:
        said = (parts.get("q") or parts["k"]).lower()
        quarter = _ROMAN.get(said) or int(said)
    month = quarter * 3 - 2
    year = int(parts["year"]) if parts["year"] else _coming(today, month + 2)
    return f"{year}-{month:02}"


def _season(match: re.Match[str], today: date) -> str:
    month = next(first for season, first in _SEASONS.items() if match[season])
    year = int(match["year"]) if match["year"] else _coming(today, min(month + 2, 12))
    return f"{year}-{month:02}"


def _next(match: re.Match[str], today: date) -> str:
    if match["month"]:
        return f"{_months_later(today, 1):%Y-%m}"
    if match["week"]:
        return (today + timedelta(days=7)).isoformat()
    return f"{today.year + 1}" if match["year"] else f"{today.year + 1}-01"


def _in(match: re.Match[str], today: date) -> str:
    said, unit = (match["count"] or "a").lower(), match["unit"].lower()
    count = int(said) if said.isdecimal() else _COUNTS[said]
    if said == "pół" and not unit.startswith("rok"):
        return f"{today:%Y-%m}"  # half a month, half a week
    if unit.startswith(("d",)):
        return (today + timedelta(days=count)).isoformat()
    if unit.startswith(("t", "w")):
        return (today + timedelta(weeks=count)).isoformat()
    months = count if unit.startswith("m") or said == "pół" else count * 12
    return f"{_months_later(today, months):%Y-%m}"


def _months_later(today: date, months: int) -> date:
    year, month = divmod(today.month - 1 + months, 12)
    return date(today.year + year, month + 1, 1)
