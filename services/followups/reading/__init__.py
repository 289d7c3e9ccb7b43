"""Reads a message: facts, language, and its answer to the consent question.

Each reader removes its match from the text, so that the next one cannot read `80 m2` as money or a
budget as a phone number. Readers do not guess: what is unclear stays unknown and is asked.

A reader looks for one of its words before it searches, as most messages have none: a new word in its
pattern needs its beginning there. tests/unit/followups/test_first_look.py holds them together.
"""

from datetime import date
from typing import Any, NamedTuple

from services.followups.reading import (
    addresses,
    area,
    consent_answer,
    ids,
    mailbox,
    money,
    name,
    phone,
    place,
    starts,
    wish,
)
from services.followups.reading import language as languages
from services.followups.reading.consent_answer import Answer
from services.followups.reading.mailbox import Barred
from services.followups.reading.text import MARK, Reader, spaces
from services.followups.rules.facts import WISH_LENGTH, Facts, Question

READERS: tuple[Reader, ...] = (phone.find, area.find, money.find, starts.find, name.find)


class Understood(NamedTuple):
    facts: Facts
    rest: str
    """The message without the facts."""
    has_ids: bool
    """It has a street, a second phone or the like, which only staff can read."""
    language: str
    district: tuple[str, str] | None
    """A district that it names, and the city that it probably is in."""
    past_start: bool
    """It names a start that has passed, and no other."""
    in_several: bool
    """It gives areas in several places, which only staff can read."""
    has_hours: bool
    """It says beside a phone number when to call."""
    phone_piece: str | None
    """The digits of a part of a phone number."""
    budget_from: int | None
    """The lower end of its budget."""
    is_each: bool
    """Its budget is that of each of several flats: `po 45 tys na mieszkanie`."""
    answer: Answer | None
    """Its meaning for consent."""
    wants_reply_only: bool
    """It wants an answer and no other mails: `a@b.pl, bez reklam`."""
    barred: Barred | None
    """Why the writer cannot consent to mails to the address."""
    calls_email_own: bool
    disowns_email: bool
    """It says that the earlier address is wrong, and gives no other."""


def understand(
    message: str,
    *,
    today: date,
    language: str = "pl",
    begun: bool = False,
    asked: Question | None = None,
    email_just_given: bool = False,
    agreed: bool = False,
    works: tuple[str, ...] = (),
) -> Understood:
    """Read a message.

    :param language: language of the conversation so far, if it has `begun`
    :param asked: the question that this message may answer with a bare word or number
    :param agreed: consent was given, and nothing has been asked since
    :param email_just_given: the previous message gave the address
    :param works: lower-case stems of words for our works (`remont`, `kitchen`)
    """
    text, said, found, has_ids, district = _read(message, today, asked)
    in_several = found.pop("in_several", False)
    has_hours, past_start = found.pop("has_hours", False), found.pop("past_start", False)
    unread = phone.UNREAD.search(text) if asked == "contact" else None
    phone_piece = found.pop("phone_piece", unread and unread[0])
    has_ids = found.pop("phones", 1) > 1 or has_ids
    budget_from, is_each = found.pop("budget_from", None), found.pop("is_each", False)
    rest = spaces(text.replace(MARK, " ")).strip(" ,;")
    answer = consent_answer.answer(message, language, asked, agreed=agreed)
    gives_email = "email" in found
    wants_reply_only = (gives_email or asked != "consent") and consent_answer.wants_reply_only(
        said, gives_email=gives_email
    )
    if wants_reply_only:
        answer = "no"
    tells = answer is None or wants_reply_only or not found.keys().isdisjoint({"area", "budget"})
    if tells and answer != "yes" and wish.is_wish(rest, asked, works):
        found["wish"] = wish.words(spaces(message), works)[:WISH_LENGTH]
    spoken = languages.of(message, language, begun=begun)
    return Understood(
        facts=Facts(**found),
        rest=rest,
        has_ids=has_ids,
        language=spoken,
        district=district,
        past_start=past_start,
        in_several=in_several,
        has_hours=has_hours,
        phone_piece=phone_piece,
        budget_from=budget_from,
        is_each=is_each,
        answer=answer,
        wants_reply_only=wants_reply_only,
        barred=mailbox.barred(message),
        calls_email_own=mailbox.is_own(message),
        disowns_email="email" not in found
        and addresses.disowned(message, just_given=email_just_given),
    )


def _read(
    message: str, today: date, asked: Question | None
) -> tuple[str, str, dict[str, Any], bool, tuple[str, str] | None]:
    """Return a message without its facts, and without addresses and ids; its facts, whether it has
    ids, and a district.
    """
    text, found = addresses.find(spaces(message))  # first: `pl.` in `wp.pl. Ania` is not a square
    named = text
    text = said = ids.without(text, asked)
    for reader in READERS:
        text, news = reader(text, today, asked)
        found |= news
    towns = place.find_all(said)
    if len(towns) == 1:
        found["city"] = towns[0]
    district = place.district(said)
    is_contact = not found.keys().isdisjoint({"phone", "email"})
    if district and not is_contact and found.get("name") == district[0]:
        del found["name"]  # `38 m2, Kazimierz`
    if found.pop("areas", 1) > 1 and len(towns) > 1:  # staff read which flat is where
        found = {name: each for name, each in found.items() if name not in {"area", "city"}}
        found["in_several"] = True
    return text, said, found, named != said, None if towns else district
