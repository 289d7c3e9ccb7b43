"""What ordinary Polish and English writing says: e-mail, phone, area, budget, start, name, wish.

Each reader takes its match out of the text, so that the next one cannot take `80 m2` for money
or a budget for a phone number. Nothing here guesses: what is not clear stays unknown and is asked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, Self

Question = Literal["wish", "area", "budget", "start", "contact", "name", "consent"]

WISH_LENGTH = 400
MIN_AREA, MAX_AREA = 5, 100_000
MAX_BUDGET = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a lead. Unknown is None."""

    email: str | None = None
    phone: str | None = None
    """E.164."""
    name: str | None = None
    area: float | None = None
    """Square metres."""
    budget: int | None = None
    """The upper end when a range was given, in `currency`."""
    currency: str | None = None
    start: str | None = None
    """`asap`, or the date as exactly as it was said: `2027`, `2027-03`, `2027-03-15`."""
    wish: str | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        return cls(**{name: stored.get(name) for name in cls.__slots__})

    def known(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def learn(self, news: "Facts") -> "Facts":
        """Take what is new. A newer value replaces the old one; wishes add up."""
        wish = self.wish
        if news.wish and news.wish not in (wish or ""):
            wish = f"{wish} {news.wish}"[:WISH_LENGTH] if wish else news.wish
        return replace(self, **{**news.known(), "wish": wish})


def read(
    message: str, *, today: date, asked: Question | None = None, works: tuple[str, ...] = ()
) -> tuple[Facts, str]:
    """Find what a message says.

    :param asked: the question this message may answer with a bare word or number
    :param works: stems of words that name our works (`remont`, `kitchen`), lower case
    :returns: the facts, and what is left of the text without them
    """
    found: dict[str, Any] = {}
    text = _spaces(message)
    for reader in (_email, _phone, _area, _budget, _start, _name):
        text, news = reader(text, today, asked)
        found |= news
    rest = _spaces(text.replace(_MARK, " ")).strip(" ,;")
    if _is_wish(rest, asked, works):
        found["wish"] = _wish(_spaces(message), works)[:WISH_LENGTH]
    return Facts(**found), rest


Reading = tuple[str, dict[str, Any]]

_MARK = "\N{BULLET}"
"""Stands where a fact was, so that its neighbours do not run together."""


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _take(text: str, match: re.Match[str]) -> str:
    return text[: match.start()] + f" {_MARK} " + text[match.end() :]


# --- e-mail -----------------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@-])"
)
_SPELT = re.compile(r"\s*(?:\(at\)|\[at\]|\(małpa\)|\[małpa\]|\s@\s)\s*", re.IGNORECASE)


def _email(text: str, _: date, __: Question | None) -> Reading:
    text = _SPELT.sub("@", text)
    if not (match := _EMAIL.search(text)) or ".." in match[0] or len(match[0]) > 254:
        return text, {}
    return _take(text, match), {"email": match[0]}


def addresses(message: str) -> list[str]:
    """Find every address that a message names, whosever it is."""
    return [found[0] for found in _EMAIL.finditer(_SPELT.sub("@", _spaces(message)))]


PERSONAL = re.compile(rf"{_EMAIL.pattern}|\+?\d(?:[\s.()-]{{0,2}}\d){{8,14}}")
"""What reaches a person: an e-mail address, or what may be a phone number."""


# --- numbers ----------------------------------------------------------------------------------

# `250000`, `250 000`, `250.000`, `250,000`, `1,5`, `80.5`
_NUMBER = (
    r"(?<![\w.,])\d{1,3}(?:[ .,]\d{3}){1,3}(?:[.,]\d\d)?(?![.,]?\d)"
    r"|(?<![\w.,])\d{1,12}(?:[.,]\d{1,2})?(?!\d)"
)
_GROUPED = re.compile(r"(\d{1,3}(?:[ .,]\d{3}){1,3})(?:[.,]\d\d)?")


def _number(text: str) -> float:
    if grouped := _GROUPED.fullmatch(text):
        return float(re.sub(r"[ .,]", "", grouped[1]))
    return float(text.replace(",", "."))


