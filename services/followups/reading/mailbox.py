"""Detects a writer who cannot consent: a child, or someone who names another person's mailbox.

vocabulary/mailbox.toml has the words.
"""

from typing import Literal

from services.followups.reading.speech import heard, says
from services.followups.reading.text import beginnings, has_any, vocabulary

Barred = Literal["child", "another"]
"""Why consent is not asked for: the writer is a child, or the mailbox is another person's."""

_MAY_BE = vocabulary(
    "mail mejl emai adre skrz pocz inbo addr post пошт мейл скри імей pis pisa pisz wysl wysy slij kont jest chod ucze "
    "mama tata tato rodz lat late am bin мені мне cudz send writ"
)
"""How a word of each begins: without one a message costs no more than this look."""


def barred(message: str) -> Barred | None:
    if not has_any(message, ("@", "'m", "’m")) and _MAY_BE.isdisjoint(beginnings(message)):
        return None
    said = heard(message.replace("Wnuk", "•"), "mailbox")  # a family's name
    ends = {each.end for each in said.of("child") if each.value == "last"}
    for end in ends:
        after = said.text[said.tokens[end - 1].end :].lstrip()[:1]
        if not after or after in ".,!?;":
            return "child"
    if said.is_said("child yes"):
        return "child"
    is_theirs = said.is_said("another has") and said.is_said("another address")
    is_theirs = is_theirs or said.is_said("another yes") or said.is_said("another box")
    return "another" if is_theirs else None


def is_own(message: str) -> bool:
    """Whether whoever writes calls an address their own."""
    return not _MAY_BE.isdisjoint(beginnings(message)) and says(message, "own yes", "mailbox")
