"""Reads a message: facts, language, and its answer to the consent question.

Each reader removes its match from the text, so that the next one cannot read `80 m2` as money or a
budget as a phone number. Readers do not guess: what is unclear stays unknown and is asked.
"""

from datetime import date
from typing import NamedTuple

from services.followups.reading import (
    addresses,
    area,
    consent_answer,
    ids,
    money,
    name,
    phone,
    place,
    small_talk,
    starts,
)
from services.followups.reading import language as languages
from services.followups.reading.consent_answer import Answer, Barred
from services.followups.reading.speech import says
from services.followups.reading.text import MARK, Reader, spaces
from services.followups.rules.facts import WISH_LENGTH, Facts, Question

READERS: tuple[Reader, ...] = (phone.find, area.find, money.find, starts.find, name.find)


SIGNS = {"either", "has_hours", "past_start", "phone_piece", "phones"}
"""What readers return beside facts."""


class Understood(NamedTuple):
    facts: Facts
    either: tuple[Facts, ...]
    """Two values of a fact, of which no word says which is meant."""
    rest: str
    """The message without the facts."""
    has_ids: bool
    """It has a street, a second phone or the like, which only staff can read."""
    language: str
    past_start: bool
    """It names a start that has passed, and no other."""
    has_hours: bool
    """It says beside a phone number when to call."""
    phone_piece: str | None
    """The digits of a part of a phone number."""
    answer: Answer | None
    """Its meaning for consent."""
    wants_reply_only: bool
    """It wants an answer and no other mails: `a@b.pl, bez reklam`."""
    barred: Barred | None
    """Why the writer cannot consent to mails to the address."""
    calls_email_own: bool


def understand(
    message: str,
    *,
    today: date,
    language: str = "pl",
    begun: bool = False,
    asked: Question | None = None,
    agreed: bool = False,
    works: tuple[str, ...] = (),
) -> Understood:
    """Read a message.

    :param language: language of the conversation so far, if it has `begun`
    :param asked: the question that this message may answer with a bare word or number
    :param agreed: consent was given, and nothing has been asked since
    :param works: lower-case stems of words for our works (`remont`, `kitchen`)
    """
    named, found = addresses.find(spaces(message))  # first: `pl.` in `wp.pl. Ania` is not a square
    said = ids.without(named, asked)
    spoken = languages.of(message, language, begun=begun)
    text = phone.with_country(said, spoken)
    for reader in READERS:
        text, news = reader(text, today, asked)
        found |= news
    signs = {name: found.pop(name) for name in SIGNS & found.keys()}
    towns = place.find_all(said)
    if len(towns) == 1:
        found["city"] = towns[0]
    unread = phone.UNREAD.search(text) if asked == "contact" else None
    rest = spaces(text.replace(MARK, " ")).strip(" ,;")
    answer = consent_answer.answer(message, language, asked, agreed=agreed)
    wants_reply_only = consent_answer.wants_reply_only(said, asked, gives_email="email" in found)
    answer = "no" if wants_reply_only else answer
    tells = answer is None or wants_reply_only or not found.keys().isdisjoint({"area", "budget"})
    if tells and answer != "yes" and small_talk.is_wish(message, rest, asked, works):
        found["wish"] = small_talk.wish(spaces(message), works)[:WISH_LENGTH]
    return Understood(
        facts=Facts(**found),
        either=signs.get("either", ()),
        rest=rest,
        has_ids=signs.get("phones", 1) > 1 or named != said,
        language=spoken,
        past_start="past_start" in signs,
        has_hours="has_hours" in signs,
        phone_piece=signs.get("phone_piece", unread and unread[0]),
        answer=answer,
        wants_reply_only=wants_reply_only,
        barred=consent_answer.barred(message),
        calls_email_own=says(message, "own yes"),
    )