def number(text: str) -> float | None:
    """Read a number as people write it: `250 000`, `80,5`, `1.234,00`."""
    said = _spaces(text)
    return _number(said) if re.fullmatch(_NUMBER, said) else None


# --- area -------------------------------------------------------------------------------------

_METRES = (
    r"m\s?(?:2|²|\^2|kw\b\.?|\.\s?kw\b\.?)|mkw\b\.?|metr\w*(?:\s+kw(?:adratow\w*|\b\.?))?|mk\b"
    r"|sqm\b|sq\.?\s?m\b\.?|square\s+met(?:er|re)s?|m\b(?![./-])"
)
_FEET = r"sq\.?\s?f(?:ee)?t\b\.?|sqft\b|ft2|ft²|square\s+f(?:ee|oo)t"
_AREA = re.compile(
    rf"(?P<number>{_NUMBER})\s?(?:(?P<metres>{_METRES})|(?P<feet>{_FEET}))", re.IGNORECASE
)
_AREA_WORD = re.compile(
    rf"\b(?:metraż\w*|powierzchni\w*|area|size)\b[^\d\n]{{0,20}}(?P<number>{_NUMBER})",
    re.IGNORECASE,
)
_SQUARE_FOOT = 0.09290304


def _area(text: str, _: date, asked: Question | None) -> Reading:
    match = _AREA.search(text) or _AREA_WORD.search(text)
    if match is None and asked == "area":
        match = re.search(rf"(?P<number>{_NUMBER})(?!\s?(?:{_MONEY}))", text, re.IGNORECASE)
    if match is None:
        return text, {}
    area = _number(match["number"])
    if match.groupdict().get("feet"):
        area *= _SQUARE_FOOT
    if not MIN_AREA <= area <= MAX_AREA:
        return text, {}
    return _take(text, match), {"area": round(area, 1)}


# --- budget -----------------------------------------------------------------------------------

_THOUSAND = r"tys\w*\.?|tyś\w*\.?|tysi\w*|k(?=\b|pln|zł)|thousand\b|grand\b"
_MILLION = r"mln\b\.?|milion\w*|million\w*|m(?=\s?(?:zł|pln|eur|€))"
_CURRENCY = {
    "PLN": r"zł(?:ot\w*)?|zl(?:ot\w*)?\b|pln\b",
    "EUR": r"eur(?:o|os)?\b|€",
    "USD": r"usd\b|dolar\w*|dollars?\b",
    "GBP": r"gbp\b|£|pounds?\b|funt\w*",
}
_ANY_CURRENCY = "|".join(_CURRENCY.values())
_MONEY = rf"{_THOUSAND}|{_MILLION}|{_ANY_CURRENCY}"
_DASH = r"\s?(?:-|–|—|do|to|and|a|i)\s?"
_AMOUNT = re.compile(
    rf"(?P<before>€|£|\$|eur\s|pln\s)?\s?"
    rf"(?:(?:{_NUMBER})\s?(?:{_THOUSAND}|{_MILLION}|{_ANY_CURRENCY})?{_DASH})?"
    rf"(?P<high>{_NUMBER})\s?(?P<scale>{_THOUSAND}|{_MILLION})?\s?(?P<currency>{_ANY_CURRENCY})?",
    re.IGNORECASE,
)
_SPOKEN = re.compile(
    rf"\b(?P<words>ćwierć|pół|półtora|quarter of a|half a)\s+(?:{_MILLION})"
    rf"|\b(?P<one>milion\b|a million\b)"
    rf"|\b(?P<hundreds>sto|dwieście|trzysta|czterysta|pięćset|sześćset|siedemset|osiemset|dziewięćset)"
    rf"(?:\s+(?P<fifty>pięćdziesiąt))?\s+tys\w*\.?",
    re.IGNORECASE,
)
_WORDS = {
    "ćwierć": 250_000,
    "quarter of a": 250_000,
    "pół": 500_000,
    "half a": 500_000,
    "półtora": 1_500_000,
}
_HUNDREDS = [
    "sto", "dwieście", "trzysta", "czterysta", "pięćset", "sześćset", "siedemset", "osiemset",
    "dziewięćset",
]  # fmt: skip
_BUDGET_WORD = re.compile(
    r"\b(?:budż\w*|budz[eż]\w*|budget\w*|kwot\w*|kwoc\w*|wyda[ćjm]\w*|spend\w*|przeznaczy\w*"
    r"|koszt\w*|afford)\b[^\d•€£$]{0,40}$",
    re.IGNORECASE,
)


