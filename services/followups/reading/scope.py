"""Which of the areas that a person names are to be done, and what they come to.

`dom 140 m, robimy tylko parter 85`, `48 m2, z czego łazienki (5) nie robicie`.
"""

import itertools
from collections.abc import Sequence

from services.followups.reading.amounts import MOST_BETWEEN, NEAR, Amounts, Quantity
from services.followups.reading.tokens import Match

_OUTSIDE = {"balk", "logg", "tara", "piwn", "komo", "gara", "antr"}
"""Not counted with the flat: `60 metrów + balkon 8`."""
_ENDS = {";", ".", "!", "?", "|"}
_STOPS = {",", ";", ".", "!", "?"}


def changes(said: Amounts) -> bool:
    """Return whether it may take rooms away: `kuchni jednak nie robimy, tylko salon`."""
    is_said = bool({"done only", "done except", "out yes"} & said.names)
    return is_said or _not_done(said, 0, len(said.tokens)) is not None


def has_room(said: Amounts) -> bool:
    return any(each.name == "part" for each in said.nouns) or said.is_said("done rooms")


def _not_done(said: Amounts, first: int, end: int) -> tuple[int, int] | None:
    last = [each for each in said.spans("out last", first, end) if each[1] == end]
    return next(iter(said.spans("out yes", first, end) + last), None)


def is_left(said: Amounts, start: int, end: int) -> bool:
    """Return whether a number is what is left to do: `do wykończenia 66`, `garaż odpada, więc 135`."""
    if said.ends("done left", start + 1) or not said.ends("done so", start + 1):
        return said.ends("done left", start + 1)
    is_out = said.has("out yes", start - NEAR, start) or said.has("out last", start - NEAR, start)
    unit = said.unit(start)
    is_rest = is_out and _STOPS.issuperset(said.words(end, end + 1))
    return is_rest or said.begins("done to_do", unit[0] if unit else end)


def only_room(said: Amounts, at: int) -> str | None:
    """Return the room that alone is to be done, if its area must follow."""
    comma = said.before(at) - 1
    first = said.since(comma, *_STOPS) if said.words(comma, comma + 1) == [","] else at
    only = said.spans("done only", first, comma)
    return next(reversed(_rooms(said, only[-1][0], comma)), None) if only else None


def amount(said: Amounts, found: Sequence[Quantity]) -> float | None:
    """Return the area to be done; None if a person would ask back."""
    if not found:
        return None
    if only := _only(said, found) if len(found) > 1 else None:
        return said.total(only)
    left_out = _left_out(said, found)
    done = [each for each in found if each not in left_out]
    too = [each for each in done if each.of == "part" and said.begins("done too", each.end)]
    if any(each.of != "part" for each in done):
        done = [each for each in done if each.noun not in _OUTSIDE or each in too]
    rest = [each for each in done if each not in too]
    total = said.total(rest or done)
    if total is not None and rest:
        total += sum(each.value for each in too)
    base = max(done, key=lambda each: each.value, default=None)
    if total is not None and base is not None and total == base.value:
        total -= sum(each.value for each in left_out if _is_inside(said, base, each))
    return total


def _is_inside(said: Amounts, base: Quantity, part: Quantity) -> bool:
    """Return whether a part that is left out was counted in the whole."""
    between = min(base.end, part.end), max(base.start, part.start)
    named = {*_rooms(said, said.since(base.start), base.start)} if base.noun is None else set()
    is_of_flat = base.of != "part" and part.noun not in _OUTSIDE and named <= {part.noun}
    added = [each.value for each in said.nouns if said.ends("done with", each.start)]
    is_of = is_of_flat or part.noun in added or said.of_it(*between)  # `110 m z garażem`
    return part.value < base.value and is_of and not said.has("done on_top", *between)


