"""Taps: what the last reply asks, what may be chosen instead of typing, and what a choice means.

A choice carries a value of the configuration: nothing of it is read as prose.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from services.followups.dialogue.state import State
from services.followups.dialogue.texts import Script
from services.followups.reading.consent_answer import Answer
from services.followups.reading.routing import Route, Routes
from services.followups.rules.fact_texts import describe, describe_start
from services.followups.rules.facts import MAX_AREA, MAX_BUDGET, MIN_AREA, NO_FACTS, Facts, Question

Kind = Literal["choice", "number", "month", "phone", "email", "consent"]
Value = tuple[Literal["number", "month", "phone", "email"], float | str]
"""A typed value in its normal form: a number, an ISO month or date, E.164, or an address."""

CARD, SKIP = "card", "skip"
OPENING = "opening"
"""The ask before the first message."""
_KINDS: Mapping[str, Kind] = {
    "area": "number",
    "budget": "number",
    "start": "month",
    "contact": "phone",
    "email": "email",
    "consent": "consent",
}
_CONTACTS = {"contact", "email"}
_MONTHS, _YEARS = 12, 10
"""The months that are offered, and the years within which a start must be."""
_MIN_BUDGET = 1000
"""Below it, thousands are meant: 60. As a message it is read so."""
_ON_CARD = ("wish", "city", "area", "budget", "start", "name", "email", "phone")


class Unfit(ValueError):  # noqa: N818 - reads as the answer it is
    """A tap that the ask does not offer; its field is named."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class Tap(NamedTuple):
    ask: str
    choice: str | None = None
    value: Value | None = None
    wording: str | None = None
    """The SHA-256 of the wording of consent that was shown."""


class Tapped(NamedTuple):
    """What a tap means."""

    text: str
    """What stands on it: what the visitor said."""
    facts: Facts = NO_FACTS
    least: int | None = None
    """The lower end of a band."""
    answer: Answer | None = None
    route: Route | None = None
    skips: tuple[Question, ...] = ()
    forgets: str | None = None
    """The fact to forget, or to replace by another value."""
    asks: str | None = None
    """The fact that it asks for again."""


@dataclass(frozen=True, slots=True)
class Taps:
    """What is configured to be tapped. `tap_<name>` of the texts stands on it."""

    texts: Mapping[str, Script]
    handover: Mapping[str, Script]
    default_language: str
    routes: Routes
    opening: Mapping[str, str]
    """The route that each chip starts; empty: the form."""
    wish: Sequence[str]
    area: Sequence[int]
    """The bounds of the bands."""
    budget: Sequence[int]

    def ask(self, state: State, today: date) -> dict[str, Any] | None:
        """Return what the last reply asks, as clients get it; None: nothing that can be tapped."""
        name = _name(state)
        if name is None:
            return None
        language, script = self._script(state)
        found = {
            "id": _id(state),
            "kind": _KINDS.get(name, "choice"),
            "label": self._label(name, state, script),
            "choices": [
                {"id": id_, "label": tapped.text}
                for id_, tapped in self._choices(name, state, today).items()
            ],
            "skippable": _is_skippable(name, state),
        }
        if name == "consent":
            wording = str(state.wording)
            found["wording"] = {"text": wording, "language": language, "sha256": _hash(wording)}
        return found

    def card(self, state: State) -> list[dict[str, Any]]:
        """Return the facts that are noted."""
        language, script = self._script(state)
        known = self._on_card(state)
        return [
            {
                "name": name,
                "label": script[f"fact_{name}"],
                "value": known[name],
                "text": _text(state, name, language),
                "sure": name not in state.unsure and not str(known[name]).endswith("?)"),
            }
            for name in known
        ]

    def again(self, state: State) -> str:
        """Return today's question, for a tap that is too old."""
        name = _name(state)
        _, script = self._script(state)
        text = self._label(name, state, script) if name else script["thanks"]
        return f"{text} {state.wording}" if name == "consent" else text

    def read(self, tap: Tap, state: State, today: date) -> Tapped | None:
        """Return what a tap means; None: its ask is not the last one, or its wording is another.

        :raises Unfit: the ask does not offer this
        """
        language, script = self._script(state)
        if tap.ask.startswith("consent-") and tap.choice == "no":  # however old it is
            return Tapped(script["tap_no"], answer="no")
        if tap.ask == CARD:
            if tap.choice not in self._on_card(state):
                raise Unfit("tap.choice", "the card does not have it")
            label = script[f"fact_{tap.choice}"]
            return Tapped(f"{script['tap_change']}: {label}", asks=tap.choice)
        name = _name(state)
        if name is None or tap.ask != _id(state):
            return None
        if tap.value is not None:
            facts = _valued(name, tap.value, today)
            return Tapped(describe(facts, language), facts)
        if tap.choice == SKIP and _is_skippable(name, state):
            skips = {"wish", "area", "budget", "start", "consent"} & {name}
            return Tapped(script["tap_skip"], skips=tuple(skips))  # type: ignore[arg-type]
        found = self._choices(name, state, today).get(str(tap.choice))
        if found is None:
            raise Unfit("tap.choice", "is not offered")
        return None if name == "consent" and tap.wording != _hash(str(state.wording)) else found

    def _on_card(self, state: State) -> dict[str, Any]:
        """Without a form nothing but a contact can be asked for again."""
        names = ("email", "phone") if state.spoken in self.handover else _ON_CARD
        known = state.facts.known()
        return {name: known[name] for name in names if name in known}

    def script(self, language: str, spoken: str | None) -> Script:
        return {**self.texts[language], **self.handover.get(spoken or "", {})}

    def _script(self, state: State) -> tuple[str, Script]:
        language, spoken = state.language or self.default_language, state.spoken
        own = spoken if spoken is not None and spoken in self.handover else language
        return own, self.script(language, spoken)

    def _label(self, name: str, state: State, script: Script) -> str:
        if name == "doubt":
            return script["email_doubt"].format(address=state.doubt)
        if name == "route":
            route = self.routes.named(state.offered)
            return route.answer[state.language or self.default_language] if route else ""
        if name == "city":
            return str(state.facts.city)
        own = {OPENING: "greeting", "contact": "change_phone", "email": "change_email"}
        return script[own.get(name, f"ask_{name}")]

    def _choices(self, name: str, state: State, today: date) -> Mapping[str, Tapped]:
        language, script = self._script(state)
        if name in {"consent", "doubt", "route", "city"}:
            yes, no = Tapped(script["tap_yes"]), Tapped(script["tap_no"])
            if name == "consent":
                yes, no = yes._replace(answer="yes"), no._replace(answer="no")
            elif name == "doubt":
                yes = yes._replace(facts=Facts(email=state.doubt))
            elif name == "city":
                yes = yes._replace(facts=Facts(city=state.city_asked))
            else:
                offer = self.routes.named(state.offered)
                yes = yes._replace(route=offer and self.routes.named(offer.offers))
                no = Tapped(script["tap_new"])
            return {"yes": yes, "no": no}
        if name == OPENING:
            return {
                id_: Tapped(script[f"tap_{id_}"], route=self.routes.named(route))
                for id_, route in self.opening.items()
            }
        if name == "wish":
            labels = {id_: script[f"tap_{id_}"] for id_ in self.wish}
            return {
                id_: Tapped(label, Facts(wish=label), forgets="wish")
                for id_, label in labels.items()
            }
        if name == "start":
            month = today.year * 12 + today.month - 1
            months = [f"{n // 12}-{n % 12 + 1:02}" for n in range(month, month + _MONTHS)]
            starts = {
                each: Tapped(describe_start(each, language), Facts(start=each))
                for each in ("asap", *months)
            }
            unknown = Tapped(script["tap_unknown"], skips=("start",), forgets="start")
            return starts | {"unknown": unknown}
        if name in _CONTACTS:
            other = "phone" if name == "email" else "email"
            return {other: Tapped(script[f"tap_{other}"], asks=other)}
        return _bands(name, self.area if name == "area" else self.budget, language, script)


