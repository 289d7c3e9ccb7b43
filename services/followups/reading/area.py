"""Floor areas, in square metres: which numbers of a message are areas, and which of them are to be done.

amounts.py reads the numbers. vocabulary/area.toml has the rooms, and what else a number may measure.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise

from services.followups.reading import amounts
from services.followups.reading.amounts import AREAS, NEAR, Amount, Amounts
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import Reading
from services.followups.rules.facts import MAX_AREA, MIN_AREA, Question

_LONG = 10
"""Plain metres below this (`3 m`) may be a length, unless a room is named."""
_FEW = 3
"""A bare number below this is a number of rooms."""
_SIZES = {"part": (1.1, 150), "whole": (18, 600), "piet": (16, 150), "poko": (4, 150)}
"""A number without a unit outside of these does not count as an area: `mieszkanie 12`."""
_OUTSIDE = {"balk", "logg", "tara", "piwn", "komo", "gara", "antr"}
"""Not counted with the flat: `60 metrów + balkon 8`."""


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not HAS_DIGIT.search(in_digits(text)):
        return text, {}
    said = amounts.read(text)
    found = _areas(said, asked)
    area = _to_do(said, found)
    if area is None or not MIN_AREA <= area <= MAX_AREA:
        return text, {}
    news = {"area": round(area, 1)}
    if len(found) == 1 and found[0].least is not None and found[0].least < area:
        news["area_from"] = round(found[0].least)
    return said.without(*((each.start, each.end) for each in found)), news


def is_of_pieces(text: str) -> bool:
    """Return whether its areas are of rooms, ceilings and the like, and not of the whole."""
    nouns = {each.name for each in amounts.read(text).nouns}
    return "whole" not in nouns and bool(nouns)


def _areas(said: Amounts, asked: Question | None) -> list[Amount]:
    numbers = [each for each in said.numbers if not said.is_rejected(each.start)]
    sure = [area for each in numbers if each.unit and (area := _measured(said, each, asked))]
    loose = [each for each in numbers if each.unit is None and each.value > 1]
    loose = [each for each in loose if not said.begins("counts yes", each.end)]
    amended = said.amended() if asked == "area" else None
    rooms: list[Amount] = []
    for each in loose:
        is_label = each.value >= _FEW and said.near("label yes", each.start)
        if is_label or each.start == amended or (sure and _is_left(said, each)):
            sure.append(_named(said, each))
        elif room := _room(said, each, rooms[-1:]):
            rooms.append(room)
    sure += rooms if sure or asked != "budget" else []
    if not sure and asked == "area":
        bare, _ = said.bare([(each.start, each.end) for each in said.nouns])
        sure = [_named(said, each) for each in loose if each.start in bare and each.value >= _FEW]
    return sorted(sure, key=lambda each: each.start)


def _named(said: Amounts, each: Amount) -> Amount:
    noun = said.noun_before(each.start)
    return replace(each, of=noun.name, noun=noun.value) if noun else each


def _measured(said: Amounts, each: Amount, asked: Question | None) -> Amount | None:
    """Return a number that has a unit, with its noun, if it measures what can be done."""
    area, is_length = _named(said, each), each.unit == "metres"
    rooms = {one.start: one.value for one in said.nouns if one.name == "part"}
    is_free = area.of is None or (area.of == "height" and each.value >= _LONG)
    if each.end in rooms and is_free:  # `12 m kuchnia`
        area = replace(area, of="part", noun=rooms[each.end])
    elif area.of == "height" and not is_length:
        area = replace(area, of=None)
    is_else = said.begins("beside else", each.end) or said.ends("beside way", each.start + 1)
    if each.unit not in AREAS or area.of in {"other", "height"} or is_else:
        return None
    is_short = is_length and each.value < _LONG and not rooms and not said.is_said("done rooms")
    if (each.value == 1 or is_short) and asked != "area":
        return None
    return replace(area, value=area.value * said.times(each.start))


def _is_left(said: Amounts, each: Amount) -> bool:
    """Return whether a number is what is left to do: `do wykończenia 66`, `garaż odpada, więc 135`."""
    is_so = said.ends("done so", each.start + 1)
    is_out = said.has("out yes", each.start - NEAR, each.start)
    return (is_so and is_out) or said.ends("done left", each.start + 1)


def _room(said: Amounts, each: Amount, last: list[Amount]) -> Amount | None:
    """Return what a number without a unit measures: `salon 25`, not `mieszkanie 12`."""
    at = each.start
    if last and at - last[0].end == 1 and said.is_kind(last[0].end, "{comma}"):
        return replace(each, of=last[0].of, noun=last[0].noun)
    first = max(0, at - NEAR)
    is_only = said.has("done only", first, at)  # `robimy tylko parter domu, 75`
    nouns = [one for one in said.nouns_in(first, at) if one.name == "part" or not is_only]
    noun = next(reversed(nouns), None)
    if noun is None or noun.name not in _SIZES or said.ends("beside numbered", noun.start):
        return None
    link = said.tokens[max(noun.end, said.end_of("beside still", noun.end)) : at]
    is_apart = any("{no_link}" in one.kinds or one.word[0].isdecimal() for one in link)
    is_far = is_apart or sum(one.word.isalnum() for one in link) > 2
    least, most = _SIZES.get(noun.value, _SIZES[noun.name])
    is_such = least <= each.value <= most and (is_only or not is_far)
    return replace(each, of=noun.name, noun=noun.value) if is_such else None


# --- What is to be done ------------------------------------------------------------------------


def _rooms(said: Amounts, first: int, end: int) -> list[str]:
    return [each.value for each in said.nouns_in(first, end)]


def _to_do(said: Amounts, found: Sequence[Amount]) -> float | None:
    """Return the area to be done; None if a person would ask back.

    `dom 140 m, robimy tylko parter 85`, `48 m2, z czego łazienki (5) nie robicie`
    """
    if left := [each for each in found[1:] if _is_left(said, each)]:
        return said.total(left)
    if only := _only(said, found):
        return said.total(only)
    out = _left_out(said)
    done = [each for each in found if each.noun not in out]
    if any(each.of != "part" for each in done):
        done = [each for each in done if each.noun not in _OUTSIDE]
    total = said.total(done)
    base = max(done, key=lambda each: each.value, default=None)
    if base is None or total != base.value:
        return total
    # A part that is left out was counted in the whole: `110 m z garażem`.
    named = {*_rooms(said, said.since(base.start), base.start)} if base.noun is None else set()
    added = {each.value for each in said.nouns if said.ends("done with", each.start)}
    inside = out & added | {noun for noun in out - _OUTSIDE if named <= {noun}}
    return total - sum(each.value for each in found if each.noun in inside)


def _only(said: Amounts, found: Sequence[Amount]) -> list[Amount]:
    """Return what alone is to be done: `tylko parter, 85`; nothing if nothing says so."""
    for start, stop in said.all("done only"):
        end = next((each for each in said.cuts if each >= stop), len(said.tokens))
        nouns = _rooms(said, start, end)
        if only := [each for each in found if each.noun in nouns or start <= each.start < end]:
            return only
    return []


def _left_out(said: Amounts) -> set[str]:
    """Return the rooms that a clause says are done or not wanted."""
    out: set[str] = set()
    for start, end in pairwise([0, *said.cuts, len(said.tokens)]):
        if but := said.spans("done except", start, end):
            out.update(_rooms(said, but[0][1], end))
        elif no := said.spans("out yes", start, end):
            rooms = _rooms(said, start, no[0][0])[-1:] or _rooms(said, no[0][1], end)
            out.update(rooms)
    return out
