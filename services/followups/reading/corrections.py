"""Chooses between several values: `80, nie 60`, `60, przepraszam, 80`, the sum of a list, or none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.followups.reading.text import has_any

_REJECTED = re.compile(
    r"\b(?:nie|zamiast|not|instead\s+of|nicht|statt|не|заміст\w*)\s+(?:(?:na|to|z|w|od|mam|jest)\s+)?$", re.IGNORECASE
)  # fmt: skip
WORDS = (
    r"przepraszam|sorry|pomyłk\w*|pomylk\w*|poprawk\w*|poprawiam|znaczy|tzn|w[łl]a[śs]ciwie|jednak|wr[óo]ć|raczej|literówk\w*|literowk\w*"
    r"|(?:a|albo|cho[ćc]|chocia[żz]|oj|e|czekaj|w\s+sumie)\s+nie|tylko|wy[łl][ąa]cznie|lecz|actually|i\s+mean|rather|mistake|sondern|no\s+wait|let'?s\s+say|make\s+it"
)
CORRECTED = re.compile(
    rf"\b(?:{WORDS})\b|\b(?:maks\w*|max\w*|najwy[żz]ej|g[óo]ra|czyli)\b[^,;]*$|\bnie\s*(?:[,.!–-]|no\b)",
    re.IGNORECASE,
)  # fmt: skip
_MEASURED = re.compile(
    r"\b(?:(?:po\s+)?(?:obmia|pomia)r\w*|zmierzy\w*|wysz[łl]o|realnie|faktycznie|dok[łl]adnie|licz(?:my|ymy|cie)|w\s+(?:rzeczywisto[śs]ci|umowie|akcie))\b|^,\s+no\s+$",
    re.IGNORECASE,
)
"""`deweloper pisze 58, po obmiarze 56`"""
_OWN = re.compile(
    r"\b(?:m[óo]j|moja|do\s+mnie|now[yae]|aktualn\w*|poprawn\w*|my|new|current|mein\w*)\b[^\d@,;]{0,15}$",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s?(?:-|–|—|do|to|bis)\s?")
_BETWEEN = re.compile(r"\b(?:po)?mi[ęe]dzy\s$|\bbetween\s$|\bzwischen\s$", re.IGNORECASE)
_AND = re.compile(r"\s*(?:a|i|and|und)\s+", re.IGNORECASE)
_ON_TOP = re.compile(
    r"\s*(?:(?:a|i|oraz|no|and|plus|aha|ach)\b[\s,]*)*\b(?:jeszcze|dodatkowo|do\s+tego|opr[óo]cz\s+tego|poza\s+tym|dochodzi|also|on\s+top|additionally)\b",
    re.IGNORECASE,
)
_TOTAL = re.compile(
    r"\b(?:razem|[łl][ąa]cznie|w\s+sumie|suma|ca[łl]o[śs][ćc]\w*|altogether|in\s+total|total)\b[^,;]{0,20}$",
    re.IGNORECASE,
)
OF_IT = re.compile(
    r"\b(?:w\s+tym|z\s+(?:tego|czego)|(?:razem|wraz|[łl][ąa]cznie)\s+z|including|of\s+which)\b|^\s*\(|^\s*z\s*$",
    re.IGNORECASE,
)
_WORD = r"[^\W\d_]++\.?"
_JOINED = re.compile(
    rf"[.,]*(?:\s*{_WORD}){{0,3}}\s*(?:\+|\b(?:i|oraz|a|plus|and|und|do\s+tego|dodatkowo|do\s+tych|do(?:[łl]o[żz]|rzuc|k[łl]ad|p[łl]ac)\w*)\b)(?:\s+{_WORD}){{0,4}}\s*",
    re.IGNORECASE,
)
_LISTED = re.compile(rf"(?:\s*{_WORD}){{0,3}}\s*,?(?:\s*{_WORD}){{0,4}}\s*:?\s*", re.IGNORECASE)
_ADDS = re.compile(r"\bdo(?:[łl]o[żz]|rzuc|k[łl]ad)\w*(?!\s+(?:\w+\s+)?do\b)", re.IGNORECASE)
"""`rodzice mają 30 tys., ja dołożę 10`"""
ADDED = re.compile(r"\bdochodzi\b", re.IGNORECASE)
_ALTERNATIVE = re.compile(r"\b(?:lub|albo|czy|mo[żz]e|or|oder|ewentualnie|lepiej)\b", re.IGNORECASE)
KIN = (
    r"szwagier|szwagr\w*|brat\w{0,2}|siostr\w*|przyjaci\w*|kump[el]\w*|s[ąa]siad\w*|koleg\w*|kole[żz]an\w*|znajom\w*|kuzyn\w*|te[śs](?:[ćc]|ci)\w*|rodzic\w*|syn\w{0,2}|c[óo]rk\w*|cioci\w*|ciotk\w*"
    r"|brother|sister|neighbou?r|friend"
)
_ANOTHERS = re.compile(rf"\b(?:{KIN}|u\s+(?:niego|niej|nich))\b[^,;.\d]*$", re.IGNORECASE)
_NOT_THEIRS = re.compile(r"\bnie\s+(?:o\s+)?(?:jej|jego|ich)\b", re.IGNORECASE)
"""`Nie o jej mieszkanie chodzi`."""
LOOK_BACK = 40
LONGEST_LINK = 60
MOST_BETWEEN = 200
_FLAT = 20
"""An area of this or more, before that of a room, is that of the whole: `95 m², salon 30 m`."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a message that may be the fact."""

    start: int
    end: int
    value: float
    of: str | None = None
    """`part` if the name of a part (a room, materials) is next to it, `whole`, or None."""
    weight: int = 0
    """A clearer context wins: `na remont` against an amount without any word."""
    noun: str | None = None
    """The beginning of the noun next to it, the same in all cases: `kuch`."""