def _budget(text: str, _: date, asked: Question | None) -> Reading:
    if match := _SPOKEN.search(text):
        return _take(text, match), {"budget": _spoken(match), "currency": "PLN"}
    for match in _AMOUNT.finditer(text):
        before = text[max(0, match.start() - 64) : match.start()]  # bounds the look back
        amount = _amount(match, before, asked)
        if amount is not None and amount <= MAX_BUDGET:
            return _take(text, match), {"budget": amount, "currency": _currency(match)}
    return text, {}


def _spoken(match: re.Match[str]) -> int:
    if words := match["words"]:
        return _WORDS[words.lower()]
    if match["one"]:
        return 1_000_000
    hundreds = 1 + _HUNDREDS.index(match["hundreds"].lower())
    return hundreds * 100_000 + (50_000 if match["fifty"] else 0)


def _amount(match: re.Match[str], before: str, asked: Question | None) -> int | None:
    """Return the amount when something says that it is money, else None."""
    number, scale = _number(match["high"]), match["scale"]
    said = bool(scale or match["currency"] or match["before"])
    if scale:
        number *= 1_000 if re.fullmatch(_THOUSAND, scale, re.IGNORECASE) else 1_000_000
    elif not match["currency"] and not match["before"]:
        hinted = asked == "budget" or _BUDGET_WORD.search(before)
        if not hinted:
            return None
        said = number >= 1_000
        if asked == "budget" and number < 1_000:  # `250` to "what budget?" means thousands
            number, said = number * 1_000, number >= 5
    return round(number) if said and number >= 1 else None


def _currency(match: re.Match[str]) -> str:
    said = (match["currency"] or match["before"] or "").strip()
    if said == "$":
        return "USD"
    for code, pattern in _CURRENCY.items():
        if re.fullmatch(pattern, said, re.IGNORECASE):
            return code
    return "PLN"


# --- phone ------------------------------------------------------------------------------------

_POLISH = re.compile(
    r"(?<![\w+])(?:(?:\+|00)?48[\s.-]?)?\(?(?P<number>[1-9]\d(?:\d[\s.-]?\d{3}[\s.-]?\d{3}"
    r"|\)?[\s.-]?\d{3}[\s.-]?\d{2}[\s.-]?\d{2}))(?![\s.-]?\d)"
    rf"(?!\s?(?:{_MONEY}|{_METRES}|{_FEET}))",
    re.IGNORECASE,
)
_PLUS48 = re.compile(r"(?:\+|\b00)48(?P<number>(?:[\s.()-]{0,2}\d){9})(?![\s.-]?\d)")
_FOREIGN = re.compile(r"(?:\+|\b00)(?P<number>[1-9](?:[\s.()-]{0,2}\d){7,14})(?!\d)")


def phone(text: str) -> str | None:
    """Return a number that was given as one, in E.164 where it can be told, else its digits."""
    _, news = _phone(text, date.min, None)
    return news.get("phone") or re.sub(r"[^\d+]", "", text) or None


def _phone(text: str, _: date, __: Question | None) -> Reading:
    for pattern, prefix in ((_PLUS48, "+48"), (_FOREIGN, "+"), (_POLISH, "+48")):
        if match := pattern.search(text):
            return _take(text, match), {"phone": prefix + re.sub(r"\D", "", match["number"])}
    return text, {}


# --- start ------------------------------------------------------------------------------------

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


def _start(text: str, today: date, asked: Question | None) -> Reading:
    readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], str | None]], ...] = (
        (_ISO, _numeric), (_DOTTED, _numeric), (_MONTH_YEAR, _numeric),
        (_DAY_MONTH, _month_named), (_NAME_DAY, _month_named), (_NAMED, _month_named),
        (_QUARTER, _quarter), (_ORDINAL_QUARTER, _quarter), (_SEASON, _season), (_NEXT, _next),
        (_IN, _in), (_ASAP, lambda _, __: "asap"), (_YEAR_ONLY, lambda match, _: match["year"]),
    )  # fmt: skip
    if asked == "start":
        readers = (*readers, (re.compile(rf"\b(?P<bare>{_MONTH})", re.IGNORECASE), _month_named))
    for pattern, meaning in readers:
        match = pattern.search(text)
        start = meaning(match, today) if match else None
        if match and start and (start == "asap" or start >= today.isoformat()[: len(start)]):
            return _take(text, match), {"start": start}
    return text, {}


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


