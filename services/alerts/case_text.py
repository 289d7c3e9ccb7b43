"""Texts of a case's messages, in the staff's language, without the lead's contacts. Pure."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from services.alerts.case import Cancelled, Refused, State, Verb

_WORDS = {
    "en": {
        "lead": "Lead, score {score}",
        "open": "{title}: has waited {minutes} min for an answer",
        "later": "{title}: put off until {until}",
        "answered": "{title}: taken by {owner}, {since}",
        "reminds": "{title}: {owner} has had it since {since}. How did it end?",
        "unanswered": "{title}: no one has answered since {opened}",
        "cancelled": "{title}: over, no answer is needed",
        "erased": "A request was withdrawn, no answer is needed",
        "at": "Take it: {url}",
        "close_at": "Answer: {url}",
        "take": "Take it: ostoja take {id} --as YOUR_NAME",
        "close": "Close it: ostoja close {id} OUTCOME --as YOUR_NAME",
    },
    "pl": {
        "lead": "Lead, {score} pkt",
        "open": "{title}: czeka na odpowiedź {minutes} min",
        "later": "{title}: odłożone do {until}",
        "answered": "{title}: ma {owner} od {since}",
        "reminds": "{title}: {owner} ma to od {since}. Jak się skończyło?",
        "unanswered": "{title}: nikt nie odpowiedział od {opened}",
        "cancelled": "{title}: nieaktualne, odpowiedź nie jest potrzebna",
        "erased": "Zgłoszenie wycofano, odpowiedź nie jest potrzebna",
        "at": "Odbierz: {url}",
        "close_at": "Odpowiedz: {url}",
        "take": "Odbierz: ostoja take {id} --as IMIĘ",
        "close": "Zamknij: ostoja close {id} WYNIK --as IMIĘ",
    },
}
_LABELS = {
    "en": {
        Verb.TAKEN: "Take it",
        Verb.LATER: "Ask again in an hour",
        Verb.NOT_A_LEAD: "Not a lead",
        Verb.WON: "Won",
        Verb.LOST: "Lost",
        Verb.RELEASE: "Give it back",
    },
    "pl": {
        Verb.TAKEN: "Biorę",
        Verb.LATER: "Zapytaj za godzinę",
        Verb.NOT_A_LEAD: "To nie lead",
        Verb.WON: "Wygrany",
        Verb.LOST: "Przegrany",
        Verb.RELEASE: "Oddaję",
    },
}
_REFUSALS = {
    "en": {
        Refused.ANSWERED: "{owner} has it.",
        Refused.STALE: "Something has changed. Please look at it again.",
        Refused.TOO_LATE: "It cannot be put off any more: take it or leave it.",
        Refused.ENDED: "This is over, no answer is needed.",
    },
    "pl": {
        Refused.ANSWERED: "Ma to {owner}.",
        Refused.STALE: "Coś się zmieniło. Proszę spojrzeć jeszcze raz.",
        Refused.TOO_LATE: "Nie można już odłożyć: proszę wziąć albo zostawić.",
        Refused.ENDED: "To już nieaktualne, odpowiedź nie jest potrzebna.",
    },
}


@dataclass(frozen=True, slots=True)
class Shown:
    """The parts of a case that its messages show."""

    id: str
    event_type: str
    language: str | None
    score: object | None
    state: State
    reason: str | None
    owner: str | None  # name
    opened_at: datetime
    answered_at: datetime | None
    until: datetime | None  # when its chain begins anew
    now: datetime
    minutes: int  # of business time since it was opened

    def line(self, zone: ZoneInfo, *, reminds: bool = False) -> str:
        """Describe the case's state in one line that names no data subject.

        :param reminds: and ask its owner for an outcome
        """
        words = self._words
        if self.reason == Cancelled.ERASED:
            return words["erased"]
        title = self.event_type
        if self.score is not None:
            title = words["lead"].format(score=self.score)
        put_off = self.until is not None and self.until > self.now
        state = "reminds" if reminds else "later" if put_off else self.state
        return words[state].format(
            until=_clock(self.until, zone),
            title=title,
            owner=self.owner,
            minutes=self.minutes,
            since=_clock(self.answered_at, zone),
            opened=_clock(self.opened_at, zone),
        )

    def at(self, url: str) -> str:
        """Say where its person answers."""
        answered = self.state is State.ANSWERED
        return self._words["close_at" if answered else "at"].format(url=url)

    def how_to_take(self) -> str | None:
        if self.state in {State.OPEN, State.UNANSWERED}:
            return self._words["take"].format(id=self.id)
        return None

    def how_to_close(self) -> str:
        return self._words["close"].format(id=self.id)

    @property
    def _words(self) -> dict[str, str]:
        return _WORDS[_known(self.language)]


def label(verb: Verb, language: str | None) -> str:
    """Return the text of a button."""
    return _LABELS[_known(language)][verb]


def refusal(why: Refused, owner: str | None, language: str | None) -> str:
    """Say to whoever answered why it had no effect."""
    texts = _REFUSALS[_known(language)]
    return texts.get(why, texts[Refused.STALE]).format(owner=owner)


def _known(language: str | None) -> str:
    return "pl" if language == "pl" else "en"


def _clock(at: datetime | None, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%H:%M}" if at else ""


def without_diacritics(text: str) -> str:
    """Return the text in GSM letters; others would double the length of an SMS."""
    plain = unicodedata.normalize("NFKD", text.replace("ł", "l").replace("Ł", "L"))
    return "".join(char for char in plain if not unicodedata.combining(char))
