"""Texts of a case's messages, in the staff's language, without the lead's contacts. Pure.

case_texts.toml has them all.
"""

import tomllib
import unicodedata
from dataclasses import dataclass
from datetime import datetime, time
from importlib.resources import files
from zoneinfo import ZoneInfo

from services.alerts.channels.sms import SMS_LETTERS
from services.alerts.rules.case import Cancelled, Choice, Refused, State, Verb

_TEXTS: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
    files(__package__).joinpath("case_texts.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The parts of a case that its messages show."""

    id: str
    event_type: str
    language: str | None
    score: object | None
    state: State
    reason: str | None
    outcome: str | None
    owner: str | None  # name
    opened_at: datetime
    answered_at: datetime | None
    until: datetime | None  # when its chain starts again
    now: datetime
    minutes: int  # of business time since it was opened
    returns: bool = False  # it is another request of the same person
    topic: str | None = None  # of a request that is no order
    about: str = ""  # the job and the town

    def line(self, zone: ZoneInfo, *, reminds: bool = False) -> str:
        """Describe the case's state in one line that names no data subject.

        :param reminds: also ask its owner for an outcome
        """
        lines = texts("lines", self.language)
        if self.reason == Cancelled.ERASED:
            return lines["erased"]
        title = self.event_type
        if self.score is not None:
            title = self.topic or lines["returning" if self.returns else "lead"]
            if self.about:
                title = f"{title}: {self.about}"
            elif self.topic is None:
                title = lines["scored"].format(title=title, score=self.score)
        put_off = self.until is not None and self.until > self.now
        closed = self.outcome is not None
        state = "reminds" if reminds else "later" if put_off else "closed" if closed else self.state
        return lines[state].format(
            until=self._clock(self.until, zone),
            title=title,
            owner=self.owner,
            minutes=self.minutes,
            outcome=texts("outcomes", self.language).get(self.outcome or ""),
            since=self._clock(self.answered_at, zone),
            opened=self._clock(self.opened_at, zone),
        )

    def at(self, url: str) -> str:
        """Say where its person answers."""
        name = "close_at" if self.state is State.ANSWERED else "at"
        return texts("lines", self.language)[name].format(url=url)

    def how_to_take(self) -> str | None:
        """Say what to type, where there is no link."""
        if self.state in {State.OPEN, State.UNANSWERED}:
            return texts("lines", self.language)["take"].format(id=self.id)
        return None

    def how_to_close(self) -> str:
        return texts("lines", self.language)["close"].format(id=self.id)

    def _clock(self, at: datetime | None, zone: ZoneInfo) -> str:
        """Return the time of day, after the date if that is another day."""
        if at is None:
            return ""
        local = at.astimezone(zone)
        today = local.date() == self.now.astimezone(zone).date()
        return f"{local:%H:%M}" if today else f"{local:%d.%m. %H:%M}"


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