# --- name -------------------------------------------------------------------------------------

_CAPITAL = r"[A-ZĄĆĘŁŃÓŚŹŻ][a-ząćęłńóśźż'’]{1,30}"
_FULL_NAME = rf"{_CAPITAL}(?:[ -]{_CAPITAL}){{0,2}}"
_INTRODUCED = re.compile(
    r"(?i:\b(?:nazywam\s+się|nazywam\s+sie|na\s+imię|na\s+imie|z\s+tej\s+strony|my\s+name\s+is"
    rf"|my\s+name['’]s|this\s+is|i['’]?m|i\s+am|jestem|tu)\s+)(?P<name>{_FULL_NAME})(?!\w)"
)
_LOWER_CASE = re.compile(
    r"\b(?:nazywam\s+się|nazywam\s+sie|na\s+imię|na\s+imie|my\s+name\s+is)\s+"
    r"(?P<name>[^\W\d_]{2,30}(?:[ -][^\W\d_]{2,30}(?=\s*(?:[,.;!•]|$)))?)",
    re.IGNORECASE,
)
_SIGNED = re.compile(
    r"(?i:\b(?:pozdrawiam|pozdrowienia|regards|cheers|best)[ ,.!-]+)"
    rf"(?P<name>{_FULL_NAME})[\s.!•]*$"
)
_BARE_NAME = re.compile(rf"[\s•,]*(?P<name>{_FULL_NAME})[\s•,.!]*")
_NO_NAME = {
    "tak",
    "nie",
    "ok",
    "yes",
    "no",
    "dobrze",
    "dzięki",
    "dziękuję",
    "thanks",
    "witam",
    "hello",
}


def _name(text: str, _: date, asked: Question | None) -> Reading:
    match = _INTRODUCED.search(text) or _LOWER_CASE.search(text) or _SIGNED.search(text)
    if match is None and asked in {"name", "contact"}:
        match = _BARE_NAME.fullmatch(text)
        if match and match["name"].lower() in _NO_NAME:
            match = None
    if match is None:
        return text, {}
    name = match["name"]
    return _take(text, match), {"name": name.title() if name.islower() else name}


# --- wish -------------------------------------------------------------------------------------

_DESIRE = re.compile(
    r"(?<!nie )\b(?:chc[ęeą]\w*|chcia[łl]\w*|chcieli\w*|potrzebuj\w*|szuka[mć]\w*|marz[ęy]\w*"
    r"|planuj\w*|zależy|interesuje|zainteresowan\w*|prosz[ęe]\s+o\s+wycen\w*|(?:i|we)['’]?d\s+like"
    r"|(?:i|we)\s+would\s+like|(?:i|we)\s+want|(?:i|we)\s+need|looking\s+for|interested\s+in"
    r"|planning\s+to|dream\w*)\b",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W\d_]{3,}")


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZĄĆĘŁŃÓŚŹŻ])")


def _is_wish(rest: str, asked: Question | None, works: tuple[str, ...]) -> bool:
    words = _LETTERS.findall(rest)
    if _names_work(rest, works):
        return True
    if asked != "consent" and _DESIRE.search(rest):
        return len(words) >= 2
    return asked == "wish" and len(words) >= 3 and not rest.endswith("?")


def _names_work(text: str, works: tuple[str, ...]) -> bool:
    return any(word.lower().startswith(works) for word in _LETTERS.findall(text))


def _wish(message: str, works: tuple[str, ...]) -> str:
    """Return the sentences that say it, in the person's own words; else all of the message."""
    sentences = _SENTENCE_END.split(message)
    telling = [text for text in sentences if _names_work(text, works) or _DESIRE.search(text)]
    return " ".join(telling or sentences)
