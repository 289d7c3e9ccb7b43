"""Floor areas, in square metres: which numbers of a message are areas, and which of them are to be done.

amounts.py reads the numbers. vocabulary/flats_and_rooms.toml has the nouns, and what else a number may measure.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from math import isclose

from services.followups.reading import amounts
from services.followups.reading.amounts import AREAS, NEAR, Amount, Amounts
from services.followups.reading.numbers import HAS_DIGIT, in_digits
from services.followups.reading.text import Reading
from services.followups.rules.facts import MAX_AREA, MIN_AREA, Facts, Question

_FEW = 3
"""A bare number below this is a number of rooms."""
_SIZES = {"part": (1.1, 150), "whole": (18, 600), "piet": (16, 150)}
"""A number without a unit outside of these does not count as an area: `mieszkanie 12`."""
_LAID = "laid"
"""What is laid counts if no floor area is said: `do położenia 32 m2 gresu`."""
_SMALL = {"kuch", "lazi", "toal"}
_OUTSIDE = {"balk", "logg", "tara", "piwn", "komo", "gara", "antr"}
"""Not counted with the flat: `60 metrów + balkon 8`."""


def find(text: str, _: date, asked: Question | None) -> Reading:
    if not HAS_DIGIT.search(in_digits(text)):
        return text, {}
    said = amounts.read(text)
    found = _areas(said, asked)
    area = _to_do(said, found)
    if area is None and len(found) == 2 and isclose(*(each.value for each in found), rel_tol=0.02):
        area = found[1].value  # `about 650 sq ft, so 60 sqm`
    if area is None:
        both = [round(each.value, 1) for each in found]
        is_near = len(both) == 2 and max(both) <= 2 * min(both)
        return text, {"either": [Facts(area=each) for each in both]} if is_near else {}
    if not MIN_AREA <= area <= MAX_AREA:
        return text, {}
    news = {"area": round(area, 1)}
    if len(found) == 1 and found[0].least:
        news["area_from"] = round(found[0].least)
    return said.without(*((each.start, each.end) for each in found)), news


def is_of_pieces(text: str) -> bool:
    """Return whether its areas are of rooms and the like, and not of the whole."""
    said = amounts.read(text)  # `z korytarzem 95 m2` is the whole
    nouns = {each.name for each in said.nouns if not said.ends("done with", each.start)}
    return "whole" not in nouns and bool(nouns)


def is_of_room(text: str) -> bool:
    """Return whether it names a kitchen or a bathroom, and nothing larger."""
    nouns = {each.value for each in amounts.read(text).nouns if each.name != "other"}
    return bool(nouns) and nouns <= _SMALL


def _areas(said: Amounts, asked: Question | None) -> list[Amount]:
    numbers = [
        each for each in said.numbers if each.value != 1 and not said.is_rejected(each.start)
    ]
    sure = [area for each in numbers if each.unit and (area := _measured(said, each))]
    loose = [
        each for each in numbers if each.unit is None and not said.begins("counts yes", each.end)
    ]
    labelled = [each for each in loose if said.near("label yes", each.start)]
    rooms = [room for each in loose if each not in labelled and (room := _room(said, each))]
    sure += [_named(said, each) for each in labelled] + (rooms if asked != "budget" else [])
    if asked == "area":
        sure += [each for each in loose if each.start == said.amended and each not in sure]
    if asked == "area" and all(each.noun in _OUTSIDE for each in sure):
        bare, _ = said.bare([(each.start, each.end) for each in said.nouns])
        least = max([_FEW, *(each.value for each in sure)])  # `78, nie czekaj, z loggią 82 m`
        flat = [_named(said, each) for each in loose if each.start in bare and each.value >= least]
        sure = flat or sure  # `120 plus garaż 25`
    sure = [each for each in sure if each.of != _LAID] or sure
    own = [each for each in sure if not said.near("of kin", each.start)]
    return sorted(own or sure, key=lambda each: each.start)


def _named(said: Amounts, each: Amount) -> Amount:
    """Return a number with the nearest noun before it in its clause."""
    clause = max((at + 1 for at in said.cuts if at < each.start), default=0)
    nouns = said.nouns_in(max(said.since(each.start), clause), each.start)
    return replace(each, of=nouns[-1].name, noun=nouns[-1].value) if nouns else each


def _measured(said: Amounts, each: Amount) -> Amount | None:
    """Return a number that has a unit, with its noun, if it measures what can be done."""
    area = _named(said, each)
    after = next((one for one in said.nouns if one.start == each.end), None)
    if after and (area.of is None or (area.of == "other" and after.name == "whole")):
        # `12 m kuchnia`; `gresu na 35 m2 podłogi`
        area = replace(area, of=after.name, noun=after.value)
    is_else = said.begins("beside else", each.end) or said.ends("beside way", each.start + 1)
    if each.unit not in AREAS:
        return None
    if area.of != "other" and not is_else:
        return area
    is_laid = said.near("beside laid", each.start) or said.begins("beside laid", each.end)
    return replace(area, of=_LAID) if is_laid else None


def _room(said: Amounts, each: Amount) -> Amount | None:
    """Return what a number without a unit measures: `salon 25`, not `mieszkanie 12`."""
    before = max(0, each.start - NEAR)
    noun = next(reversed(said.nouns_in(before, each.start)), None)
    if noun is None or noun.name not in _SIZES:
        return None
    first = max(noun.end, said.end_of("beside still", noun.end))
    is_apart = each.of is None and any(
        said.is_kind(at, "{no_link}", "{amount}") for at in range(first, each.start)
    )
    least, most = _SIZES.get(noun.value, _SIZES[noun.name])
    only = said.has("done only", before, each.start) and not said.near("whose budget", each.start)
    is_such = least <= each.value <= most and (only or not is_apart)  # `tylko parter domu, 75`
    return replace(each, of=noun.name, noun=noun.value) if is_such else None


# --- What is to be done ------------------------------------------------------------------------


def _to_do(said: Amounts, found: Sequence[Amount]) -> float | None:
    """Return the area to be done; None if a person would ask back.

    `dom 140 m, robimy tylko parter 85`, `dom 200 m, góry (90 m) nie robimy`
    """
    only = max((end for _, end in said.all("done only")), default=0)
    found = [each for each in found if each.start >= only] or found
    out = _left_out(said)
    done = [each for each in found if each.noun not in out]
    if not done:  # `mieszkanie 90 m2 po remoncie z 2010`
        done = [each for each in found if each.of == "whole"]
        out -= {each.noun for each in done if each.noun}
    if any(each.of != "part" for each in done):
        done = [each for each in done if each.noun not in _OUTSIDE]
    total = said.total(done)
    parts = {each.name for each in said.nouns_in(0, done[0].start)} if done else set()
    if total is None or len(done) > 1 or "part" in parts:
        return total
    # A part that is left out was counted in the whole: `110 m z garażem`.
    added = {each.value for each in said.nouns if said.ends("done with", each.start)}
    inside = (out & added) | (out - _OUTSIDE)
    return total - sum(each.value for each in found if each.noun in inside)


def _left_out(said: Amounts) -> set[str]:
    """Return the rooms that a clause says are done or not wanted."""
    out: set[str] = set()
    for start, end in pairwise([0, *said.cuts, len(said.tokens)]):
        for first, stop in said.all("out yes", start, end)[:1]:
            nouns = said.nouns_in(start, first)[-1:] or said.nouns_in(stop, end)
            out.update(each.value for each in nouns if not said.is_theirs(stop))
    return out