_OLD = re.compile(r"\bmia[łl]\w*\s+by[ćc]\s+(?:(?:na|to|z|ok\w*)\s+)?$", re.IGNORECASE)
_BUT_NOT = re.compile(r"\ba\s+nie\s+\d", re.IGNORECASE)
"""`miało być 60, wyszło 55`, but `miało być 60, a nie 16`"""


def is_rejected(text: str, start: int) -> bool:
    """Return whether the value that starts here is negated: `nie 60`."""
    before = text[max(0, start - LOOK_BACK) : start].rstrip() + " "
    is_old = _OLD.search(before) is not None and _BUT_NOT.search(text, start) is None
    return is_old or bool(_REJECTED.search(before))


_REJECTED_NUMBER = re.compile(
    r"\b\d+(?:[.,]\d+)?\s?\w{0,4},?\s+(?:a\s+)?(?:nie|not)\s+(?P<after>\d+(?:[.,]\d+)?)\b"
    r"|\b(?:nie|not)\s+(?P<before>\d+(?:[.,]\d+)?)\s?\w{0,4},?\s+(?:tylko|lecz|ale|a|but)\s+\d",
    re.IGNORECASE,
)


def rejected(text: str) -> float | None:
    """Return the number that another replaces: 46 in `64, nie 46`."""
    match = _REJECTED_NUMBER.search(text)
    return float((match["after"] or match["before"]).replace(",", ".")) if match else None


def adds(text: str) -> bool:
    """Return whether it names something on top of what was said before: `i jeszcze garaż 36 m2`."""
    return bool(_ON_TOP.match(text))


def is_of_another(text: str, start: int) -> bool:
    """Return whether it is said of another person: `szwagier ma 80 m`."""
    return bool(_ANOTHERS.search(text[max(0, start - LOOK_BACK) : start]))


