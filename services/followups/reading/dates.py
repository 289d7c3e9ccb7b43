"""The start of the works, as people write it in Polish and English.

A start is `asap` or a date, and after a space the word for what the person named, so that it is
said back in their words: `2027-06 summer`. fact_texts.py has these words in each language.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import starmap
from typing import Literal, NamedTuple

from services.followups.reading import name
from services.followups.reading.numbers import HAS_DIGIT
from services.followups.reading.text import MARK, PHONE_MARK, beginnings, fold, vocabulary

Meaning = Callable[[re.Match[str], date], str | None]
Kind = Literal["date", "day", "number", "weekday", "next", "span", "asap", "now"]
""" `day` has its month's name, `number` is `15.03`, `now` is `teraz` or `szybko`."""

_MONTHS = (
    r"stycz\w*|january|jan\b|januar|січ[ен]\w*",
    r"lut(?:y|ego|ym)\b|february|feb\b|februar|лют(?:ий|ого|ому)",
    r"mar(?:zec|ca|cu|cem)\b|march|mar\b|märz|maerz|берез\w*",
    r"kwie(?:cień|cien|tni\w*)\b|april|apr\b|april|квіт[ен]\w*",
    r"maj(?:a|u|em)?\b|may\b|mai\b|трав(?:ень|ня|ні)",
    r"czerw(?:iec|ca|cu|cem)\b|june|jun\b|juni\b|черв(?:ень|ня|ні)",
    r"lip(?:iec|ca|cu|cem)\b|july|jul\b|juli\b|лип(?:ень|ня|ні)",
    r"sierp(?:ień|ien|ni\w*)\b|august\b|aug\b|серп(?:ень|ня|ні)",
    r"wrze(?:sień|sien|[śs]ni(?:a|u|em|ow\w+))\b|september|sept?\b|september|верес(?:ень|ня|ні)",
    r"październik\w*|pazdziernik\w*|october|oct\b|oktober|жовт(?:ень|ня|ні)",
    r"listopad\w*|november|nov\b|november|листопад[аі]?",
    r"grud(?:zień|zien|ni\w*)\b|december|dec\b|dezember|груд(?:ень|ня|ні)",
)
_MONTH = "|".join(_MONTHS)
_EACH_MONTH = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _MONTHS)
# English months are also words and names, and `maj` is part of Maja: they need a word before them.
_UNMISTAKABLE = (
    r"stycz\w*|luty|marzec|kwiecień|kwiecien|maj\b|maju\b|czerwiec|lipiec|sierpień|sierpien|wrzesień|wrzesien|grudzień|grudzien|lutego|lutym|marca|marcu|kwietni\w*|czerwca|czerwcu|lipca|lipcu|sierpni\w*"
    r"|wrze[śs]ni(?:a|u|em|ow\w+)\b|październik\w*|pazdziernik\w*|listopad\w*|grudni\w*|january|february"
    r"|september|october|november|december|januar|februar|oktober|dezember|січні|лютому|березні|квітні|травні|червні|липні|серпні|вересні|жовтні|листопаді|грудні"
)
_LEADING = (
    r"(?:od|w|na|do|przed|po|z|koło|około|start\w*:?|termin\w*:?|początk\w*|początek|połow\w*|końc\w*|koniec"
    r"|okolicach|okolice|im|ab|anfang|mitte|ende|у|в|з|із|najwcześniej|najwczesniej|wcześniej\s+niż|przełom\w*|przelom\w*|(?:po)?mi[ęe]dzy|in|from|by|since|mid|early|late|around|about|until|before|after|of|beginning|end|next|this"
    r"|this\s+coming|\d{1,2}\.?(?:st|nd|rd|th)?)"
)
_ISO = re.compile(r"\b(?P<year>20\d\d)-(?P<month>0?[1-9]|1[0-2])(?:-(?P<day>[0-3]?\d))?\b")
_DOTTED = re.compile(r"(?<![\d.])(?P<day>[0-3]?\d)[./](?P<month>[01]?\d)[./](?P<year>(?:20)?\d\d)\b")  # fmt: skip
_MONTH_YEAR = re.compile(r"(?<![\d./])(?P<month>0?[1-9]|1[0-2])[./](?P<year>20\d\d)\b")
_DAY_MONTH = re.compile(
    rf"\b(?:(?P<first>[1-9]|[12]\d)\.?\s?(?:[-–/]|do|a|i|lub|albo|to|and)\s?)?(?P<day>[1-9]|[12]\d|3[01])\.?(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<name>{_MONTH})"
    rf"(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_NAME_DAY = re.compile(
    r"\b(?P<name>january|february|march|april|may|june|july|august|september|october|november"
    r"|december)\s+(?P<day>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"\b(?:{_LEADING}[\s-]+(?P<led>{_MONTH})|(?P<bare>{_MONTH})(?=,?\s+20\d\d)|(?P<sure>{_UNMISTAKABLE}))"
    rf"(?:,?\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_ROMAN_MONTHS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_ROMAN_MONTH = re.compile(r"(?<!\w)(?P<roman>IV|IX|XI{0,2}|VI{0,3}|I{1,3})[\s./](?P<year>20\d\d)\b")
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
_HALF_YEAR = re.compile(r"\b(?P<half>pierwsz\w*|drug\w*|1|2|i{1,2})\.?\s+p[óo][łl]rocz\w*(?:\s+(?P<year>20\d\d))?", re.IGNORECASE)  # fmt: skip
_SEASON = re.compile(
    r"\b(?<!przed )(?<!before )(?<!vor dem )(?:(?P<spring>jak\s+(?:tylko\s+)?(?:puszcz[ąa]\s+mrozy|mrozy\s+puszcz[ąa]|zejd[ąa]\s+[śs]niegi|[śs]niegi\s+zejd[ąa]|si[ęe]\s+ociepli)|(?<!\bz\s)wiosny\b|wiosn(?!y\b)[^\W\d_]+\b|навесні|весно[юй]|fr[üu]h(?:ling|jahr)\w*|(?:in|this|next|by|early|late|the)\s+spring)"
    r"|(?P<summer>lat(?:em|o)\b|(?:pocz[ąa]t\w*|po[łl]ow\w*|ko[ńn]c\w*|koniec)\s+lata\b|w\s+lecie|влітку|летом|sommer\b|(?:in|this|next|by|early|late|the)\s+summer)"
    r"|(?P<autumn>(?<!\bz\s)jesie[^\W\d_]+\b|восени|осенью|herbst\b|(?:in|this|next|by|early|late|the)\s+(?:autumn|fall))"
    r"|(?P<winter>zim(?:ą|a|ę|ie)\b|(?<!\bz\s)zimy\b|взимку|зимой|winter\b(?=\s+20\d\d)|im\s+winter\b|(?:in|this|next|by|early|late|the)\s+winter))"
    r"(?:\s+(?P<year>20\d\d))?",
    re.IGNORECASE,
)
_PART = re.compile(r"\b(?:(?P<first_half>(?:pierwsz\w+|1\.?)\s+po[łl]ow\w*)|(?P<second_half>(?:drug\w+|2\.?)\s+po[łl]ow\w*)|(?P<turn>prze[łl]om\w*)|(?P<early>pocz[ąa]t\w*|early|(?:beginning|start)\s+of|anfang)|(?P<mid>po[łl]ow\w*|mid|middle\s+of|mitte)|(?P<late>koniec|ko[ńn]c\w*|late|end\s+of|ende))[\s-]+(?:the\s+|of\s+)?$", re.IGNORECASE)  # fmt: skip
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_COUNTS = {
    "półtora": 1.5, "poltora": 1.5, "dwa": 2, "dwie": 2, "trzy": 3, "cztery": 4, "pięć": 5, "sześć": 6, "kilka": 3, "parę": 2,
    "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "couple of": 2,
    "a couple of": 2, "few": 3, "a few": 3, "pół": 6,
}  # fmt: skip
_IN = re.compile(
    rf"\b(?:za|in|within|w\s+ciągu)\s+(?:ok\.?\s+|około\s+|about\s+|around\s+|jaki(?:e[śs]|[śs])\s+|mniej\s+więcej\s+|co\s+najmniej\s+|maks\w*\s+|max\w*\s+|dopiero\s+)?"
    rf"(?:(?P<count>\d{{1,2}}|{'|'.join(sorted(_COUNTS, key=len, reverse=True))})(?:\s?(?:[-–/,]|albo\b|lub\b|czy\b|do\b)\s?(?P<more>\d{{1,2}}|{'|'.join(_COUNTS)}))?\s+)?"
    r"(?P<unit>dni\b|dzień|days?\b|tydzień|tygodni\w*|tyg\b\.?|weeks?\b|mies(?!zka)\w*\.?|miech\w*|msc\b\.?|months?\b"
    r"|rok\w*|roku|lata\b|years?\b)(?:\s*(?:,|albo|lub|może|czy)\s*(?P<then>dwa|trzy|cztery|two)\b(?!\s+(?:pok|mieszk|dom|[łl]az)))?",
    re.IGNORECASE,
)
_NEXT = re.compile(
    r"\b(?:(?P<month>(?:w\s+|od\s+|na\s+)?(?:przysz[łl]\w+|nast[ęe]pn\w+|kolejn\w+)\s+miesi\w+|next\s+month)"
    r"|(?P<week>(?:w\s+|od\s+|na\s+)?(?:przysz[łl]\w+|nast[ęe]pn\w+|kolejn\w+)\s+tygo?d\w+|next\s+week)"
    r"|(?P<year>(?:w\s+|od\s+|na\s+)?(?:przysz[łl]\w+|nast[ęe]pn\w+|kolejn\w+)\s+rok(?:u)?\b|next\s+year)"
    r"|(?P<this_year>w\s+tym\s+roku|this\s+year)|(?P<new_year>(?:po|w)\s+nowym\s+roku|po\s+nowym\b(?!\s+\w)|(?:od|z)\s+nowego\s+roku|(?:od|z)\s+nowym\s+rokiem|after\s+new\s+year|nach\s+neujahr|після\s+нового\s+року|после\s+нового\s+года))",
    re.IGNORECASE,
)
_ASAP = re.compile(
    r"\b(?:jak\s+n[aj]{2}szybc?i?ej|jak\s+najprędzej|od\s+zaraz|od\s+ręki|cho[ćc]by\s+(?:od\s+)?(?:jutra|jutro|zaraz|dzi[śs])|natychmiast|(?<!bo )zaraz(?!\s+(?:tyle|wyj|pod|napisz|od|wy[śs]l|b[ęe]d))|od\s+dziś"
    r"|już\s+teraz|asap|as\s+soon\s+as\s+possible|right\s+away|immediately|straight\s+away"
    r"|right\s+now)\b",
    re.IGNORECASE,
)
_TOMORROW = re.compile(r"(?<!by )\bod\s+jutra\b", re.IGNORECASE)
_YEAR_ONLY = re.compile(r"\b(?:w|in|na|od|dopiero|najwcze[śs]niej)\s+(?:early\s+|late\s+|mid-?\s*)?(?P<year>20\d\d)(?:\s*r(?:oku|\.)?)?\b", re.IGNORECASE)  # fmt: skip
_WEEKDAYS = (
    r"poniedzia[łl]\w*|monday|montag", r"wtor\w*|tuesday|dienstag", r"[śs]rod[ęae]\b|wednesday|mittwoch", r"czwart(?:ek|ku)|thursday|donnerstag",
    r"pi[ąa]t(?:ek|ku)|friday|freitag", r"sobot[aęe]\b|saturday|samstag", r"niedziel\w*|sunday|sonntag",
)  # fmt: skip
_WEEKS = r"za\s+(?:(?P<{0}>[2-9]|dwa|trzy|cztery|kilka)\s+tyg\w*|tydzie[ńn])"
_WEEKDAY = re.compile(rf"\b(?P<first>{_WEEKS.format('count')},?\s+)?(?P<led>(?:od|w|we|na|po|from|on|next|ab|am)\s+)(?P<next>(?:przysz[łl]\w*|nast[ęe]pn\w*|next)\s+)?(?:najbli[żz]sz\w*\s+)?(?P<day>{'|'.join(_WEEKDAYS)})(?P<then>,?\s+{_WEEKS.format('weeks')})?", re.IGNORECASE)  # fmt: skip
_BREAK = r"(?:^|najlepiej\s+|termin\w{0,3}:?\s+(?:to\s+)?|(?<=[,;.]\s)(?=\w+\s*(?:[,.;!]|$|bo\b)))"
"""What `wakacje`, as a start, follows: `termin: wakacje`, `Mława, wakacje bo wtedy …`."""
_FEASTS = re.compile(
    r"\b(?:(?P<after_easter>po\s+(?:[śs]wi[ęe]tach\s+)?(?:wielkanoc\w*|wielkiejnoc\w*)|after\s+easter|nach\s+ostern)|(?P<before_easter>(?:przed\s+|na\s+|w\s+)(?:[śs]wi[ęe]t\w*\s+)?wielkanoc\w*|before\s+easter)"
    r"|(?P<after_christmas>po\s+(?:[śs]wi[ęe]tach|bo[żz]ym\s+narodzeniu)|after\s+(?:christmas|xmas)|nach\s+weihnachten)"
    r"|(?P<before_christmas>(?:przed|na)\s+(?:[śs]wi[ęe]t\w*|bo[żz]ym\s+narodzeniem|wigili\w*)|(?:before|by)\s+christmas)"
    rf"|(?P<after_holidays>po\s+wakacjach|roku\s+szkoln\w+|after\s+the\s+summer(?:\s+holidays)?)|(?P<holidays>(?:w|na|przez)\s+(?:przysz[łl]\w+\s+)?wakacj\w*|{_BREAK}wakacje\b|(?:in|during)\s+the\s+summer\s+holidays)"
    rf"|(?P<after_winter_break>po\s+feriach)|(?P<winter_break>(?:w|na|przez)\s+(?:przysz[łl]\w+\s+)?feri\w*|ferie\s+zimowe|{_BREAK}ferie\b)|(?P<after_harvest>po\s+[żz]niwach)|(?P<after_epiphany>po\s+(?:trzech\s+kr[óo]lach|3\s+kr[óo]lach))|(?P<after_new_year>po\s+sylwestr\w*)|(?P<after_may_weekend>po\s+(?:maj[óo]w[kc]\w*|(?:d[łl]ug\w+\s+)?weekend\w*\s+majow\w*))|(?P<before_may_weekend>przed\s+(?:maj[óo]w[kc]\w*|(?:d[łl]ug\w+\s+)?weekend\w*\s+majow\w*))|(?P<may_weekend>(?:na|w)\s+(?:maj[óo]w[kc]\w*|(?:d[łl]ug\w+\s+)?weekend\w*\s+majow\w*)))",
    re.IGNORECASE,
)
_FEAST_DAYS = {
    "before_christmas": (12,), "after_christmas": (12, 27), "after_new_year": (1,), "after_epiphany": (1, 7),
    "winter_break": (1,), "after_winter_break": (3,), "before_may_weekend": (5,), "may_weekend": (5,), "after_may_weekend": (5,), "holidays": (7,), "after_holidays": (9,), "after_harvest": (9,),
}  # fmt: skip
"""Month, and day if there is one, from which on the works may start."""
_SPANS = {12: "in_a_year", 6: "in_half_a_year"}
_OF_YEAR = re.compile(r"\b(?P<part>pocz[ąa]t\w*|po[łl]ow\w*|koniec|ko[ńn]c\w*|(?:the\s+)?(?:beginning|start|middle|end)\s+of)\s+(?P<next>przysz[łl]\w*\s+|nast[ęe]pn\w*\s+|next\s+)?(?:the\s+|this\s+)?(?:roku(?!\s+szkoln)|year)(?:\s+(?P<year>20\d\d))?", re.IGNORECASE)  # fmt: skip
_DAY_DOT_MONTH = re.compile(r"(?<![\d.,/])(?:(?P<first>0?[1-9]|[12]\d)\s?[-–]\s?)?(?P<day>0?[1-9]|[12]\d|3[01])[./](?P<month>0?[1-9]|1[0-2])(?![\d]|[.,/]\d|\s?(?:m2|m²|m\b|mkw|tys|k\b|mln|zł|x))")  # fmt: skip
_SOON = re.compile(r"\b(?:im\s+(?:szybciej|wcze[śs]niej|pr[ęe]dzej)|(?:mo[żz]liwie\s+(?:szybko|wcze[śs]nie)|(?:mo[żz]liwie|jak)\s+naj(?:szybciej|pr[ęe]dzej|wcze[śs]niej)|(?:jak\s+)?szybko\s+(?:jak\s+)?si[ęe]\s+da)|na\s+(?:ju[żz]|wczoraj|cito)\b|(?<!wszystko )(?<!nie )od\s+razu(?!\s+(?:po|m[óo]wi|pisz|podaj|nr|numer|tel|mail|m[óo]j|zaznacz|uprzedz|dodam|da[ćc]|wida[ćc]|prosz))\b|jak\s+(?:tylko\s+)?(?:kogo[śs]\s+)?(?:znajd\w+|b[ęe]d[ęe]\s+mia[łl]\w*|b[ęe]dzie)\s+(?:\w+\s+)?(?:ekip\w*|wykonawc\w*|fachowc\w*|firm\w*|kogo[śs]|kto[śs]|(?=to\b))|(?:w|na)\s+(?:pierwsz\w+|najbli[żz]sz\w+)\s+(?:woln\w+\s+|mo[żz]liw\w+\s+)?termin\w*|jak\s+tylko\s+(?:b[ęe]dzieci\w+\s+(?:mog\w+|mie\w+)|mo[żz]ecie|macie)|najszybciej\s+jak|as\s+soon\s+as\s+you|the\s+sooner|piln(?:ie|e)\b|sofort|so\s+schnell|якнайшвидше|одразу)", re.IGNORECASE)  # fmt: skip
_BARE_SOON = re.compile(r"\b(?:piln[eay]\w*|jutro|dzi[śs]|dzisiaj|ju[żz](?=\s*(?:[,.;!]|$|teraz|mo[żz]|zaczyna|wchodz|rusza))|(?<=mo[żz]na\s)ju[żz]|teraz|tomorrow|today|now|urgent\w*|(?<!jak )szybko|natychmiast)\b", re.IGNORECASE)  # fmt: skip
_NEXT_YEAR = re.compile(r"\s+(?:w\s+)?(?:przysz[łl]\w+|nast[ęe]pn\w+|kolejn\w+|of\s+next|next)\s+(?:roku|rok|year)\b", re.IGNORECASE)  # fmt: skip
_LOOK_BACK = 40
_MOST = 20
"""Times that are read of a message."""


@dataclass(frozen=True, slots=True)
class Date:
    """A time in a text."""

    start: int
    end: int
    said: str
    """`asap`, or a date, and what it was called."""
    kind: Kind


class _Reader(NamedTuple):
    pattern: re.Pattern[str]
    meaning: Meaning
    stems: frozenset[str]
    """It runs only if a word of the message begins with one of them."""
    kind: Kind


def read(text: str, today: date, *, bare: bool) -> list[Date]:
    """Return the times that a text names, in its order; without the names of people.

    :param bare: a month's name alone is enough
    """
    begins = beginnings(text) | ({_DIGIT} if HAS_DIGIT.search(text) else set())
    if _BEGINNINGS.isdisjoint(begins):
        return []
    found: list[Date] = []
    for pattern, meaning, stems, kind in _BARE_READERS if bare else _READERS:
        for match in () if stems.isdisjoint(begins) else pattern.finditer(text):
            start, end = match.span()
            if len(found) >= _MOST or any(each.start < end and start < each.end for each in found):
                continue
            if pattern in _MONTH_NAMES and _is_name(
                text, match, text[max(0, start - _LOOK_BACK) : start]
            ):
                continue
            next_year = _NEXT_YEAR.match(text, end) if pattern in _IN_A_YEAR else None
            if said := meaning(match, date(today.year + 1, 1, 1) if next_year else today):
                end = next_year.end() if next_year else end
                if len(said) == _WHOLE_DAY and pattern in _DAYS:
                    led = _LED.search(text[max(0, start - _LOOK_BACK) : start])
                    said += f" {led.lastgroup}" if led else ""
                found.append(Date(start, end, said, kind))
    return sorted(found, key=lambda each: each.start)


_WHOLE_DAY = len("2027-03-15")
_LED = re.compile(r"\b(?:(?P<after>po|after|nach)|(?P<until>do|until|by|bis)|(?P<before>przed|before|vor))\s+(?:dni[ua]\s+)?$", re.IGNORECASE)  # fmt: skip

_SURNAME = re.compile(r"maj|luty|czerwiec|marzec|kwiecie[ńn]|stycze[ńn]|lipiec|sierpie[ńn]|wrzesie[ńn]|pa[źz]dziernik|listopad|grudzie[ńn]", re.IGNORECASE)  # fmt: skip
_NEXT_WORD = re.compile(r"\s+([^\W\d_]+)")
_TITLED = name.FIRST_NAMES | {"pan", "pani", "panstwo", "nazwisko"}
_CAPITAL = rf"(?!(?i:{_MONTH}))[A-ZĆŁŚŹŻ](?:[^\W\d_]|\.)"
_HYPHENED = (re.compile(rf"\b{_CAPITAL}+-$"), re.compile(rf"-{_CAPITAL}"))
"""`Wróbel-Maj`, `Maj-Wróbel`"""
_BEGINS = re.compile(rf"(?:^|[,;.:{MARK}]|\b(?:pani?|jestem|ja|tu|kontakt|pozdrawiam|powa[żz]aniem)\s)\s*$", re.IGNORECASE)  # fmt: skip
_NAMED_SO = re.compile(rf"\s*(?:[.!]*$|,?\s*(?:i\s+)?{_CAPITAL}|,?\s*{MARK})")
_NAMED_LOW = re.compile(rf"\s(?:\w+\s*,?\s*{MARK}|\w+(?:[sc]k[ia]|wicz|czyk)\b)|[\s,]*{PHONE_MARK}")


def _is_name(text: str, match: re.Match[str], before: str) -> bool:
    """`Grzegorz Maj`, `Maj Grzegorz`, `pani Luty`, `Wróbel-Maj`, `Jan Nowak`, `maja nowak 600 100 200`"""
    is_capital = match[0].istitle()
    if fold(match[0]) in name.FIRST_NAMES and _BEGINS.search(before):
        return (_NAMED_SO if is_capital else _NAMED_LOW).match(text, match.end()) is not None
    if is_capital and (_HYPHENED[0].search(before) or _HYPHENED[1].match(text, match.end())):
        return True
    if not _SURNAME.fullmatch(match[0]):
        return False
    *_, word = ("", *before.split())
    after = _NEXT_WORD.match(text, match.end())
    is_named = fold(word) in _TITLED
    follows = after is not None and after[1].istitle() and fold(after[1]) in name.FIRST_NAMES
    return (is_named and (match[0][0].isupper() or word.islower())) or (follows and is_capital)


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
    month = _month(name)
    given, day = parts.get("year"), parts.get("day")
    part = "" if day else _part_of_month(match)
    other = None if day or part else _OTHER_MONTH.match(match.string, match.end())
    after = None if day or part else _AFTER_DAY.match(match.string, match.end())
    day = (after["day"] or after["d"]) if after else day
    later = (_month(other["other"]) - month) % 12 if other else 0
    if later == _ONE_BEFORE:  # `marzec, może luty`
        month, later = month % 12 - 1 or 12, 1
    year = int(given) if given else _coming(today, month, int(day or _PART_ENDS.get(part, 0)))
    if other and other["year"] and not given:  # `marzec albo kwiecień 2028`
        year = int(other["year"]) - (month + later > 12)
    if day:
        return _days(year, month, int(parts.get("first") or day), int(day))
    named = ""
    if other and (later == 1 or (other["link"] and 0 < later < _ONE_BEFORE)):
        named = f" {'to' if other['to'] else 'or'}_{later}"
    return f"{year}-{month:02}{part or named}"


_ONE_BEFORE = 11
_OTHER_MONTH = re.compile(rf"\s*(?:(?P<link>(?P<to>[-–]|,?\s*(?:a\s+)?najp[óo][źz]niej\b|do\b|to\b|bis\b|a(?=\s+\w+(?:em|tym)\b))|/|,?\s*(?:a(?:le)?\s+)?(?:albo|lub|b[ąa]d[źz]|wzgl[ęe]dnie|czy|ewentualnie|mo[żz]e|or|oder)\b)\s*(?:(?:by[ćc]|nawet|ju[żz]|te[żz]|w|od|na|pocz[ąa]tku|po[łl]owie|ko[ńn]cu)\s+){{0,3}}|,?\s*)(?P<other>{_MONTH})(?:\s+(?P<year>20\d\d))?", re.IGNORECASE)  # fmt: skip
"""`maj albo czerwiec`, `między lutym a kwietniem`"""
_AFTER_DAY = re.compile(r"\s*,?\s+po\s+(?P<day>[12]?\d|3[01])-?(?:ty|st|sty|y|i)m\b|\s+po\s+(?P<d>2\d|3[01])(?=[.!]*\s*$|,?\s+bo\b)", re.IGNORECASE)  # fmt: skip
_PART_ENDS = {" early": 10, " first_half": 15, " mid": 20}


def _part_of_month(match: re.Match[str]) -> str:
    """Return which part a word before the month names: `koniec czerwca`."""
    end = match.start("led") if match.re is _NAMED and match["led"] else match.start()
    part = _PART.search(match.string[max(0, match.start() - _LOOK_BACK) : end])
    return f" {part.lastgroup}" if part else ""


_TH = "pierwsz drug trzec czwart piat szost siodm osm dziewiat dziesiat jedenast dwunast trzynast czternast pietnast szesnast siedemnast osiemnast dziewietnast dwudziest"
_DAY_WORDS = {word: number for number, word in enumerate(_TH.split(), 1)} | {"trzydziest": 30}
_CASE = re.compile(r"(?:i?ego|[yi]m?)$")
_SPOKEN_DAY = re.compile(rf"\b(?P<words>(?:(?:dwu|trzy)dziest(?:ego|y)\s+)?[^\W\d_]+(?:ego|ym|im|[yi]))\s+(?P<name>{_MONTH})(?:\s+(?P<year>20\d\d))?", re.IGNORECASE)  # fmt: skip
"""`dwudziestego drugiego lutego`"""


def _spoken_day(match: re.Match[str], today: date) -> str | None:
    words = [_DAY_WORDS.get(_CASE.sub("", word), 0) for word in fold(match["words"]).split()]
    return _day_of(match, today, sum(words)) if all(words) else None


_WEEK_OF = re.compile(rf"\b(?P<nth>pierwsz|drug|trzec|czwart|ostatn|[1-4])[^\W\d_]*\.?\s+(?:pe[łl]n\w+\s+)?ty(?:g|dzie)\w*\s+(?P<name>{_MONTH})(?:\s+(?P<year>20\d\d))?", re.IGNORECASE)  # fmt: skip
_NTH = {"pierwsz": 1, "drug": 2, "trzec": 3, "czwart": 4, "ostatn": 4}


def _week_of(match: re.Match[str], today: date) -> str | None:
    """Return a day of the week: `trzeci tydzień lutego`."""
    nth = match["nth"].lower()
    day = _day_of(match, today, 7 * (_NTH.get(nth) or int(nth)) - 3)
    return day and f"{day} week"


def _day_of(match: re.Match[str], today: date, day: int) -> str | None:
    month = _month(match["name"])
    year = int(match["year"]) if match["year"] else _coming(today, month, day)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def _month(name: str) -> int:
    return next(month for month, each in enumerate(_EACH_MONTH, 1) if each.fullmatch(name))


def _roman(match: re.Match[str], _: date) -> str:
    return f"{match['year']}-{_ROMAN_MONTHS.index(match['roman'].lower()) + 1:02}"


def _coming(today: date, month: int, day: int | None = None) -> int:
    """Return the year in which this month, or this day of it if not 0, comes next."""
    past = (month, day or 31) < (today.month, today.day if day else 0)
    return today.year + past


_PLASTER = re.compile(r"g[łl]ad[źz]|szpachl|tynk|[śs]cian|sufit|styka|wystarcz", re.IGNORECASE)
"""`Q3` is also how smooth plaster is."""


def _quarter(match: re.Match[str], today: date) -> str | None:
    parts = match.groupdict()
    if parts.get("q") and not parts["year"] and _PLASTER.search(match.string):
        return None
    if ordinal := parts.get("ordinal"):
        quarter = _ORDINALS[ordinal.lower()]
    else:
        said = (parts.get("q") or parts["k"]).lower()
        quarter = _ROMAN.get(said) or int(said)
    month = quarter * 3 - 2
    year = int(parts["year"]) if parts["year"] else _coming(today, month + 2)
    if year == today.year and month < today.month <= month + 2:  # it has begun, and lasts
        month = today.month
    return f"{year}-{month:02} quarter"


def _half_year(match: re.Match[str], today: date) -> str:
    month = 7 if match["half"].lower().startswith(("d", "2", "ii")) else 1
    year = int(match["year"]) if match["year"] else _coming(today, month + 3)
    return f"{max(f'{year}-{month:02}', f'{today:%Y-%m}')} half_year"


def _season(match: re.Match[str], today: date) -> str:
    season, month = next((each, first) for each, first in SEASONS.items() if match[each])
    if match["year"]:
        return f"{match['year']}-{month:02} {season}"
    if 0 <= (today.month - month) % 12 < 2:  # it has begun, and lasts
        return f"{today:%Y-%m} {season}"
    return f"{_coming(today, month)}-{month:02} {season}"


def _next(match: re.Match[str], today: date) -> str:
    if match["month"]:
        return f"{_months_later(today, 1):%Y-%m}"
    if match["week"]:
        return f"{today + timedelta(days=7)} week"
    if match["this_year"]:
        return f"{today.year}"
    return f"{today.year + 1}" if match["year"] else f"{today.year + 1}-01 after_new_year"


def _in(match: re.Match[str], today: date) -> str:
    said, unit = (match["count"] or "a").lower(), match["unit"].lower()
    count = float(said) if said.isdecimal() else _COUNTS[said]
    if said == "pół" and not unit.startswith("rok"):
        return f"{today:%Y-%m} about"  # half a month, half a week
    if unit.startswith(("d",)):
        return f"{today + timedelta(days=count)} about"
    if unit.startswith(("t", "w")):
        return f"{today + timedelta(weeks=count)} about"
    months = count if unit.startswith("m") or said == "pół" else count * 12
    half = timedelta(days=15 * (months % 1 > 0))
    named = _SPANS.get(int(months), "about") if months == int(months) else "about"
    if (more := match["more"] or match["then"]) and unit.startswith("m"):
        most = int(more) if more.isdecimal() else int(_COUNTS[more.lower()])
        named = f"or_{most - int(months)}" if 0 < most - months < _ONE_BEFORE else named
    return f"{_months_later(today + half, int(months)):%Y-%m} {named}"


def _months_later(today: date, months: int) -> date:
    year, month = divmod(today.month - 1 + months, 12)
    return date(today.year + year, month + 1, 1)


def _weekday(match: re.Match[str], today: date) -> str:
    day = next(
        n for n, names in enumerate(_WEEKDAYS) if re.fullmatch(names, match["day"], re.IGNORECASE)
    )
    if match["first"] or match["then"]:
        said = match["count"] or match["weeks"] or "1"
        weeks = int(said) if said.isdecimal() else int(_COUNTS[said.lower()])
        return f"{today + timedelta(days=7 * weeks + day - today.weekday())}"
    ahead = (day - today.weekday() - 1) % 7 + 1
    if match["next"] and today.weekday() + ahead < 7:
        ahead += 7  # the next one is next week's
    return (today + timedelta(days=ahead)).isoformat()


_FEAST = re.compile(r"\b(?P<when>po|od|przed|na|w|do)\s+(?:dni\w*\s+)?(?:(?P<barbara>barb[óo]r\w+)|(?P<nicholas>miko[łl]aj(?:k\w+|u|em))|(?P<valentine>walentynk\w+)|(?P<saints>wszystkich\s+[śs]wi[ęe]tych)|(?P<women>kobiet\b)|(?P<independence>11\s+listopada)|(?P<corpus>bo[żz]\w+\s+ci(?:a[łl]|el)\w+))", re.IGNORECASE)  # fmt: skip
_FIXED = {"barbara": (12, 4), "nicholas": (12, 6), "valentine": (2, 14), "saints": (11, 1), "women": (3, 8), "independence": (11, 11)}  # fmt: skip


def _fixed_feast(match: re.Match[str], today: date) -> str:
    """Return the day after a feast, or the feast: `po Barbórce`, `przed walentynkami`."""
    feast = str(match.lastgroup)
    days = [
        date(year, *_FIXED[feast]) if feast in _FIXED else _easter(year) + timedelta(days=60)
        for year in (today.year, today.year + 1)
    ]
    day = next(each for each in days if each >= today)
    return f"{day + timedelta(days=match['when'].lower() == 'po')}"


def _feast(match: re.Match[str], today: date) -> str:
    feast = str(match.lastgroup)
    if feast in {"after_easter", "before_easter"}:
        easter = next(
            day for year in (today.year, today.year + 1) if (day := _easter(year)) > today
        )
        start = f"{easter:%Y-%m}" if feast == "before_easter" else f"{easter + timedelta(days=2)}"
        return f"{start} {feast}"
    month, *rest = _FEAST_DAYS[feast]
    start = "".join(f"-{each:02}" for each in (month, *rest))
    return f"{_coming(today, month, *rest)}{start} {feast}"


def _easter(year: int) -> date:
    """Butcher's algorithm: Western Easter Sunday."""
    a, b, c = year % 19, year // 100, year % 100
    d = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    e = (32 + 2 * (b % 4) + 2 * (c // 4) - d - c % 4) % 7
    f = d + e - 7 * ((a + 11 * d + 22 * e) // 451) + 114
    return date(year, f // 31, f % 31 + 1)


def _of_year(match: re.Match[str], today: date) -> str:
    part = _PART.search(match["part"] + " ")
    named = part.lastgroup if part else "early"
    month = {"early": 1, "mid": 6, "late": 12}[str(named)]
    year = (
        int(match["year"])
        if match["year"]
        else today.year + 1
        if match["next"]
        else _coming(today, month)
    )
    return f"{year}-{month:02} {named}_year"


def _day_month(match: re.Match[str], today: date) -> str | None:
    day, month = int(match["day"]), int(match["month"])
    return _days(_coming(today, month, day), month, int(match["first"] or day), day)


def _days(year: int, month: int, first: int, last: int) -> str | None:
    try:
        start, end = date(year, month, first), date(year, month, last)
    except ValueError:
        return None
    return f"{start} days_{last}" if start < end else end.isoformat()


def _tomorrow(_: re.Match[str], today: date) -> str:
    return f"{today + timedelta(days=1)}"


def _asap(_: re.Match[str], __: date) -> str:
    return "asap"


def _year(match: re.Match[str], _: date) -> str:
    return match["year"]


_DIGIT = "0"
_MONTH_STEMS = (
    "styc luty lute marz marc mar kwie maj maja maju maje czer lipi lipc sier wrze pazd list grud "
    "janu jan febr feb maer apri apr may mai june jun juni july jul juli augu aug sept sep octo oct okto nove nov dece dec deze "
    "січн січе люти люто бере квіт трав черв липе липн серп вере жовт лист груд"
)
_KINDS: dict[re.Pattern[str], Kind] = {
    _DAY_DOT_MONTH: "number", _WEEKDAY: "weekday", _NEXT: "next", _IN: "span", _ASAP: "asap", _SOON: "asap", _BARE_SOON: "now",
}  # fmt: skip


def _reader(pattern: re.Pattern[str], meaning: Meaning, stems: str) -> _Reader:
    return _Reader(pattern, meaning, vocabulary(stems), _KINDS.get(pattern, "date"))


_READERS = tuple(
    starmap(_reader, (
        (_ISO, _numeric, _DIGIT), (_DOTTED, _numeric, _DIGIT), (_MONTH_YEAR, _numeric, _DIGIT), (_ROMAN_MONTH, _roman, _DIGIT), (_DAY_MONTH, _month_named, _MONTH_STEMS),
        (_NAME_DAY, _month_named, "janu febr marc apri may june july augu sept octo nove dece"), (_SPOKEN_DAY, _spoken_day, "pierw drugi drugy trzec czwar piat szost siodm osme osmy dziew dzies jeden dwuna trzyn czter piet szesn siede osiem dwud trzyd"), (_WEEK_OF, _week_of, _MONTH_STEMS), (_DAY_DOT_MONTH, _day_month, _DIGIT), (_NAMED, _month_named, _MONTH_STEMS),
        (_QUARTER, _quarter, "q kw kwar quar ikw ikwa iikw iiik ivkw"), (_ORDINAL_QUARTER, _quarter, "kwar quar"),
        (_FEAST, _fixed_feast, "barb miko wale wszy kobi list cial ciel"), (_HALF_YEAR, _half_year, "polr"), (_FEASTS, _feast, "wiel east oste swie naro chri xmas weih wigi waka szko summ feri zniw krol sylw majo"), (_SEASON, _season, "mroz snie ocie wios наве весн fruh spri lato late lata leci вліт лето somm summ jesi восе осен herb autu fall zima zime zimi zimy взим зимо wint"),
        (_OF_YEAR, _of_year, "roku year"), (_NEXT, _next, "przys nast kolej next tym this nowy nowe new neuj ново"),
        (_WEEKDAY, _weekday, "poni wtor srod czwa piat sobo nied mond tues wedn thur frid satu sund mont dien mitt donn frei sams sonn"),
        (_IN, _in, "za in with ciag"), (_TOMORROW, _tomorrow, "jutr"), (_ASAP, _asap, "najs njas naas njjs najp zara reki choc naty dzis tera asap soon righ imme stra"),
        (_SOON, _asap, "szyb wcze pred najs najp najw juz wczo cito razu znaj bede bedz term tylk soon piln sofo schn якна одра"), (_YEAR_ONLY, _year, _DIGIT),
    ))
)  # fmt: skip
"""In order."""
_BARE_MONTH = re.compile(rf"\b(?P<bare>{_MONTH})(?:,?\s+(?P<year>20\d\d))?", re.IGNORECASE)
_BARE_YEAR = re.compile(r"^\W*(?:rok\s+)?(?P<year>20\d\d)(?:\s*r(?:oku|ok)?)?\W*$", re.IGNORECASE)
_BARE_READERS = (
    *_READERS[:9],
    _reader(_BARE_MONTH, _month_named, _MONTH_STEMS),
    *_READERS[9:],
    _reader(_BARE_YEAR, _year, _DIGIT),
    _reader(_BARE_SOON, _asap, "piln jutr dzis juz tera tomo toda now urge szyb naty"),
)
_BEGINNINGS = frozenset().union(*(each.stems for each in _BARE_READERS))
# Tuples: the hash of a pattern is computed anew each time, and costs more than a search.
_MONTH_NAMES = (_NAMED, _BARE_MONTH)
_DAYS = (_DAY_MONTH, _NAME_DAY, _SPOKEN_DAY, _DAY_DOT_MONTH, _DOTTED)
_IN_A_YEAR = (_DAY_MONTH, _NAMED, _BARE_MONTH, _QUARTER, _ORDINAL_QUARTER, _FEASTS, _SEASON)
"""May be followed by `przyszłego roku`."""
