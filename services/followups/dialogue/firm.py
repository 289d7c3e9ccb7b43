"""Questions that the firm's own facts answer: does it do such works, where, and for how much.

reading/vocabulary/firm.toml has their words.
"""

import re
from typing import NamedTuple

from services.followups.reading import place, small_talk
from services.followups.reading.phrases import STEM, fold, plain
from services.followups.reading.speech import heard, says
from services.followups.reading.tokens import words_of
from services.followups.rules.fact_texts import describe_area, grouped

_ASKED = {"do_you yes", "reaches yes", "where yes"}
_CLAUSE = re.compile(r",| i czy ")
_SOMEWHERE = re.compile(r" (?:na|w|we|in|на|у|в) (?=[^\W\d_])[^a-zа-яіїє]\w+\W*$")
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]*")


class Asked(NamedTuple):
    works: bool = False
    """Whether we do works that are ours."""
    area: bool = False
    """Where we work."""
    ours: tuple[str, ...] = ()
    """Whether we work in these towns, and we do in all of them."""
    others: tuple[str, ...] = ()
    """The same, where we may not."""


NOTHING = Asked()
_IN_GENERAL, _NO_WORKS = words_of("firm", "works_in_general"), words_of("firm", "no_works")
_OF_ONE, _MEASURES = words_of("firm", "works_of_one"), words_of("firm", "measures")
_ALIKE = STEM + 1
"""The letters that forms of a word share: `кухня`, `кухні`."""
_FLAT = 20
_SUM = re.compile(r"(\d{1,3}(?:[ .,\xa0]?\d{3})*) ?[^\s/\d()mм]+(?=[\s,)]|$)")
_BY_AREA = re.compile(r"(\w+) (\d{1,3}(?:[ .,\xa0]?\d{3})*)( ?[^\s/\d]+)/[mм]²")


def of_the_list(
    listed: str, wish: str, area: float | None, language: str, works: tuple[str, ...]
) -> str:
    """Return what is listed for these works: prices, by the square metre also the sum, or times.

    If it does not say which works, return all, and nothing if the list does not have them.

    :param listed: as in company.toml: `a new flat from 1,950 zł/m², a kitchen from 32,000 zł`
    """
    floors = words_of("firm", "floors") if says(wish, "sanding yes") else frozenset()  # no new one
    wanted = [word for word in fold(wish) if word[:_ALIKE] not in _NO_WORKS | floors]
    rooms = [word for word in wanted if word[:_ALIKE] not in _IN_GENERAL]
    each = listed.split(", ")
    for named in (rooms, wanted):
        if fit := [part for part in each if _names(part, named)]:
            return ", ".join(_for_area(part, area, language) for part in fit)
    if len(rooms) < len(wanted):  # of the whole flat
        each = [part for part in each if _OF_ONE.isdisjoint(word[:_ALIKE] for word in fold(part))]
    whole = area if (area or 0) >= _FLAT else None  # a smaller one is a room's
    summed = ", ".join(_for_area(part, whole, language) for part in each)
    return "" if small_talk.names_works(" ".join(rooms), works) else summed


def _names(price: str, words: list[str]) -> bool:
    stems = {word[:_ALIKE] for word in fold(price) if len(word) >= STEM} - _NO_WORKS - _MEASURES
    return any(stem in word for word in words for stem in stems)  # `pomalować` is `malowanie`


def _for_area(price: str, area: float | None, language: str) -> str:
    by_area = _BY_AREA.search(price)
    if not (area and by_area):
        return price
    least, number, unit = by_area.groups()
    total = grouped(round(area * int(re.sub(r"\D", "", number))), language)
    return f"{price} ({describe_area(area, language)}: {least} {total}{unit})"


def least(listed: str) -> int:
    """Return the lowest sum of a list of prices; 0 if one of them is only by the square metre."""
    sums = (
        [int(re.sub(r"\D", "", each)) for each in _SUM.findall(part)] for part in listed.split(", ")
    )
    return min(max(each, default=0) for each in sums)


def asked(message: str, works: tuple[str, ...], towns: tuple[str, ...], *, has_wish: bool) -> Asked:
    """Read the questions of a message.

    :param has_wish: the works are known, so that `robicie coś takiego?` is about them
    """
    of_works = of_area = False
    there: list[str] = []
    for sentence in _SENTENCE.findall(message):
        if heard(sentence).names.isdisjoint(_ASKED) or not small_talk.asks(sentence):
            continue
        for clause in _CLAUSE.split(sentence):
            said = heard(clause)
            verb = next((each.start for each in said.of("do_you")), None)
            reaches = said.is_said("reaches yes")
            here = place.find_all(clause)
            # Our own towns need neither a capital nor a preposition: `piaseczno, dojedziecie?`
            if reaches:
                ours = [each for each in towns if plain(each) in fold(message)]
                here = here or place.find_all(message) or ours
            if said.is_said("where yes"):
                of_area = True
            elif here and (reaches or verb is not None):
                there += here
            elif verb is not None and not said.is_said("unstated yes"):
                there_at = _SOMEWHERE.search(clause)  # `robicie łazienki na Ursynowie`
                said = heard(clause[: there_at.start()] if there_at else clause)
                sides = (" ".join(said.words(at, len(said.tokens))) for at in (verb, 0))
                is_ours = any(small_talk.only_works(of, works, has_wish=has_wish) for of in sides)
                of_works |= is_ours
                of_area |= is_ours and there_at is not None
    others = tuple(town for town in there if town not in towns)
    return Asked(of_works, of_area, () if others else tuple(there), others)