def meant(text: str, found: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """Return the person's own value (`mój`, `nowy`), else the first that is not negated, else the
    last of those that correct one another or form a range.
    """
    if len(found) > 1:
        own = [match for match in found if _OWN.search(text[: match.start()][-LOOK_BACK:])]
        found = own or found
    chosen: re.Match[str] | None = None
    for match in found:
        if is_rejected(text, match.start()):
            continue
        if chosen is None or _replaces(text[chosen.end() : match.start()]):
            chosen = match
    return chosen


_SORRY = r"(?:sor+(?:[yk]i?|ki)|tzn\.?|to\s+znaczy|znaczy|przepraszam|pomy[łl]\w+|w[łl]a[śs]ciwie|jednak|poprawk\w*|raczej|[źz]le\s+napisa\w+|dok[łl]adnie|zmierzy[łl]\w*|zapomnia[łl]\w*|licz(?:my|ymy|cie)|po\s+(?:prze|pod)licz\w+|nie\s+no|(?:a|oj|ej|czekaj)\s+nie|(?<=, )no|sorry|i\s+mean|actually)"
_AMENDS = ("sor", "tzn", "znacz", "przepr", "pomy", "aściwie", "asciwie", "jednak", "popraw", "raczej", "kładnie", "kladnie", "zmierz", "zapomn", "napisa", "licz", "rzelicz", "odlicz", "nie no", "a nie", "j nie", ", no ", "mean", "actual")  # fmt: skip
_NUMBER = r"(?P<number>\d{1,4}(?:[.,]\d{1,2})?)(?![\d:/]|[.,]\d|\s?(?:pok|pi[ęe]t|rok|lat\b|dni\b|tyg|mies|os[óo]b|tys|k\b|z[łl]|mln))\s?(?P<metres>m\b|m2|m²|metr\w*|mkw)?"
_AMENDED = re.compile(
    rf"\b{_SORRY}(?:(?:[\s,:]+(?:to|nie|jest|ma|b[ęe]dzie|oko[łl]o|ok\.?|raczej|bardziej|ju[żz]|teraz|w[łl]a[śs]nie|dzi[śs]|wysz[łl]o|{_SORRY})\b)*[\s,:]+|\b[^\d.;!?]{{0,40}}\b(?:b[ęe]dzie|wysz[łl]o|wychodzi|jest|ma)\s+)"
    rf"{_NUMBER}",
    re.IGNORECASE,
)
_AMENDED_AFTER = re.compile(
    rf"{_NUMBER}\s+(?:jednak\b|(?:to\s+(?:jest\s+)?)?(?:maks\w*|max\b)|dok[łl]adnie\b)",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"\b(?:p[óo][źz]niej|potem|reszt[aęy]|(?:drugi|kolejny|nast[ęe]pny)\w*\s+etap\w*)\b"
    r"|\b(?:g[óo]ra|d[óo][łl]|pi[ęe]tro|parter|poddasze|gara[żz]|taras|ogr[óo]d)\b[^,;.]{0,20}\b(?:za|na|w)\s",
    re.IGNORECASE,
)
_MOVED = re.compile(
    r"\b(?:jednak|przesu\w+|prze[łl]o[żz]\w+|zmian\w*|start\w*|zacz\w+|rusz\w+)\b", re.IGNORECASE
)


def amended(text: str) -> re.Match[str] | None:
    """Find the `number`, perhaps of `metres`, of `sory, 4,5 metra` or `jednak będzie 61`."""
    said = text.lower()
    found = _AMENDED.search(text) if has_any(said, _AMENDS) else None
    return found or (
        _AMENDED_AFTER.search(text) if has_any(said, (" jednak", " ma", " to ", "adnie")) else None
    )


def is_later_stage(text: str) -> bool:
    """Return whether a time is that of a later stage: `góra może za rok`."""
    return _LATER.search(text) is not None and _MOVED.search(text) is None


_ROOM = re.compile(
    r"\b(?P<denied>nie\s+)?(?P<room>kuchni|[łl]azien|salon|sypialn|korytarz|przedpok|garderob|taras|balkon|poddasz|pi[ęe]tr|gara[żz]|ogr[óo]d|reszt)\w*",
    re.IGNORECASE,
)
_TOO = re.compile(r"\b(?:te[żz]|tak[żz]e|r[óo]wnie[żz]|ca[łl]\w+|wszystko)\b", re.IGNORECASE)


def is_aside(text: str, wish: str) -> bool:
    """Return whether it is about other rooms than those wanted: `kuchnię zrobimy za rok`."""
    said = {each["room"].lower() for each in _ROOM.finditer(text)}
    if not said or _TOO.search(text):
        return False
    rooms = [*_ROOM.finditer(wish)]
    wanted = {each["room"].lower() for each in rooms}
    wanted -= {each["room"].lower() for each in rooms if each["denied"]}
    return bool(wanted) and said.isdisjoint(wanted)


def corrects(words: str) -> bool:
    return len(words) <= LOOK_BACK and bool(CORRECTED.search(words))


def _replaces(between: str) -> bool:
    is_measured = len(between) <= LONGEST_LINK and _MEASURED.search(between) is not None
    return corrects(between) or is_measured or bool(_RANGE.fullmatch(between))


def amount(text: str, found: Sequence[Quantity]) -> float | None:
    """Return what several values come to; None if a person would ask back."""
    total: float | None = None
    last: Quantity | None = None
    is_joint = _ADDS.search(text) is not None
    own = [each for each in found if is_joint or not is_of_another(text, each.start)]
    theirs = () if own or _NOT_THEIRS.search(text) else found
    for each in own or theirs:
        between = text[max(last.end, each.start - MOST_BETWEEN) : each.start] if last else ""
        before = text[max(0, each.start - LOOK_BACK) : each.start]
        is_of_parts = each.of == "part" and last is not None and last.of == "whole"
        is_floor = each.noun == "gor" and last is not None and last.of == "part"  # not `at most`
        if _TOTAL.search(between if last else before) and not is_of_parts:
            return each.value
        if (
            last is None
            or total is None
            or each.weight > last.weight
            or (not is_floor and _follows(text, last, each, between))
        ):
            total = each.value
        elif (
            (each.value == total and not _are_rooms(last, each))
            or OF_IT.search(between)
            or _ALTERNATIVE.search(between)
        ):
            continue
        elif _is_sum(last, each, between):
            total += each.value
        elif each.weight < last.weight or {each.of, last.of} == {"part", "whole"}:
            continue  # `mieszkanie 72 m2, salon 30 m2`
        elif last.of is None and each.of == "part" and each.value < total >= _FLAT:
            continue
        elif {each.of, last.of} == {None, "whole"}:
            total = each.value if each.of else total
        else:
            return None
        last = each
    return total


_UP_TO = re.compile(
    r"\b(?:do[łl]o\w+|do(?:rzuc|p[łl]ac|ci[ąa]gn|bi|j)\w*|(?:po|pod|z)(?:dnie[śs]|bi|ci[ąa]gn|wi[ęe]ksz)\w*)"
    r"\s+(?:(?:nawet|maks\w*|max|najwy[żz]ej|tak)\s+)?do(?:\s+(?:jakich[śs]|ok\.?|oko[łl]o))?\s*$",
    re.IGNORECASE,
)
"""`160 000, mogę dołożyć do 180`"""


def _follows(text: str, last: Quantity, each: Quantity, between: str) -> bool:
    """Return whether a value replaces the last one: a correction, or a range: `między 70 a 75`."""
    before = text[max(0, last.start - LOOK_BACK) : last.start]
    is_range = _BETWEEN.search(before) and _AND.fullmatch(between)
    is_limit = each.value > last.value and _UP_TO.search(between) is not None
    return is_range is not None or is_limit or _replaces(between)


def _are_rooms(last: Quantity, each: Quantity) -> bool:
    """Return whether they are two rooms."""
    return (
        last.of == each.of == "part"
        and last.noun != each.noun
        and None not in {last.noun, each.noun}
    )


def _is_sum(last: Quantity, each: Quantity, between: str) -> bool:
    if _are_rooms(last, each):
        return True
    if ADDED.search(between) and each.of != "whole":
        return True
    if len(between) > LONGEST_LINK:
        return False
    if _JOINED.fullmatch(between):
        return last.of == each.of or None in {last.of, each.of}
    return last.of == each.of == "part" and bool(_LISTED.fullmatch(between))