def ask_again(state: State, name: str, script: Script) -> tuple[State, str]:
    """Ask for a fact that is known, or for the other kind of contact."""
    is_contact = name in {"email", "phone"}
    asking = "contact" if is_contact else None if name == "city" else name
    town = str(state.facts.city).rpartition("(")[2].removesuffix("?)")
    state = state._replace(
        asking=asking,  # type: ignore[arg-type]
        by_email=name == "email",
        doubt=None,
        offered=None,
        city_asked=town if name == "city" and town != state.facts.city else None,
    )
    if name == "city" and state.city_asked:
        return state, str(state.facts.city)
    return state, script.get(f"change_{name}") or script[f"ask_{name}"]


def _name(state: State) -> str | None:
    if not state.replies and state.spoken is None:  # an older release did not count them
        return OPENING
    if state.doubt:
        return "doubt"
    if state.offered:
        return "route"
    if state.asking == "contact":
        return "email" if state.by_email else "contact"
    if state.asking is None and state.city_asked:
        return "city"
    return None if state.asking == "name" else state.asking


def _id(state: State) -> str:
    return f"{_name(state)}-{state.replies}"


def _hash(wording: str) -> str:
    return hashlib.sha256(wording.encode()).hexdigest()


def _is_skippable(name: str, state: State) -> bool:
    return name != OPENING and (name not in _CONTACTS or state.reachable)


def _text(state: State, name: str, language: str) -> str:
    facts = state.facts
    if name == "wish":
        return str(facts.wish)
    one = Facts(**{name: getattr(facts, name), "currency": facts.currency})
    return describe(one, language, budget_from=state.budget_from, area_from=state.area_from)


def _bands(name: str, bounds: Sequence[int], language: str, script: Script) -> Mapping[str, Tapped]:
    """Return a choice for each band. Its fact is the upper end, and for the last one the lower."""
    found: dict[str, Tapped] = {}
    for least, most in pairwise((None, *bounds, None) if bounds else ()):
        facts = _number(name, most or least or 0)
        ends = least if most else None
        text = describe(facts, language, budget_from=ends, area_from=ends)
        if least is None or most is None:
            text = script["tap_up_to" if least is None else "tap_over"].format(facts=text)
        found[f"{least or 0}-{most or ''}"] = Tapped(text, facts, ends)
    return found


def _number(name: str, number: float) -> Facts:
    return Facts(area=number) if name == "area" else Facts(budget=round(number), currency="PLN")


def _valued(name: str, value: Value, today: date) -> Facts:
    kind, given = value
    if kind not in {_KINDS.get(name), *({"phone", "email"} if name in _CONTACTS else ())}:
        raise Unfit("tap.value", f"a {kind} does not answer this")
    if isinstance(given, str):
        if kind != "month":
            return Facts(phone=given) if kind == "phone" else Facts(email=given)
        day = today.isoformat()[: len(given)]
        if not day <= given <= f"{today.year + _YEARS}-12-31":
            raise Unfit("tap.value", "is past, or too far away")
        return Facts(start=given)
    least, most = (MIN_AREA, MAX_AREA) if name == "area" else (_MIN_BUDGET, MAX_BUDGET)
    if not least <= given <= most:
        raise Unfit("tap.value", "is out of range")
    return _number(name, given)
