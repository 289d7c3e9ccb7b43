"""Floor areas, in square metres.

Each number becomes a quantity with the noun that it counts (a room, the whole, something else). A number
without a unit counts if a room or a word for areas stands before it. scope.py says which of them are to be
done; corrections.py what they come to.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import chain

from services.followups.reading import corrections, scope
from services.followups.reading.corrections import Quantity
from services.followups.reading.numbers import (
    FIRST_DIGIT,
    HAS_DIGIT,
    NUMBER,
    in_digits,
    times,
    value,
)
from services.followups.reading.text import MARK, Reading, bare, beginnings, has_any, vocabulary
from services.followups.reading.units import FEET, METRES, MONEY
from services.followups.rules.facts import MAX_AREA, MIN_AREA, Question

_AREA = re.compile(rf"(?P<number>{NUMBER})[\s-]?(?:par[ęe]\s|kilka\s|z\s+hakiem\s)?(?>(?P<square>{METRES})|(?P<feet>{FEET}))", re.IGNORECASE)  # fmt: skip
_SIDE = r"\d{1,2}(?:[.,]\d{1,2})?"
_SIDES = re.compile(rf"(?P<a>{FIRST_DIGIT}\d?(?:[.,]\d{{1,2}})?)\s?(?:m\w*\.?\s?)?(?:d[łl]ug\w+\s|szero\w+\s)?(?:x|×|\*|na|razy|by)\s?(?P<b>{_SIDE})(?!\d|\s?[x×])(?:\s?(?:{METRES}))?", re.IGNORECASE)  # fmt: skip
_IN_CENTIMETRES = re.compile(rf"(?P<a>{FIRST_DIGIT}\d\d)\s?(?:cm\s?)?(?:x|×|\*|na)\s?(?P<b>\d{{3}})\s?cm\b", re.IGNORECASE)  # fmt: skip
_LONGEST_SIDE = 30
_AREA_WORD = re.compile(
    rf"\b(?:metra[żz]\w*|(?<!\d )(?:metry|mkw)|pow\b\.?|m2(?=:)|(?:^|(?<=[,;.] ))m2(?=\s\d[\d ]*+(?:[.,]\d+)?+(?!\s?(?:{MONEY})))|powierzchni\w*|area|size|fläche|площа"
    rf"|obmiar\w*|wysz[łl]o|pomiar\w*\s+\w+|(?:w|na|wg|wed[łl]ug)\s+(?:umow\w*|akt(?:u|em|y|[óo]w|ach)?|ak[ct]ie\w*|plan\w*|projek\w*))\b[^\d\n,;]{{0,25}}(?P<number>{NUMBER})",
    re.IGNORECASE,
)
_LABELS = vocabulary(
    "metr mkw pow m powi area size flac площ obmi wysz pomi umow akt akta akty akte akto aktu akti akci plan proj"
)
_PLACE = r"las\w*|morz\w*|sklep\w*|przystan\w*|centrum|stacji|metra|szko[łl]\w*|pla[żz]\w*|jezior\w*|granic\w*|drog\w*|ulic\w*|park\w*|dworc\w*|was\b|pa[ńn]stwa"
_OTHER_AFTER = re.compile(
    r"\s?(?:/\s?b|b(?:ie[żz]\w*|\.)|b\b|(?:wysok\w*+|szeroko\w*+|d[łl]ugo\w*+)(?!\W*\d)|dalej|drog\w*|st[ąa]d|wy[żz]ej"
    rf"|(?:od|do|z|from|to)\s+(?:the\s+)?(?:{_PLACE}|sea|beach|centre|station|shop\w*)"
    r"|(?:\w+(?:ych|ej|ego)\s+)?(?:[śs]cian\b|g[łl]adzi\b|tynk(?:u|ów)|elewacji|dachu|kostki|p[łl]ytek|p[łl]yt\b|kafelk[óo]w|gresu|glazury|blatu|list(?:ew|wy)|szafy|mebli|zabudowy|ogrodu|dzia[łl]ki|p[łl]otu|ogrodzenia|kabl[ai]|rur))",
    re.IGNORECASE,
)
_WAY = re.compile(rf"\bdo\s+(?:{_PLACE})(?:\s+\w+)?\s*$", re.IGNORECASE)
_HEIGHT = re.compile(
    r"\b(?:wys|wysoko\w*|wysoki\w*|szer|d[łl]|naj(?:wy[żz]|ni[żz])szym\s+\w+)\.?\s*(?:ok\.?\s*)?$",
    re.IGNORECASE,
)
_LOOK_AHEAD = 12
_LOOK_BACK = 80
_SQUARE_FOOT = 0.09290304
_LONG = 10
"""Plain metres below this (`3 m`) may be a length, unless a room is named."""
_PLAIN = re.compile(r"[mм]\b|metr\w*|метр\w*", re.IGNORECASE)
_MAY_CORRECT = vocabulary("ma has prze sory sork sorr pomy popr")
_CORRECTS_ROOMS = re.compile(
    rf"\b(?:{scope.PART})\s+(?:ma|has)\s+(?:oko[łl]o\s+|jakie[śs]\s+)?\d{{1,2}}(?![\d,.]?\d|\s?(?:{MONEY}))"
    rf"|^\W*(?:przepraszam|sor+[yk]i?|pomy[łl]k\w*|pomyli[łl]\w*|poprawk\w*|sorry)\b[^\d]{{0,40}}\b(?:{scope.PART})\s+(?:to\s+|jest\s+)?\d{{1,2}}(?![\d,.]?\d|\s?(?:{MONEY}))",
    re.IGNORECASE,
)
"""`Przepraszam, łazienka ma 5, a kuchnia 9`, whatever was asked."""
_ONLY_BEFORE = re.compile(r"(?:^|[,;.!]\s)\s*(?:(?:no|tak|to|ze?|jakie[śs]|oko[łl]o|ok\.?|mniej|wi[ęe]cej)\s+)*$", re.IGNORECASE)  # fmt: skip
_ONLY_AFTER = re.compile(r"\s*(?:b[ęe]dzie|jest|wysz[łl]o|wyjdzie)?\s*(?:[,;.!]|$)", re.IGNORECASE)
"""`No ze 7 m będzie, Radom`"""
_FEW = 3
"""A bare number below this is a number of rooms."""
_SIZES = {"part": (1.1, 150), "whole": (18, 600)}
"""A number without a unit outside of these does not count as an area: `mieszkanie 12`."""
_MOST = 600
_LEAST = {"piet": 16, "poko": 4}
_NUMBERED = re.compile(r"\b(?:nr|numer)\s*$", re.IGNORECASE)
_LOOSE = re.compile(
    "(?P<number>" + NUMBER.replace(FIRST_DIGIT, FIRST_DIGIT + r"(?<![-–:/]\d)") + ")"
)
_COUNTS_ELSE = re.compile(
    rf"(?!\s\w+:)[°:/]|(?!\s\w+:)\s?(?:{MONEY}|%|[x×*]\s?\d|[-–]\s?\d|-?(?:go|tego|szego|ej|ym)\b|cm\b|mm\b|km\b|mb\b|ar[óy]?w?\b|ha\b|lat\w?\b|rok\w*|r\b|p\b|pok\w*|pom\b|os[óo]b\w*|dzieci|mies\w*|tyg\w*|dni\b|godz\w*|szt\w*|punkt\w*"
    r"|mieszka\w*|lokal\w*|kawaler\w*|[łl]azien(?:ki|ek)\b|sypialnie?\b|toalety?\b|okn\w*|okien|drzwi|etap\w*|kondygn\w*|gabinet\w*|sal(?:e|ek|ki)?\b|stop\w*|gr\b|kw\b|(?:do|na)\s+\d|(?:stycz|lut|mar[cz]|kwie|maj|czerw|lip|sierp|wrze|pa[źz]d|listop|grud)\w*)",
    re.IGNORECASE,
)
_ENDS = re.compile(r"\s*(?:[,;.!?)+|]|$|(?:i|oraz|a|plus|do|po|bez|razem|ale|wi[ęe]c|kt[óo]r\w+)\b)", re.IGNORECASE)  # fmt: skip
_NO_LINK = re.compile(r"\b(?:za|na|od|do|w|we|przy|ul|nr|numer|rok\w*|lat\w*|mam\w?|kosztuj\w*|bud[żz]\w*|wyda\w*)\b|[,;!?\d]|\.\s|\w+\W+\w+\W+\w+\W+\w", re.IGNORECASE)  # fmt: skip
_NEXT_IS_MONEY = re.compile(rf"[^\d.;!?]{{0,40}}(?:{NUMBER})\s?(?:{MONEY})", re.IGNORECASE)
_THEN_BUDGET = re.compile(r"\s?,\s*(?:(?P<said>bud[żz]\w*|mam\w?\b)|do\b|ok\w*|ma(?:x|ks)\w*|ca[łl]o\w*|\d)", re.IGNORECASE)  # fmt: skip
"""`łazienka 6, 50 tys`: a room, and not a price in thousands like `kuchnia 40, łazienka 30 tys`"""
_MONEY = re.compile(rf"\d\s?(?:{MONEY})", re.IGNORECASE)
_THEN = re.compile(r"\s*(?:,|\bi\b|\boraz\b)\s*")
_SURE = re.compile(r"\bu\s+(?:mnie|nas)\s+(?:jest\s+)?$", re.IGNORECASE)
"""`u sąsiada 70 m, u mnie jest 59`"""
_FLOORS = re.compile(r"\b(?:d[óo][łl]|parter|pi[ęe]tr)", re.IGNORECASE)
_EXACT = re.compile(r"(?<![\w.,:])(?:[3-9]|\d{2,3}),\d{1,2}(?=[.!?]*\s*$|[,;.!?)]+\s)")
_PRICE = re.compile(
    r"\b(?:cen[aęyie]\w*|stawk\w*|kosztuj\w*|p[łl]ac\w*)\s+(?:to\s+|po\s+)?$", re.IGNORECASE
)
_SUMMED = re.compile(r"\b(?:razem|[łl][ąa]cznie|w\s+sumie|suma|dochodzi(?:\s+jeszcze)?|ca[łl]o[śs][ćc]\w*(?:\s+ma)?)\s+(?:to\s+|ok\w*\.?\s+)?$", re.IGNORECASE)  # fmt: skip


def corrects_rooms(text: str) -> bool:
    may = not _MAY_CORRECT.isdisjoint(beginnings(text))
    return may and _CORRECTS_ROOMS.search(text) is not None


def find(text: str, _: date, asked: Question | None) -> Reading:
    said, found = _read(text, asked)
    area = scope.amount(said, found)
    if area is None or not MIN_AREA <= area <= MAX_AREA:
        return text, {}
    for each in reversed(found):
        said = f"{said[: each.start]} {MARK} {said[each.end :]}"
    return said, {"area": round(area, 1), "areas": len(found)}


def with_earlier(
    earlier: Sequence[str], message: str, known: float, new: float | None
) -> float | None:
    """Return the area after a message about rooms; None if the known one stands.

    `i jeszcze sypialnia 12` adds to `salon 31 m`; `kuchni jednak nie robimy` takes away.

    :param earlier: what was said before, as far as it is remembered: the messages, and the wish
    :param known: the area that this gave
    :param new: the area of the message alone
    """
    if new is None and not (_may_change(message) and scope.has_room(message)):
        return None
    found = _read(message, None)[1]
    is_added = corrections.ADDED.search(message) is not None
    is_of_rooms = bool(found) and all(each.of == "part" or is_added for each in found)
    if new is not None and not is_of_rooms:
        nouns = {scope.kind(each)[0] for each in scope.NOUN.finditer(message)}
        is_else = bool(nouns & {"height", "other"}) and not nouns & {"whole", "part"}
        return None if is_else and not corrections.CORRECTED.search(message) else new
    if not (is_of_rooms or is_added or (not found and scope.changes(message))):
        return new
    for told in earlier:
        before, rooms = _read(told, None)
        is_same = bool({each.noun for each in rooms} & {each.noun for each in found})
        if not is_same and round(scope.amount(before, rooms) or 0, 1) == known:
            joint = round(scope.amount(*_read(f"{told}. {message}", None)) or known, 1)
            return None if joint == known else joint
    return new


def _may_change(message: str) -> bool:
    return HAS_DIGIT.search(in_digits(message)) is not None or scope.changes(message)


def _read(text: str, asked: Question | None) -> tuple[str, list[Quantity]]:
    """Return the text with numbers in digits, and the quantities in it."""
    said = _spelt(in_digits(text))
    if not HAS_DIGIT.search(said):
        return text, []
    said = _SERIES.sub(lambda match: _SERIES_COMMA.sub(f" {match['unit']} i ", match[0]), said)
    said = _SHARED.sub(lambda match: f"{match[0]} {match['unit']}", said)
    return said, _quantities(said, asked)


_SPELT = re.compile(r"\b(?P<hundred>st[óo]wk\w*)(?=\s+(?:metr|m2|m\b|kwadrat))|\b(?P<half>p[óo][łl]tor(?:a|ej)\b)(?!\s*(?:rok|mies|tyg|mil|mln|ba|dnia|godz))|(?<=\d)-?(?:ciu|tu|stu|miu)\b|(?P<comma>(?<=\d)\s+przecinek\s+(?=\d))", re.IGNORECASE)  # fmt: skip


def _spelt(text: str) -> str:
    """Convert what only counts metres: `stówka metrów`, `półtora metra`, `80ciu metrów`."""
    if not has_any(text.lower(), ("wk", "łtor", "ltor", "ciu", "stu", "miu", "tu ", "przecinek")):
        return text
    return _SPELT.sub(
        lambda said: (
            "100" if said["hundred"] else "1,5" if said["half"] else "," if said["comma"] else ""
        ),
        text,
    )


_SHARED = re.compile(rf"{FIRST_DIGIT}\d{{0,2}}(?:[.,]\d{{1,2}})?+(?=(?:\s+(?:i|oraz|and)\s+|(?:\s?\+\s?\d{{1,3}}(?:[.,]\d{{1,2}})?+){{0,4}}\s?\+\s?)\d{{1,3}}(?:[.,]\d{{1,2}})?\s?(?P<unit>{METRES}))", re.IGNORECASE)  # fmt: skip
"""`dwa mieszkania, 40 i 65 metrów`, `36 + 9 m`: one unit for all."""
_SERIES = re.compile(rf"{FIRST_DIGIT}\d{{0,2}}(?:\s?(?:m2|m²|m|mkw|metr\w*))?(?:\s*,\s*\d{{1,3}}(?:\s?(?:m2|m²|m|mkw|metr\w*))?)+(?=\s+(?:i|oraz|and)\s+\d{{1,3}}(?:[.,]\d{{1,2}})?\s?(?P<unit>{METRES}))", re.IGNORECASE)  # fmt: skip
_SERIES_COMMA = re.compile(r"(?:\s?m2|\s?m²|\s?mkw|\s?metr\w*|\s?m)?\s*,(?!\d(?!\d))\s*")
"""`37, 42 i 51 m2`"""


def _quantities(text: str, asked: Question | None) -> list[Quantity]:
    found = [*_sides(text, asked)]
    for each in _with_unit(text, asked):
        if not any(one.start < each.end and each.start < one.end for one in found):
            found.append(each)
    for each in (*_labelled(text), *_loose(text, found, asked)):
        if not any(one.start < each.end and each.start < one.end for one in found):
            found.append(each)
    if not found and asked == "area":
        for match in bare(text, beside=scope.NOUN):
            of, noun = scope.noun_before(text, match.start())
            if (number := value(match["number"])) >= _FEW or of == "part":
                found.append(Quantity(*match.span(), number, of, noun=noun))
        exact = None if found else _EXACT.search(text)  # `umowa mówi 49,87`, not `cena 12,50`
        if (
            exact
            and not _PRICE.search(text[: exact.start()])
            and scope.noun_before(text, exact.start())[0] not in {"other", "height"}
        ):
            found.append(Quantity(*exact.span(), value(exact[0])))
    found = [each for each in found if not corrections.is_rejected(text, each.start)]
    return sorted(found, key=lambda each: each.start)


def _sides(text: str, asked: Question | None) -> Iterator[Quantity]:
    for match in chain(_SIDES.finditer(text), _IN_CENTIMETRES.finditer(text)):
        scale = 0.01 if match.re is _IN_CENTIMETRES else 1
        a, b = value(match["a"]) * scale, value(match["b"]) * scale
        of, noun = scope.noun_before(text, match.start())
        if of is None:
            ahead = match.end() + _LOOK_AHEAD
            of, noun = scope.noun_before(text[:ahead], ahead)
        is_said = of or asked == "area" or (scale == 1 and "m" in match[0].lower())
        if max(a, b) <= _LONGEST_SIDE and of not in {"other", "height"} and is_said:
            yield Quantity(*match.span(), a * b, of, noun=noun)


def _with_unit(text: str, asked: Question | None) -> Iterator[Quantity]:
    for match in _AREA.finditer(text):
        area, before = (
            value(match["number"]),
            text[max(0, match.start() - _LOOK_BACK) : match.start()],
        )
        of, noun = scope.noun_before(text, match.start())
        may_follow = of is None or (of == "height" and area >= _LONG)
        if may_follow and (room := scope.ROOM_AFTER.match(text, match.end())):
            of, noun = scope.kind(room)
        is_plain = _PLAIN.fullmatch(match["square"] or "") is not None
        is_short = area < _LONG and not of and is_plain and (text.startswith("m.", match.end() - 1) or not scope.has_room(text))  # fmt: skip
        if of == "height":
            of = "other" if is_plain else None
        if of == "other" or _is_else(text, match, before, is_plain=is_plain):
            continue
        if not (area == 1 or is_short) or _answers(text, match, asked):  # `ile za 1 m2?`
            area *= _SQUARE_FOOT if match["feet"] else 1
            yield Quantity(*match.span(), area * times(before), of, noun=noun)


def _is_else(text: str, match: re.Match[str], before: str, *, is_plain: bool) -> bool:
    """Return whether it is a height, a distance, or an area of tiles."""
    is_height = is_plain and _HEIGHT.search(before)
    return bool(is_height or _OTHER_AFTER.match(text, match.end()) or _WAY.search(before))


def _answers(text: str, match: re.Match[str], asked: Question | None) -> bool:
    is_all = _ONLY_BEFORE.search(text[: match.start()]) and _ONLY_AFTER.match(text, match.end())
    return asked == "area" or (asked == "wish" and bool(is_all))


def _labelled(text: str) -> Iterator[Quantity]:
    """Yield what follows a word for areas: `metraż 65,5`, `po obmiarze wyszło 57,2`."""
    for match in () if _LABELS.isdisjoint(beginnings(text)) else _AREA_WORD.finditer(text):
        if not _COUNTS_ELSE.match(text, match.end()) and value(match["number"]) >= _FEW:
            yield Quantity(*match.span("number"), value(match["number"]))


def _loose(text: str, found: list[Quantity], asked: Question | None) -> list[Quantity]:
    """Return numbers without a unit that are areas: `salon 25, kuchnia 12`, `jednak 61`."""
    amended = corrections.amended(text) if found or asked == "area" else None
    sure, rooms = list[Quantity](), list[Quantity]()
    for match in _LOOSE.finditer(text):
        start, end = match.span()
        number = value(match["number"])
        if not 1 < number <= _MOST or any(each.start <= start < each.end for each in found):
            continue
        has_unit = _AREA.match(text, start) or _COUNTS_ELSE.match(text, end)
        then = _THEN_BUDGET.match(text, end)
        is_room = then and (found or rooms or then["said"])
        if has_unit or (_NEXT_IS_MONEY.match(text, end) and not is_room):
            continue
        before = text[max(0, start - _LOOK_BACK) : start]
        is_near = any(each.value <= 2 * number <= 4 * each.value for each in found)
        is_amended = amended and start == amended.start("number") and (asked == "area" or is_near)
        is_sum = (found or rooms) and _SUMMED.search(before) and not _MONEY.search(before)
        is_left = (found or rooms) and scope.is_left(text, start, end)
        if is_amended or is_sum or is_left or (found and _SURE.search(before)):
            sure.append(Quantity(start, end, number))
        elif rooms and rooms[-1].of == "part" and _THEN.fullmatch(text, rooms[-1].end, start):
            rooms.append(replace(rooms[-1], start=start, end=end, value=number))
        elif (count := times(before)) > 1 and number >= _FEW:  # `dwa pokoje dzieci po 10`
            rooms.append(Quantity(start, end, number * count, "part", noun="each"))
        elif noun := _noun_of(text, before, number):
            rooms.append(Quantity(start, end, number, noun[0], noun=noun[1]))
        elif found and asked != "budget" and number >= _FEW and _ENDS.match(text, end) and (only := scope.only_room(before)):  # fmt: skip
            rooms.append(Quantity(start, end, number, "part", noun=only))
    is_alone = rooms and asked != "budget" and _ENDS.match(text, rooms[0].end)
    is_said = found or asked == "area" or (asked != "budget" and len(rooms) > 1) or is_alone
    return sure + rooms if is_said else sure


_STILL = re.compile(r"\s+nie\s+\w+,\s+(?=(?:on[aoe]?\s+)?ma\s*$)", re.IGNORECASE)
"""`garażu nie robimy, ma 18`"""


def _noun_of(text: str, before: str, number: float) -> tuple[str, str] | None:
    """Return the noun that a number without a unit measures: `salon 25`, not `mieszkanie 12`."""
    before = _STILL.sub(" ", before)
    nouns = [*scope.NOUN.finditer(before, max(0, len(before) - corrections.LOOK_BACK))]
    if not nouns or _NO_LINK.search(before, nouns[-1].end()):
        return None
    of, key = scope.kind(nouns[-1])
    if of not in _SIZES or (key == "gor" and not _FLOORS.search(text)):
        return None  # `góra 90`: at most
    least, most = _SIZES[of]
    is_area = _LEAST.get(key, least) <= number <= most
    return (of, key) if is_area and not _NUMBERED.search(before, 0, nouns[-1].start()) else None
