"""The scripted intake dialogue: what a turn adds to what is known, and the one thing to ask next.

Texts come from followups.toml. Consent counts only as an answer to the configured wording that
was shown, and only when it is a clear yes; anything else is asked again once and then left alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from services.followups.facts import Facts, Question, read

TIMES_ASKED = 2

TEXTS = frozenset({
    "greeting", "noted", "question", "ask_wish", "ask_area", "ask_budget", "ask_start",
    "ask_contact", "ask_consent", "consent_wording", "consent_given", "consent_refused",
    "closing",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """What a conversation remembers between turns."""

    facts: Facts = field(default_factory=Facts)
    language: str | None = None
    asking: Question | None = None
    asked: Mapping[str, int] = field(default_factory=dict)
    consent: Literal["given", "refused"] | None = None
    wording: str | None = None
    """What the person was shown, or had agreed to elsewhere (a checkbox of the web site)."""
    granted_to: str | None = None
    """The address whose grant was recorded; the same address is never granted twice here: a page
    that repeats its checkbox with each message must not undo a later withdrawal."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "State":
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        return cls(**{**known, "facts": Facts.of(stored.get("facts", {}))})

    def stored(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "facts": self.facts.known(), "asked": dict(self.asked)}


@dataclass(frozen=True, slots=True)
class Turn:
    state: State
    reply: str


def turn(
    state: State,
    message: str,
    *,
    texts: Mapping[str, Mapping[str, str]],
    default_language: str,
    today: date,
    language: str | None = None,
    passed: Facts | None = None,
    agreed: str | None = None,
    works: tuple[str, ...] = (),
) -> Turn:
    """Answer one message.

    :param passed: facts that the web site sent in fields of their own; they win over the text
    :param agreed: wording of a consent given on the web site with this message
    """
    first = state.language is None
    language = language or _language(message, state.language or default_language)
    script = texts[language]
    written, rest = read(message, today=today, asked=state.asking, works=works)
    news = written.learn(passed) if passed else written
    known = replace(state, language=language, facts=state.facts.learn(news))
    parts = [script["greeting"]] if first else []

    if agreed is not None:
        known = replace(known, consent="given", wording=agreed)
    elif state.asking == "consent":
        known, answer = _consent_answer(known, rest, script)
        parts += answer
    if said := _describe(news, language):
        parts.append(script["noted"].format(facts=said))
    elif rest.endswith("?"):
        parts.append(script["question"])

    question = _next_question(known)
    known = replace(known, asking=question)
    if question is None:
        parts.append(script["closing"])
    else:
        known = replace(known, asked={**known.asked, question: known.asked.get(question, 0) + 1})
        parts.append(script[f"ask_{question}"])
        if question == "consent":
            known = replace(known, wording=script["consent_wording"])
            parts.append(script["consent_wording"])
    return Turn(known, " ".join(parts))


def _next_question(state: State) -> Question | None:
    facts = state.facts
    missing: dict[Question, bool] = {
        "wish": facts.wish is None,
        "area": facts.area is None,
        "budget": facts.budget is None,
        "start": facts.start is None,
        "contact": facts.email is None and facts.phone is None,
        "consent": facts.email is not None and state.consent is None,
    }
    return next(
        (
            question
            for question, is_missing in missing.items()
            if is_missing and state.asked.get(question, 0) < TIMES_ASKED
        ),
        None,
    )


def _vocabulary(words: str) -> frozenset[str]:
    return frozenset(words.split())


# --- consent ----------------------------------------------------------------------------------

