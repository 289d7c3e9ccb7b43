"""Floor areas, in square metres.

Each number becomes a quantity with the noun that it counts (a room, the whole, something else). A number
without a unit counts if a room or a word for areas stands before it. scope.py says which of them are to be
done; amounts.py what they come to. vocabulary/area.toml has the words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

from services.followups.reading import amounts, scope
from services.followups.reading.amounts import MONEY, Amounts, Quantity
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import MARK, Reading, beginnings, vocabulary
from services.followups.reading.tokens import Match
from services.followups.rules.facts import MAX_AREA, MIN_AREA, Question

_LONGEST_SIDE = 30
_LONG = 10
"""Plain metres below this (`3 m`) may be a length, unless a room is named."""
_FEW = 3
"""A bare number below this is a number of rooms."""
_SIZES = {"part": (1.1, 150), "whole": (18, 600)}
"""A number without a unit outside of these does not count as an area: `mieszkanie 12`."""
_MOST = 600
_LEAST = {"piet": 16, "poko": 4}
_PARTED = {"-", "–", ":", "/"}
_MAY_CORRECT = vocabulary("ma has prze sory sork sorr pomy popr")
_STOPS = {",", ";", ".", "!", "?", ")"}
_ANDS = (["i"], ["oraz"], ["and"])
_EXACT = re.compile(r"\d{1,3},\d\d?")
_FLOORS = {"dol", "part", "piet"}


def corrects_rooms(text: str) -> bool:
    """`Przepraszam, łazienka ma 5, a kuchnia 9`, whatever was asked."""
    if _MAY_CORRECT.isdisjoint(beginnings(text)):
        return False
    said = amounts.read(text, "area")
    is_sorry = said.has("beside sorry", 0, 2)
    for each in said.nouns if is_sorry or said.is_said("beside has") else ():
        end = said.end_of("beside has", each.end) or is_sorry * said.end_of("beside is", each.end)
        if each.name == "part" and end and said.value(end - 1) < 100:
            return not said.is_kind(end, *MONEY)
    return False


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not HAS_DIGIT.search(in_digits(text)):
        return text, {}
    said, found = _read(text, asked)
    area = scope.amount(said, found)
    if area is None or not MIN_AREA <= area <= MAX_AREA:
        return text, {}
    rest = said.text
    for each in reversed(found):
        start, end = said.tokens[each.start].start, said.tokens[each.end - 1].end
        rest = f"{rest[:start]} {MARK} {rest[end:]}"
    return rest, {"area": round(area, 1), "areas": len(found)}


def with_earlier(
    earlier: Sequence[str], message: str, known: float, new: float | None
) -> float | None:
    """Return the area after a message about rooms; None if the known one stands.

    `i jeszcze sypialnia 12` adds to `salon 31 m`; `kuchni jednak nie robimy` takes away.

    :param earlier: what was said before, as far as it is remembered: the messages, and the wish
    :param known: the area that this gave
    :param new: the area of the message alone
    """
    said, found = _read(message, None)
    may_change = bool(said.numbers) or scope.changes(said)
    if new is None and not (may_change and scope.has_room(said)):
        return None
    everything = 0, len(said.tokens)
    is_added = said.has("between added", *everything)
    is_of_rooms = bool(found) and all(each.of == "part" or is_added for each in found)
    if new is not None and not is_of_rooms:
        nouns = {each.name for each in said.nouns}
        is_else = bool(nouns & {"height", "other"}) and not nouns & {"whole", "part"}
        return None if is_else and not said.corrects(*everything, most=len(said.tokens)) else new
    if not (is_of_rooms or is_added or (not found and scope.changes(said))):
        return new
    for told in earlier:
        before, rooms = _read(told, None)
        is_same = bool({each.noun for each in rooms} & {each.noun for each in found})
        if not is_same and round(scope.amount(before, rooms) or 0, 1) == known:
            joint = round(scope.amount(*_read(f"{told}. {message}", None)) or known, 1)
            return None if joint == known else joint
    return new


def _read(text: str, asked: Question | None) -> tuple[Amounts, list[Quantity]]:
    said = amounts.read(text, "area")
    if not said.numbers:
        return said, []
    found = _sides(said, asked)
    for read in (_with_unit(said, asked), _labelled(said)):
        _add(found, [*read])
    _add(found, _loose(said, found, asked))
    if not found and asked == "area":
        found = _bare(said)
    found = [each for each in found if not said.is_rejected(each.start)]
    return said, sorted(found, key=lambda each: each.start)


def _add(found: list[Quantity], more: list[Quantity]) -> None:
    for each in more:
        if not any(one.start < each.end and each.start < one.end for one in found):
            found.append(each)


def _bare(said: Amounts) -> list[Quantity]:
    """Return the numbers that alone answer: `jakieś 80`, `umowa mówi 49,87`."""
    found: list[Quantity] = []
    for at in said.bare([(each.start, each.end) for each in said.nouns]):
        of, noun = said.noun_before(at)
        if said.value(at) >= _FEW or of == "part":
            found.append(Quantity(at, at + 1, said.value(at), of, noun=noun))
    exact = (at for at in said.numbers if _EXACT.fullmatch(said.tokens[at].word))
    for at in () if found else exact:
        of, noun = said.noun_before(at)
        is_price = said.ends("beside price", at + 1) or of in {"other", "height"}
        if not is_price and at + 1 in {*said.cuts, len(said.tokens)}:
            return [Quantity(at, at + 1, said.value(at), of, noun=noun)]
    return found


def _sides(said: Amounts, asked: Question | None) -> list[Quantity]:
    """Read `4 x 5 m` and `350 x 420 cm`."""
    found: list[Quantity] = []
    for each in said.of("sides"):
        if said.begins("sides three", each.start):
            continue
        scale = 0.01 if each.value == "in_cm" else 1
        a, b = (scale * one for one in (each.said["amount"] + each.said.get("side", []))[:2])
        unit = said.unit(each.end - 1)
        end = unit[0] if unit else each.end
        of, noun = said.noun_before(each.start)
        if of is None:
            of, noun = said.noun_before(min(end + 2, len(said.tokens)))
        is_metres = scale == 1 and any(word[0] == "m" for word in said.words(each.start, end))
        is_said = of or asked == "area" or is_metres
        if max(a, b) <= _LONGEST_SIDE and of not in {"other", "height"} and is_said:
            found.append(Quantity(each.start, end, a * b, of, noun=noun))
    return found


def _with_unit(said: Amounts, asked: Question | None) -> Iterator[Quantity]:
    for at, (end, scale, is_plain, is_listed) in sorted(_units(said).items()):
        value = said.value(at) * scale
        of, noun = said.noun_before(at)
        if (of is None or (of == "height" and value >= _LONG)) and (room := _room_after(said, end)):
            of, noun = "part", room
        is_low = value < _LONG and not of and is_plain
        is_short = is_low and (not scope.has_room(said) or said.words(end, end + 1) == ["."])
        if of == "height":
            of = "other" if is_plain else None
        if of == "other" or _is_else(said, at, end, is_plain=is_plain):
            continue
        if not (value == 1 or is_short) or _answers(said, at, end, asked):  # `ile za 1 m2?`
            yield Quantity(at, end, value * said.times(at), of, noun=noun, listed=is_listed)


def _units(said: Amounts) -> dict[int, tuple[int, float, bool, bool]]:
    """Return numbers with a unit, also that of a later one: `37, 42 i 51 m2`, `36 + 9 m`."""
    found: dict[int, tuple[int, float, bool, bool]] = {}
    after, is_listed = -1, False
    for at in reversed(said.numbers):
        unit = said.unit(at)
        link = said.words(unit[0] if unit else at + 1, after) if after in found else []
        is_listed = link in _ANDS or (is_listed and link == [","])
        if unit:
            found[at] = (*unit, is_listed and link == [","])
        elif (is_listed or link == ["+"]) and said.value(at) < 1000:
            found[at] = (at + 1, *found[after][1:3], True)
        after = at
    return found


def _room_after(said: Amounts, at: int) -> str | None:
    """Return the room of `12 m kuchnia`, but not in `70 m2, salon 30`."""
    at += said.words(at, at + 1) == ["to"]
    room = next((each for each in said.nouns if each.start == at and each.name == "part"), None)
    for after in range(room.end, min(room.end + 5, len(said.tokens))) if room else ():
        if said.tokens[after].word in _STOPS or said.nouns_in(after, after + 1):
            break
        if said.is_number(after) and not said.nouns_in(after + 1, after + 2):
            return None
    return room.value if room else None


def _is_else(said: Amounts, at: int, end: int, *, is_plain: bool) -> bool:
    """Return whether it is a height, a distance, or an area of tiles."""
    is_height = is_plain and said.ends("beside high", at + 1)
    is_length = said.begins("beside long", end) and not said.is_kind(end + 1, "{amount}")
    return is_height or is_length or said.begins("beside else", end) or said.ends("beside way", at)


def _answers(said: Amounts, at: int, end: int, asked: Question | None) -> bool:
    """Return whether it is all that was said: `no ze 7 m będzie, Radom`."""
    first, end = said.before(at, "{little}"), end + said.is_kind(end, "{then}")
    is_all = _STOPS.issuperset(said.words(first - 1, first) + said.words(end, end + 1))
    return asked == "area" or (asked == "wish" and is_all)


def _labelled(said: Amounts) -> Iterator[Quantity]:
    """Yield what follows a word for areas: `metraż 65,5`, `po obmiarze wyszło 57,2`."""
    for at in said.numbers:
        is_label = said.near("label yes", at, ",", ";", most=6)
        for start, _ in said.spans("label unit", said.since(at, ",", ";", most=6), at):
            is_label = is_label or not (start and said.is_number(start - 1))
        for start, end in said.spans("label m2", at - 2, at):  # `m2 48`, `m2: 48`
            is_label = is_label or (end == at and _STOPS.issuperset(said.words(start - 1, start)))
        if is_label and not said.begins("counts yes", at + 1) and said.value(at) >= _FEW:
            yield Quantity(at, at + 1, said.value(at))


def _loose(said: Amounts, found: list[Quantity], asked: Question | None) -> list[Quantity]:
    """Return numbers without a unit that are areas: `salon 25, kuchnia 12`, `jednak 61`."""
    amended = said.amended() if found or asked == "area" else None
    sure, rooms = list[Quantity](), list[Quantity]()
    for at in said.numbers:
        number, areas = said.value(at), found or rooms
        if not 1 < number <= _MOST or _is_else_counted(said, at, areas) or _has(found, at):
            continue
        near = [each for each in found if each.value <= 2 * number <= 4 * each.value]
        is_near = asked == "area" or bool(near)
        is_ours = found and said.ends("beside sure", at)
        if (amended == at and is_near) or (areas and _is_rest(said, at)) or is_ours:
            sure.append(Quantity(at, at + 1, number))
        elif room := _room(said, at, rooms, found if asked != "budget" else []):
            rooms.append(room)
    is_alone = rooms and _ends(said, rooms[0].end)
    is_said = asked != "budget" and (len(rooms) > 1 or is_alone)
    return sure + rooms if found or asked == "area" or is_said else sure


def _has(found: list[Quantity], at: int) -> bool:
    return any(each.start <= at < each.end for each in found)


def _is_else_counted(said: Amounts, at: int, areas: list[Quantity]) -> bool:
    is_part = at > 0 and said.tokens[at - 1].word in _PARTED and not said.is_loose(at - 1)
    is_counted = said.unit(at) is not None or said.begins("counts yes", at + 1)
    return is_part or is_counted or _is_money(said, at, areas)


def _ends(said: Amounts, at: int) -> bool:
    return at == len(said.tokens) or said.is_kind(at, "{ends}")


def _is_rest(said: Amounts, at: int) -> bool:
    has_money = any(said.is_kind(each + 1, *MONEY) for each in said.numbers if each < at)
    return (said.ends("beside sum", at + 1) and not has_money) or scope.is_left(said, at, at + 1)


def _is_money(said: Amounts, at: int, areas: list[Quantity]) -> bool:
    """Return whether it shares the scale of an amount: `kuchnia 40, łazienka 30 tys`.

    `łazienka 6, 50 tys` are a room and a budget.
    """
    after = next((each for each in said.numbers if each > at), at)
    is_near = at < after < at + 9 and said.since(after, ".", ";", "!", "?") == at + 1
    if not is_near or not said.is_kind(after + 1, *MONEY):
        return False
    is_said = said.begins("then said", at + 1)
    return not (is_said or (areas and said.begins("then yes", at + 1)))


def _room(said: Amounts, at: int, rooms: list[Quantity], found: list[Quantity]) -> Quantity | None:
    number, last = said.value(at), rooms[-1] if rooms else None
    if last and last.of == "part" and at - last.end == 1 and said.is_kind(last.end, "{comma}"):
        return replace(last, start=at, end=at + 1, value=number)
    if (count := said.times(at)) > 1 and number >= _FEW:  # `dwa pokoje dzieci po 10`
        return Quantity(at, at + 1, number * count, "part", noun="each")
    if noun := _noun_of(said, at, number):
        return Quantity(at, at + 1, number, noun.name, noun=noun.value)
    is_end = found and number >= _FEW and _ends(said, at + 1)
    only = scope.only_room(said, at) if is_end else None
    return Quantity(at, at + 1, number, "part", noun=only) if only else None


def _noun_of(said: Amounts, at: int, number: float) -> Match | None:
    """Return the noun that a number without a unit measures: `salon 25`, not `mieszkanie 12`."""
    noun = next(reversed(said.nouns_in(max(0, at - amounts.NEAR), at)), None)
    if noun is None or noun.name not in _SIZES or said.ends("beside numbered", noun.start):
        return None
    link = said.tokens[max(noun.end, said.end_of("beside still", noun.end)) : at]
    is_apart = any("{no_link}" in each.kinds or each.word[0].isdecimal() for each in link)
    if is_apart or sum(each.word.isalnum() for each in link) > 2:
        return None
    if noun.value == "gor" and not any(each.value in _FLOORS for each in said.nouns):
        return None  # `góra 90`: at most
    least, most = _SIZES[noun.name]
    return noun if _LEAST.get(noun.value, least) <= number <= most else None
