"""Questions that the firm's own facts answer: whether it does such works, and where it works.

reading/vocabulary/firm.toml has their words.
"""

import re
from dataclasses import dataclass

from services.followups.reading import place, small_talk
from services.followups.reading.speech import heard
from services.followups.reading.tokens import Said

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


def _towns(clause: str, said: Said, message: str, verb: int | None) -> list[str]:
    """Find towns, small ones also in lower case if the clause can hardly mean anything else."""
    reaches = said.is_said("reaches yes")
    if verb is None and not reaches:
        return []
    here = place.find_all(clause)
    if not here and (reaches or len(said.tokens) <= _SHORT):
        here = place.find_all(clause.title())
    if here or not reaches:
        return here
    others = [at for at in range(len(said.tokens)) if not said.is_kind(at, "{beside}")]
    is_there = said.is_said("there yes") or len(others) <= 1
    return place.find_all(message) if is_there else []


def _asks_whether(said: Said, sentence: str) -> int | None:
    """Return where the verb of `robicie łazienki?` is."""
    verbs = [each.start for each in said.of("do_you")]
    if not verbs or ("?" not in sentence and said.ends("reported yes", verbs[0])):
        return None
    return verbs[0]


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
    of_works = of_area = other = False
    there: list[str] = []
    for sentence in _SENTENCE.findall(message):
        whole = heard(sentence, "firm")
        if not whole.names or not (small_talk.asks(sentence) or whole.is_said("do_you yes")):
            continue
        is_known = False
        for clause in sentence.split(","):
            said = heard(clause, "firm")
            verb = _asks_whether(said, sentence)
            if said.is_said("where yes"):
                of_area = is_known = True
            elif here := _towns(clause, said, message, verb):
                there, is_known = [*there, *here], True
            elif verb is not None and small_talk.only_works(
                " ".join(said.words(verb, len(said.tokens))), works, has_wish=has_wish
            ):
                of_works = is_known = True
            else:
                other = other or small_talk.begins_question(said.text)
        other = other or not is_known
    return Asked(of_works, tuple(there), of_area, other, towns)