# A closed vocabulary: one foreign word ("tak naprawdę…", "yes, but…") and it is no clear answer.
_YES = _vocabulary(
    "tak zgoda zgadzam wyrażam oczywiście jasne pewnie najbardziej chętnie "
    "yes yep yeah agree consent sure course absolutely definitely"
)
_YES_FILLER = _vocabulary(
    "się sie zgodę zgode na to proszę prosze poproszę bardzo jak dziękuję dziekuje dzięki ok okej "
    "dobrze kontakt otrzymywanie wiadomości maile informacji i "
    "of do please thanks thank you okay it that fine by me with emails messages"
)
_NO = {
    "pl": frozenset({"nie", "odmawiam"}),
    "en": frozenset({"no", "nope", "never", "not", "don't"}),
}
"""By language: a Polish `no` means `well, yes`."""
_NO_FILLER = _vocabulary(
    "dziękuję dziekuje dzięki dzieki zgadzam się sie wyrażam zgody chcę chce wiadomości maili "
    "e mail żadnych proszę na to thanks thank you i do agree want emails consent please any of "
    "course"
)


def is_clear_yes(text: str) -> bool:
    words = _words(text)
    return "?" not in text and bool(words & _YES) and words <= _YES | _YES_FILLER


def is_clear_no(text: str, language: str) -> bool:
    words, no = _words(text), _NO[language]
    return "?" not in text and bool(words & no) and words <= no | _NO_FILLER


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower().replace("’", "'")))


def _consent_answer(state: State, rest: str, script: Mapping[str, str]) -> tuple[State, list[str]]:
    if is_clear_yes(rest):
        return replace(state, consent="given"), [script["consent_given"]]
    if is_clear_no(rest, state.language or "pl"):
        return replace(state, consent="refused"), [script["consent_refused"]]
    return state, []


# --- language ---------------------------------------------------------------------------------

_POLISH_LETTERS = re.compile("[ąćęłńóśźż]", re.IGNORECASE)
_POLISH_WORDS = _vocabulary(
    "i w na z do jest się sie dzień dzien dobry witam cześć czesc mam chcę chce chcialbym "
    "proszę prosze tak nie od budżet budzet mieszkanie dom kuchnia łazienka remont około okolo zł "
    "tys mkw dla że ze pozdrawiam"
)
_ENGLISH_WORDS = _vocabulary(
    "the and is are hello hi my we want would like please yes of in for with have budget kitchen "
    "flat apartment house bathroom renovate about need looking thanks around you it at this "
    "an"
)


def _language(message: str, current: str) -> str:
    """Follow a clear change of language; a bare number or address changes nothing."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"\S+@\S+", " ", message.lower()))
    polish = sum(word in _POLISH_WORDS for word in words)
    polish += 2 * len(_POLISH_LETTERS.findall(message))
    english = sum(word in _ENGLISH_WORDS for word in words)
    if polish == english:
        return current
    return "pl" if polish > english else "en"


# --- words for people -------------------------------------------------------------------------


def describe_area(area: float, language: str) -> str:
    text = f"{area:g}"
    return f"{text.replace('.', ',') if language == 'pl' else text} m²"


def describe_budget(budget: int, currency: str | None, language: str) -> str:
    space = "\N{NO-BREAK SPACE}"
    grouped = f"{budget:,}".replace(",", space if language == "pl" else ",")
    unit = "zł" if language == "pl" and currency in {None, "PLN"} else currency or "PLN"
    return f"{grouped}{space}{unit}"


def describe_start(start: str, language: str) -> str:
    if start == "asap":
        return "jak najszybciej" if language == "pl" else "as soon as possible"
    return ".".join(reversed(start.split("-"))) if language == "pl" else start


def _describe(facts: Facts, language: str) -> str:
    """Say back what was understood, so that the person can put it right."""
    parts = [
        facts.name,
        facts.area and describe_area(facts.area, language),
        facts.budget and describe_budget(facts.budget, facts.currency, language),
        facts.start and describe_start(facts.start, language),
        facts.email,
        facts.phone,
    ]
    return ", ".join(part for part in parts if part)


def summary(facts: Facts, language: str) -> str:
    """Return one line for the sales people."""
    parts = [
        facts.wish,
        facts.area and describe_area(facts.area, language),
        facts.budget and describe_budget(facts.budget, facts.currency, language),
        facts.start and f"start: {describe_start(facts.start, language)}",
    ]
    return " · ".join(part for part in parts if part)
