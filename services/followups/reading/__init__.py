"""Reads a message: facts, language, and its answer to the consent question.

Each reader removes its match from the text, so that the next one cannot read `80 m2` as money or a
budget as a phone number. Readers do not guess: what is unclear stays unknown and is asked.
"""

from datetime import date
from typing import Any, NamedTuple

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
SIGNS = {"either", "has_hours", "past_start", "phone_piece"}
"""What readers return beside facts."""


class Understood(NamedTuple):
    facts: Facts
    rest: str
    """The message without the facts."""
    has_ids: bool
    """It has a street, a second phone or the like, which only staff can read."""
    language: str
    answer: Answer | None
    """Its meaning for consent."""
    wants_reply_only: bool
    """It wants an answer and no other mails: `a@b.pl, bez reklam`."""
    barred: Barred | None
    """Why the writer cannot consent to mails to the address."""
    calls_email_own: bool
    either: tuple[Facts, ...] = ()
    """Two values of a fact, of which no word says which is meant."""
    past_start: bool = False
    """It names a start that has passed, and no other."""
    has_hours: bool = False
    """It says beside a phone number when to call."""
    phone_piece: str | None = None
    """The digits of a part of a phone number."""


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
    rest, found = _read(said, found, spoken, today, asked)
    limits = consent_answer.wants_reply_only(said, asked, gives_email="email" in found)
    answer = "no" if limits else consent_answer.answer(message, language, asked, agreed=agreed)
    tells = answer is None or limits or not found.keys().isdisjoint({"area", "budget"})
    if tells and answer != "yes" and small_talk.is_wish(message, rest, asked, works):
        found["wish"] = small_talk.wish(spaces(message), works)[:WISH_LENGTH]
    has_phones = found.pop("phones", 1) > 1
    signs = {name: found.pop(name) for name in SIGNS & found.keys()}
    return Understood(
        facts=Facts(**found),
        rest=rest,
        has_ids=has_phones or named != said,
        language=spoken,
        answer=answer,
        wants_reply_only=limits,
        barred=consent_answer.barred(message),
        calls_email_own=says(message, "own yes"),
        **signs,
    )


def _read(
    said: str, found: dict[str, Any], language: str, today: date, asked: Question | None
) -> tuple[str, dict[str, Any]]:
    """Return the text without its facts, and `found` with its facts and the readers' signs."""
    text, found = phone.with_country(said, language), {**found}
    for reader in READERS:
        text, news = reader(text, today, asked)
        found |= news
    towns = place.find_all(said)
    if len(towns) == 1:
        found["city"] = towns[0]
    if asked == "contact" and (unread := phone.UNREAD.search(text)):
        found.setdefault("phone_piece", unread[0])
    return spaces(text.replace(MARK, " ")).strip(" ,;"), found
