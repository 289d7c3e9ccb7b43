"""What ordinary Polish and English writing says: e-mail, phone, area, budget, start, name, wish.

Each reader takes its match out of the text, so that the next one cannot take `80 m2` for money
or a budget for a phone number. Nothing here guesses: what is not clear stays unknown and is asked.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Literal, Self

from services.followups import starts

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


def _start(text: str, today: date, asked: Question | None) -> Reading:
    found = starts.find(text, today, bare=asked == "start")
    if found is None:
        return text, {}
    match, start = found
    return _take(text, match), {"start": start}


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