def _only(said: Amounts, found: Sequence[Quantity]) -> list[Quantity] | None:
    """Return what alone is to be done: `tylko parter, 85`; None if nothing says so."""
    if left := [each for each in found[1:] if is_left(said, each.start, each.end)]:
        return left
    works = _works_on(said) if any(each.of == "whole" for each in found) else []
    if named := [each for each in found if each.noun in {room.value for room in works}]:
        return named
    after = next((each for each in found if works and each.start > works[0].start), None)
    if after and after.of is None:
        return [after]
    for start, stop in said.spans("done only", 0, len(said.tokens)):
        end = next((each for each in said.cuts if each >= stop), len(said.tokens))
        if not said.has("done all", start, end) and (only := _of_piece(said, found, start, end)):
            return only
    return None


def _of_piece(said: Amounts, found: Sequence[Quantity], start: int, end: int) -> list[Quantity]:
    """Return what a clause with `tylko` names, or what follows in its sentence."""
    nouns = {each.value for each in said.nouns_in(start, end) if each.name != "other"}
    if named := [each for each in found if each.noun in nouns or start <= each.start < end]:
        return named
    if (larger := said.has("done larger", start, end)) or said.has("done smaller", start, end):
        return [sorted(found, key=lambda each: each.value)[-1 if larger else 0]]
    stops = (at for at in said.cuts if at >= end and said.tokens[at].word in _ENDS)
    after = [each for each in found if start <= each.start < next(stops, len(said.tokens))]
    return after[:1] if after and after[0].of is None and nouns else after


def _works_on(said: Amounts) -> list[Match]:
    """Return the rooms of `adaptacja poddasza, dom ma 200 m, poddasze 65`."""
    rooms: list[Match] = []
    for each in said.nouns:
        is_first = not rooms and said.ends("done works_on", each.start)
        last = rooms[-1].end if rooms else each.start
        is_next = each.start - last == 1 and said.is_kind(last, "{comma}")
        rooms += [each] if each.name == "part" and (is_first or is_next) else []
    return [] if rooms and said.begins("done rest", rooms[-1].end) else rooms


def _left_out(said: Amounts, found: Sequence[Quantity]) -> list[Quantity]:
    """Return the rooms that a clause says are done or not wanted."""
    out: list[str] = []
    ends = [*said.cuts, len(said.tokens)] if changes(said) else []
    for start, end in itertools.pairwise([0, *ends]):
        first = start + (start > 0 and not said.tokens[start].word.isalnum())
        if out and said.has("done remains", first, min(first + 2, end)):
            continue
        if but := said.spans("done except", start, end):
            out += _rooms(said, but[0][1], end)
        elif (no := _not_done(said, start, end)) and not _is_done(said, start, end):
            numbers = [at for at in range(start, end) if said.is_number(at)]
            is_of_last = not (numbers or said.nouns_in(start, end))
            last = _rooms(said, max(0, start - MOST_BETWEEN), start)[-1:]
            out += last if is_of_last else _subject(said, (start, end), no)
    return [each for each in found if each.noun in out]


def _is_done(said: Amounts, first: int, end: int) -> bool:
    return said.has("done done", first, end) or said.has("done all", first, end)


def _rooms(said: Amounts, first: int, end: int) -> list[str]:
    return [each.value for each in said.nouns_in(first, end) if each.name == "part"]


def _subject(said: Amounts, piece: tuple[int, int], no: tuple[int, int]) -> list[str]:
    """Return the rooms that a clause is about: the last before its verb, else those after it."""
    before = said.nouns_in(piece[0], no[0])
    if not before:
        return _rooms(said, no[1], piece[1])
    keys, end = list[str](), no[0]
    for noun in reversed(before):
        between = [at for at in range(noun.end, end) if len(said.tokens[at].word) > 3]
        if keys and not all(said.is_kind(at, "{comma}", "{amount}") for at in between):
            break
        keys += [noun.value] if noun.name == "part" else []
        end = noun.start
    return keys
