"""Questions that the firm's own facts answer: whether it does such works, and where it works.

reading/vocabulary/firm.toml has their words.
"""

import re
from typing import NamedTuple

from services.followups.reading import place, small_talk
from services.followups.reading.speech import heard

_ASKED = {"do_you yes", "reaches yes", "where yes"}
_CLAUSE = re.compile(r",| i czy ")
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]*")


class Asked(NamedTuple):
    works: bool = False
    """Whether we do works that are ours."""
    area: bool = False
    """Where we work."""
    ours: tuple[str, ...] = ()
    """Whether we work in these towns, where we do."""
    others: tuple[str, ...] = ()
    """The same, where we may not."""


NOTHING = Asked()


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
            here = place.find_all(clause) or (place.find_all(message) if reaches else [])
            if said.is_said("where yes"):
                of_area = True
            elif here and (reaches or verb is not None):
                there += here
            elif verb is not None:
                of = " ".join(said.words(verb, len(said.tokens)))
                of_works |= small_talk.only_works(of, works, has_wish=has_wish)
    ours = [town for town in there if town in towns]
    others = [town for town in there if town not in towns]
    return Asked(of_works, of_area, tuple(ours), tuple(others))
