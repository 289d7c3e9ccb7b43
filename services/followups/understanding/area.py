"""Floor areas, in square metres."""

import re
from datetime import date

from services.followups.facts import MAX_AREA, MIN_AREA, Question
from services.followups.understanding import corrections
from services.followups.understanding.corrections import Quantity
from services.followups.understanding.numbers import HAS_DIGIT, NUMBER, in_digits, times, value
from services.followups.understanding.text import MARK, Reading, bare
from services.followups.understanding.units import FEET, METRES, MONEY

_AREA = re.compile(
    rf"(?P<number>{NUMBER})[\s-]?(?:par[ęe]\s|kilka\s|z\s+hakiem\s)?(?>(?P<square>{METRES})|(?P<feet>{FEET}))",
    re.IGNORECASE,
)
_SIDE = r"\d{1,2}(?:[.,]\d{1,2})?"
_SIDES = re.compile(
    rf"(?<![\w.,])(?P<a>{_SIDE})\s?(?:m\w*\.?\s?)?(?:x|×|\*|na|razy|by)\s?(?P<b>{_SIDE})(?!\d|\s?[x×])(?:\s?(?:{METRES}))?",
    re.IGNORECASE,
)
_LONGEST_SIDE = 30
_AREA_WORD = re.compile(
    rf"\b(?:metraż\w*|metraz\w*|pow\b\.?|m2(?=:)|(?:^|(?<=[,;.] ))m2(?=\s\d[\d ]*+(?:[.,]\d+)?+(?!\s?(?:{MONEY})))|powierzchni\w*|area|size|fläche|площа)\b[^\d\n]{{0,20}}(?P<number>{NUMBER})",
    re.IGNORECASE,
)
_PART = (
    r"pok[óo]j(?:u|owi|em)?\b|pokoik\w*|kuchni\w*|aneks\w*|[łl]azien\w*|salon\w*|sypialni\w*|toalet\w*|wc\b|przedpok\w*|korytarz\w*|garderob\w*|hol[ul]?\b|jadalni\w*|gabinet\w*"
    r"|parter\w*|(?<!\d )pi[ęe]tr(?:o|a)\b|d[óo][łl]\b|g[óo]ra\b|balkon\w*|loggi\w*|taras\w*|gara[żz]\w*|spi[żz]arni\w*|pralni\w*|kom[óo]rk\w*|poddasz\w*|strych\w*|jedn[ao]\b|drug[ai]\b|pierwsz[ay]\b|kitchen|bathroom|room|bedroom|ванн\w*|кухн\w*|кімнат\w*|спальн\w*"
)
_WHOLE = r"mieszkani\w*|dom(?:u|em|ek|ku)?\b|lokal\w*|biur\w*|kawalerk\w*|metra[żz]\w*|powierzchni\w*|pod[łl]o\w*|u[żz]ytkow\w*|netto|brutto|flat|apartment|house"
_ELSE = (
    r"dzia[łl]\w*|ogr[óo]d\w*|ogrodz\w*|p[łl]ot\w*|parcel\w*|plot|garden|wysoko\w*|wys\b|odleg[łl]\w*|szeroko\w*|d[łl]ugo\w*|piwnic\w*|[śs]cian\w*"
    r"|tynk\w*|elewacj\w*|dach\w*|kostk\w*|p[łl]yt\w*|kafel\w*|kafl\w*|gres\w*|glazur\w*|blat\w*|listw\w*|szaf\w*|mebl\w*|wysp\w*|zabudow\w*|wann\w*|brodzik\w*|prysznic\w*|okn\w*|drzwi\w*|walls?"
)
_NOUN = re.compile(rf"\b(?:(?P<part>{_PART})|(?P<whole>{_WHOLE})|(?P<height>sufit\w*)|(?P<other>{_ELSE}))", re.IGNORECASE)  # fmt: skip
_PLACE = r"las\w*|morz\w*|sklep\w*|przystan\w*|centrum|stacji|metra|szko[łl]\w*|pla[żz]\w*|jezior\w*|granic\w*|drog\w*|ulic\w*|park\w*|dworc\w*|was\b|pa[ńn]stwa"
_OTHER_AFTER = re.compile(
    r"\s?(?:/\s?b|b(?:ie[żz]\w*|\.)|b\b|wysok\w*|szeroko\w*|d[łl]ugo\w*|dalej|drog\w*|st[ąa]d|wy[żz]ej"
    rf"|(?:od|do|z|from|to)\s+(?:the\s+)?(?:{_PLACE}|sea|beach|centre|station|shop\w*)"
    r"|(?:\w+(?:ych|ej|ego)\s+)?(?:[śs]cian\b|g[łl]adzi\b|tynk(?:u|ów)|elewacji|dachu|kostki|p[łl]ytek|p[łl]yt\b|kafelk[óo]w|gresu|glazury|blatu|list(?:ew|wy)|szafy|mebli|zabudowy|ogrodu|dzia[łl]ki|p[łl]otu|ogrodzenia|kabl[ai]|rur))",
    re.IGNORECASE,
)
_WAY = re.compile(rf"\bdo\s+(?:{_PLACE})(?:\s+\w+)?\s*$", re.IGNORECASE)
_CLAUSE = re.compile(rf"[,;.!?(]\s|{MARK}|\ba\b|\bale\b")
_LOOK_AHEAD = 12
_SQUARE_FOOT = 0.09290304
_LONG = 10
"""Plain metres below this (`3 m`) may be a length, unless a room is named."""
_PLAIN = re.compile(r"[mм]\b|metr\w*|метр\w*", re.IGNORECASE)
_ROOM = re.compile(rf"\b(?:{_PART})", re.IGNORECASE)
_CORRECTS_ROOMS = re.compile(
    rf"\b(?:{_PART})\s+(?:ma|has)\s+(?:oko[łl]o\s+|jakie[śs]\s+)?\d{{1,2}}(?![\d,.]?\d|\s?(?:{MONEY}))"
    rf"|^\W*(?:przepraszam|sor+[yk]i?|pomy[łl]k\w*|pomyli[łl]\w*|poprawk\w*|sorry)\b[^\d]{{0,40}}\b(?:{_PART})\s+(?:to\s+|jest\s+)?\d{{1,2}}(?![\d,.]?\d|\s?(?:{MONEY}))",
    re.IGNORECASE,
)
"""`Przepraszam, łazienka ma 5, a kuchnia 9`, whatever was asked."""
_ONLY_BEFORE = re.compile(r"(?:^|[,;.!]\s)\s*(?:(?:no|tak|to|ze?|jakie[śs]|oko[łl]o|ok\.?|mniej|wi[ęe]cej)\s+)*$", re.IGNORECASE)  # fmt: skip
_ONLY_AFTER = re.compile(r"\s*(?:b[ęe]dzie|jest|wysz[łl]o|wyjdzie)?\s*(?:[,;.!]|$)", re.IGNORECASE)
"""`No ze 7 m będzie, Radom`"""
_FEW = 3
"""A bare number below this is a number of rooms."""


