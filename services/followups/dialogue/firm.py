"""Questions that the firm's own facts answer: whether it does such works, and where it works."""

import re
from dataclasses import dataclass

from services.followups.reading import place, small_talk
from services.followups.reading.phrases import fold
from services.followups.reading.text import has_any

_DO_YOU = re.compile(
    r"\b(?:robicie|zrobicie|robia panstwo|wykonujecie|wykonacie|zajmujecie|zajmuja sie|montujecie"
    r"|zamontujecie|ukladacie|ulozycie|ogarniacie|kladziecie|polozycie|malujecie|pomalujecie"
    r"|projektujecie|remontujecie|wykanczacie|wymieniacie|wymienicie|przerabiacie|odnawiacie|tapetujecie|cyklinujecie|podejmiecie|podejmujecie|realizujecie"
    r"|do you (?:do|make|finish|renovate|paint))\b"
)
_REACH = re.compile(
    r"\b(?:pracujecie|dzialacie|dojezdzacie|dojedziecie|przyjezdzacie|przyjedziecie|jezdzicie"
    r"|obslugujecie|dojazd|pracuja panstwo|dojezdzaja panstwo|do you work|do you cover)\b"
)
_MAY_ASK = ("cie", "panstwo", "you", "dojazd", "teren", "obszar")
"""A part of each pattern here: a message without one costs no more than this look."""
_WHERE = re.compile(
    r"\b(?:gdzie|w jakich miastach|na jakim (?:terenie|obszarze)|w jakim (?:rejonie|regionie)"
    r"|jaki (?:teren|obszar|rejon))\b(?: \w+){0,2} "
    r"(?:dzialacie|pracujecie|robicie|obslugujecie|dojezdzacie|remontujecie)\b"
    r"|\bwhere do you work\b"
)
_THERE = re.compile(r"\b(?:tam|tu|there)\b|^(?:(?:a|i|czy) )*\w+(?: do (?:mnie|nas))?$")
_REPORTED = re.compile(r"\bze (?:panstwo |wy |tu )?$")
"""`Sąsiadka mówiła, że państwo robicie remonty`"""
_SHORT = 4
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]*")


@dataclass(frozen=True, slots=True)
class Asked:
    works: bool = False
    """Whether we do works that are ours."""
    there: tuple[str, ...] = ()
    """Whether we work in these towns."""
    area: bool = False
    """Where we work."""
    other: bool = False
    """Something else as well."""
    towns: tuple[str, ...] = ()
    """Where we work, as configured; empty if it is not."""

    @property
    def is_answered(self) -> bool:
        return self.works or bool(self.there) or self.area

    @property
    def needs_adviser(self) -> bool:
        is_elsewhere = not set(self.there) <= set(self.towns)
        return self.other or is_elsewhere or (self.area and not self.towns)


NOTHING = Asked()


def _towns(clause: str, said: str, *, reaches: bool) -> list[str]:
    """Find towns, small ones also in lower case if the clause can hardly mean anything else."""
    is_short = reaches or len(said.split()) <= _SHORT
    return place.find_all(clause) or (place.find_all(clause.title()) if is_short else [])


def _asks_whether(said: str, sentence: str) -> re.Match[str] | None:
    verb = _DO_YOU.search(said)
    is_reported = verb and "?" not in sentence and _REPORTED.search(said[: verb.start()])
    return None if is_reported else verb


def asked(
    message: str,
    works: tuple[str, ...],
    towns: tuple[str, ...],
    *,
    has_wish: bool,
    before: str | None = None,
) -> Asked:
    """Read the questions of a message.

    :param has_wish: the works are known, so that `robicie coś takiego?` is about them
    :param before: the message whose question this one continues: `a Myślenice`
    """
    if before is not None and asked(before, works, towns, has_wish=has_wish).there:
        _, _, rest = message.partition(" ")
        return Asked(there=tuple(place.find_all(rest.title())), towns=towns)
    if not has_any(" ".join(fold(message)), _MAY_ASK):
        return NOTHING
    of_works = of_area = other = False
    there: list[str] = []
    for sentence in _SENTENCE.findall(message):
        if not small_talk.asks(sentence) and not _DO_YOU.search(" ".join(fold(sentence))):
            continue
        is_known = False
        for clause in sentence.split(","):
            said = " ".join(fold(clause))
            verb, reaches = _asks_whether(said, sentence), _REACH.search(said) is not None
            here = _towns(clause, said, reaches=reaches) if verb or reaches else []
            if reaches and not here and _THERE.search(said):
                here = place.find_all(message)
            if _WHERE.search(said):
                of_area = is_known = True
            elif here:
                there, is_known = [*there, *here], True
            elif verb and small_talk.only_works(said[verb.start() :], works, has_wish=has_wish):
                of_works = is_known = True
            else:
                other = other or small_talk.begins_question(said)
        other = other or not is_known
    return Asked(of_works, tuple(there), of_area, other, towns)
