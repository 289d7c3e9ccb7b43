"""Texts of a case's messages, in the staff's language, without the lead's contacts. Pure.

case_texts.toml has them all.
"""

import unicodedata
from collections.abc import Mapping
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from libs.common import beside
from libs.domain.hours import Hours
from services.alerts.channels.sms import SMS_LETTERS
from services.alerts.rules.case import Cancelled, Choice, Refused, State, Verb

_TEXTS: dict[str, dict[str, dict[str, str]]] = beside.toml(__file__, "case_texts.toml")


def line(row: Any, hours: Hours, *, reminds: bool = False) -> str:
    """Describe a case's state in one line that names no data subject.

    :param row: with `now`
    :param hours: of the case
    :param reminds: also ask its owner for an outcome
    """
    payload, language = row.payload or {}, language_of(row)
    lines = texts("lines", language)
    if row.reason == Cancelled.ERASED:
        return lines["erased"]
    name = payload.get("heartbeat")
    title = f"{row.event_type} ({name})" if name else row.event_type
    if (score := payload.get("score")) is not None:
        topic = _short(payload, "topic")  # of a request that is no order
        title = topic or lines["returning" if payload.get("previous") else "lead"]
        if about := ", ".join(filter(None, (_short(payload, part) for part in ("work", "city")))):
            title = f"{title}: {about}"
        elif topic is None:
            title = lines["scored"].format(title=title, score=score)
    anew = row.state == State.OPEN and row.generation and not row.step
    until = row.next_at if anew and row.next_at > row.now else None
    closed = row.outcome is not None
    state = "reminds" if reminds else "later" if until else "closed" if closed else row.state
    waited = hours.between(row.opened_at, row.now)
    return lines[state].format(
        until=_clock(until, row.now, hours.zone),
        title=title,
        owner=row.owner_name,
        minutes=int(waited.total_seconds() // 60),
        outcome=texts("outcomes", language).get(row.outcome or ""),
        since=_clock(row.answered_at, row.now, hours.zone),
        opened=_clock(row.opened_at, row.now, hours.zone),
    )


def _short(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    return value[:60] if isinstance(value, str) and value.isprintable() else None


def _clock(at: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """Return the time of day, after the date if that is another day."""
    if at is None:
        return ""
    local = at.astimezone(zone)
    today = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M}" if today else f"{local:%d.%m. %H:%M}"


def answer_at(row: Any, url: str) -> str:
    """Say where its person answers."""
    name = "close_at" if row.state == State.ANSWERED else "at"
    return texts("lines", language_of(row))[name].format(url=url)


def how_to(row: Any, *, reminds: bool) -> str | None:
    """Say what to type, where there is no link."""
    if not reminds and row.state not in {State.OPEN, State.UNANSWERED}:
        return None
    how = "close" if reminds else "take"
    return texts("lines", language_of(row))[how].format(id=row.alert_id)


def language_of(row: Any) -> str:
    return "pl" if (row.payload or {}).get("staff_language") == "pl" else "en"


def texts(section: str, language: str | None) -> dict[str, str]:
    """Return a section of case_texts.toml in a language of the staff."""
    return _TEXTS[section]["pl" if language == "pl" else "en"]


def label(verb: Verb, language: str | None) -> str:
    """Return the text of a button."""
    return texts("buttons", language)[verb]


def item(choice: Choice, opens: time | None, language: str | None) -> str:
    """Return the text of a menu's item.

    :param opens: when the case's hours begin
    """
    return texts("choices", language)[choice].format(opens=opens and f"{opens:%H:%M}")


def refusal(why: Refused, owner: str | None, language: str | None) -> str:
    """Say to whoever answered why it had no effect."""
    found = texts("refusals", language)
    return found.get(why, found["stale"]).format(owner=owner)


def without_diacritics(text: str) -> str:
    """Return the text in GSM letters; others would double the length of an SMS."""
    text = text[:SMS_LETTERS]  # normalising sorts its marks by insertion
    plain = unicodedata.normalize("NFKD", text.replace("ł", "l").replace("Ł", "L"))
    return "".join(char for char in plain if not unicodedata.combining(char))