def corrects_rooms(text: str) -> bool:
    return HAS_DIGIT.search(text) is not None and _CORRECTS_ROOMS.search(text) is not None


def find(text: str, _: date, asked: Question | None) -> Reading:
    taken, news = _find(text, asked)
    if news or (said := in_digits(text)) == text:
        return taken, news
    return _find(said, asked, otherwise=text)


def _find(text: str, asked: Question | None, otherwise: str | None = None) -> Reading:
    if not HAS_DIGIT.search(text):
        return otherwise or text, {}
    text = _SERIES.sub(lambda match: _SERIES_COMMA.sub(f" {match['unit']} i ", match[0]), text)
    text = _SHARED.sub(lambda match: f"{match[0]} {match['unit']}", text)
    found = _measured(text, asked)
    if not found and (match := _AREA_WORD.search(text)):
        found = [Quantity(*match.span(), value(match["number"]))]
    if not found and asked == "area":
        found = [
            Quantity(*match.span(), number, _noun(text, match.start()))
            for match in bare(text, beside=_NOUN)
            if (number := value(match["number"])) >= _FEW or _noun(text, match.start()) == "part"
        ]
    found = [each for each in found if not corrections.is_rejected(text, each.start)]
    area = corrections.amount(text, found)
    if area is None or not MIN_AREA <= area <= MAX_AREA:
        return otherwise or text, {}
    for each in reversed(found):
        text = f"{text[: each.start]} {MARK} {text[each.end :]}"
    return text, {"area": round(area, 1), "areas": len(found)}


_SHARED = re.compile(
    rf"(?<![\w.,])\d{{1,3}}(?=\s+(?:i|oraz|and)\s+\d{{1,3}}\s?(?P<unit>{METRES}))", re.IGNORECASE
)
"""`dwa mieszkania, 40 i 65 metrów`: one unit for both."""
_SERIES = re.compile(
    rf"(?<![\w.,])\d{{1,3}}(?:\s*,\s*\d{{1,3}})+(?=\s+(?:i|oraz|and)\s+\d{{1,3}}\s?(?P<unit>{METRES}))",
    re.IGNORECASE,
)
_SERIES_COMMA = re.compile(r"\s*,\s*")
"""`37, 42 i 51 m2`"""


def _measured(text: str, asked: Question | None) -> list[Quantity]:
    found = []
    in_a_room = _ROOM.search(text) is not None
    sides = [*_SIDES.finditer(text)]
    for match in sides:
        a, b, of = value(match["a"]), value(match["b"]), _noun(text, match.start())
        of = of or _noun(text[: match.end() + _LOOK_AHEAD], match.end() + _LOOK_AHEAD)
        if max(a, b) <= _LONGEST_SIDE and of not in {"other", "height"} and (of or asked == "area" or "m" in match[0].lower()):  # fmt: skip
            found.append(Quantity(*match.span(), a * b, of))
    for match in _AREA.finditer(text):
        if any(each.start() < match.end() and match.start() < each.end() for each in sides):
            continue
        area, of = value(match["number"]), _noun(text, match.start())
        before = text[max(0, match.start() - corrections.LOOK_BACK) : match.start()]
        is_plain = _PLAIN.fullmatch(match["square"] or "")
        is_length = not of and is_plain and (text.startswith("m.", match.end() - 1) or not in_a_room)  # fmt: skip
        if of == "height":
            of = "other" if is_plain else None
        if of == "other" or _OTHER_AFTER.match(text, match.end()) or _WAY.search(before):
            continue
        is_answer = asked == "area" or (asked == "wish" and _ONLY_BEFORE.search(text[: match.start()]) and _ONLY_AFTER.match(text, match.end()))  # fmt: skip
        if (area == 1 or (is_length and area < _LONG)) and not is_answer:  # `ile za 1 m2?`
            continue
        if match["feet"]:
            area *= _SQUARE_FOOT
        found.append(Quantity(*match.span(), area * times(before), of))
    return sorted(found, key=lambda each: each.start)


def _noun(text: str, start: int) -> str | None:
    """Classify the nearest word before it in its clause: `part`, `whole`, `height` or `other`."""
    before = text[max(0, start - corrections.LOOK_BACK) : start]
    clauses = _CLAUSE.split(re.split(r"\d", before)[-1])
    nouns = [*_NOUN.finditer(clauses[-1])]
    return nouns[-1].lastgroup if nouns else None
