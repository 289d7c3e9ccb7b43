"""Taps: what the last reply asks, what may be chosen instead of typing, and what a choice means.

A choice carries a value of the configuration: nothing of it is read as prose.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from libs.common import beside
from services.followups.dialogue.state import Script, State
from services.followups.reading import area, phone
from services.followups.reading.consent_answer import Answer
from services.followups.reading.routing import Route, Routes
from services.followups.rules.fact_texts import describe, describe_start
from services.followups.rules.facts import MAX_AREA, MAX_BUDGET, MIN_AREA, NO_FACTS, Facts, Question

Value = tuple[Literal["number", "month", "phone", "email"], float | str]
"""A typed value in its normal form: a number, an ISO month or date, E.164, or an address."""

CARD, SKIP = "card", "skip"
_ASKS: dict[str, dict[str, Any]] = beside.toml(__file__)
_MONTHS, _YEARS = 12, 10
"""The months that are offered, and the years within which a start must be."""
_RANGES = {"area": (MIN_AREA, MAX_AREA), "budget": (1000, MAX_BUDGET)}
"""Of a budget below 1000, thousands are meant: 60. As a message it is read so."""
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
    answer: Answer | None = None
    route: Route | None = None
    skips: tuple[Question, ...] = ()
    forgets: str | None = None
    """The fact to forget, or to replace by another value."""
    asks: str | None = None
    """The fact that it asks for again."""
    grants: str | None = None
    """The purpose and channel that it agrees to."""
    is_typed: bool = False
    """Its text is read as a message is."""


@dataclass(frozen=True, slots=True)
class Taps:
    """What is configured to be said and tapped. `tap_<name>` of the texts stands on a chip."""

    texts: Mapping[str, Script]
    handover: Mapping[str, Script]
    default_language: str
    routes: Routes
    works: tuple[str, ...]
    """Lower-case stems of words for our works (`remont`, `kitchen`)."""
    towns: tuple[str, ...]
    """Where we work; empty: that is not configured."""
    opening: Mapping[str, str]
    """The route that each chip starts; empty: the form."""
    wish: Sequence[str]
    area: Sequence[int]
    """The bounds of the bands."""
    area_of_room: Sequence[int]
    """The same of a kitchen or a bathroom."""
    budget: Sequence[int]
    prices: Mapping[str, str]
    durations: Mapping[str, str]
    """By language: `{prices}` and `{durations}` of the texts."""
    grants: Sequence[str]
    """What the wording in use grants, marketing by e-mail first; `tap_<each>` is its chip."""

    def open(self, state: State) -> dict[str, str]:
        """Return what may still be agreed to, each with the address or number that it is for."""
        if state.consent == "refused" or state.barred:
            return {}
        given = {*state.grants, *(self.grants[:1] if state.consent == "given" else ())}
        by = {True: state.facts.phone, False: state.facts.email}
        known = {each: by[each.endswith(":phone")] for each in self.grants if each not in given}
        return {each: who for each, who in known.items() if who}

    def ask(self, state: State, today: date) -> dict[str, Any] | None:
        """Return what the last reply asks, as clients get it; None: nothing that can be tapped."""
        name = _name(state)
        if name is None:
            return None
        language, script = self._script(state)
        choices = self._choices(name, state, today)
        found = {
            "id": _id(state),
            "kind": _ASKS[name]["kind"],
            "label": self._label(name, state, script),
            "choices": [{"id": each, "label": tapped.text} for each, tapped in choices.items()],
            "skippable": _skips(name, state) is not None,
        }
        if name == "consent":
            wording = str(state.wording)
            found["wording"] = {"text": wording, "language": language, "sha256": digest(wording)}
        return found

    def card(self, state: State) -> list[dict[str, Any]]:
        """Return the facts that are noted."""
        language, script = self._script(state)
        return [
            {
                "name": name,
                "label": script[f"fact_{name}"],
                "value": value,
                "text": value if name == "wish" else describe(only(state.facts, name), language),
                "sure": name not in state.unsure,
            }
            for name, value in self._on_card(state).items()
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
            facts = _valued(name, tap.value, today, state.spoken or language)
            # No number: as a message it is asked about, and staff can read it.
            text = describe(facts, language) or str(tap.value[1])
            return Tapped(text, facts, is_typed=facts == NO_FACTS)
        skips = _skips(name, state) if tap.choice == SKIP else None
        if skips is not None:
            return Tapped(script["tap_skip"], skips=skips)
        found = self._choices(name, state, today).get(str(tap.choice))
        if found is None:
            raise Unfit("tap.choice", "is not offered")
        return None if name == "consent" and tap.wording != digest(str(state.wording)) else found

    def _on_card(self, state: State) -> dict[str, Any]:
        known = state.facts.known()
        names = _ON_CARD[1:] if state.spoken in self.handover else _ON_CARD  # no wish is read
        return {name: known[name] for name in names if name in known}

    def _script(self, state: State) -> tuple[str, Script]:
        language, spoken = state.language or self.default_language, state.spoken or ""
        own = spoken if spoken in self.handover else language
        return own, {**self.texts[language], **self.handover.get(spoken, {})}

    def _label(self, name: str, state: State, script: Script) -> str:
        if route := self.routes.named(state.offered) if name == "route" else None:
            return route.answer[state.language or self.default_language]
        if len(said := [*_either(state, state.language or self.default_language)]) == 2:
            return script["which"].format(first=said[0], other=said[1])
        return script.get(_ASKS[name]["label"], "").replace("{address}", str(state.doubt))

    def _choices(self, name: str, state: State, today: date) -> Mapping[str, Tapped]:
        language, script = self._script(state)
        yes, no = Tapped(script["tap_yes"]), Tapped(script["tap_no"])
        match name:
            case "area" | "budget" | "start" if either := _either(state, language):
                found = {f"{n}": Tapped(*each) for n, each in enumerate(either.items(), 1)}
            case "consent":
                found = self._agreements(state, script)
            case "doubt":
                found = {"yes": yes._replace(facts=Facts(email=state.doubt)), "no": no}
            case "route":
                offer = self.routes.named(state.offered)
                meant = offer and self.routes.named(offer.offers)
                found = {"yes": yes._replace(route=meant), "no": Tapped(script["tap_new"])}
            case "opening":
                found = {
                    each: Tapped(script[f"tap_{each}"], route=self.routes.named(route))
                    for each, route in self.opening.items()
                }
            case "wish":
                labels = ((each, script[f"tap_{each}"]) for each in self.wish)
                found = {
                    each: Tapped(label, Facts(wish=label), forgets="wish") for each, label in labels
                }
            case "start":
                month = today.year * 12 + today.month - 1
                months = (f"{n // 12}-{n % 12 + 1:02}" for n in range(month, month + _MONTHS))
                found = {
                    each: Tapped(describe_start(each, language), Facts(start=each))
                    for each in ("asap", *months)
                }
                found["unknown"] = Tapped(script["tap_unknown"], skips=("start",), forgets="start")
            case "contact" | "email":
                other = "phone" if name == "email" else "email"
                found = {other: Tapped(script[f"tap_{other}"], asks=other)}
            case _:
                is_room = name == "area" and area.is_of_room(state.facts.wish or "")
                bounds = (is_room and self.area_of_room) or getattr(self, name)
                found = _bands(name, bounds, language, script)
        return found

    def _agreements(self, state: State, script: Script) -> dict[str, Tapped]:
        """Return what can be agreed to, each by itself: one tap never agrees to two.

        An older wording that was shown, or another page's, may grant less than the one in use.
        """
        found = {}
        for each in self.open(state):
            tapped = Tapped(script[f"tap_{each}"], grants=each)
            if each == self.grants[0]:
                found["yes"] = tapped._replace(answer="yes")
            elif state.wording == script["consent_wording"]:
                found[f"yes-{each}".replace(":", "-")] = tapped
        if not (state.grants or state.consent == "given"):
            found["no"] = Tapped(script["tap_no"], answer="no")
        return found


def ask_again(state: State, name: str, script: Script) -> tuple[State, str]:
    """Ask for a fact that is known, or for the other kind of contact."""
    asking: Any = {"email": "contact", "phone": "contact", "city": None}.get(name, name)
    state = state._replace(asking=asking, by_email=name == "email", doubt=None, offered=None)
    return state, script.get(f"change_{name}") or script[f"ask_{name}"]


def _either(state: State, language: str) -> dict[str, Facts]:
    """Return the two values that were said of what is asked for, each by its label."""
    two = [Facts.of(each) for each in state.either if state.asking in each]
    return {describe(each, language): each for each in two}


def _name(state: State) -> str | None:
    """Return which of taps.toml the last reply asks."""
    if not state.replies and state.spoken is None:  # an older release did not count them
        return "opening"
    if state.doubt or state.offered:
        return "doubt" if state.doubt else "route"
    if state.asking == "contact" and state.by_email:
        return "email"
    return state.asking if state.asking in _ASKS else None  # a name is only typed


def _id(state: State) -> str:
    return f"{_name(state)}-{state.replies}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _skips(name: str, state: State) -> tuple[Question, ...] | None:
    """Return what a skipped ask does not ask again; None: it cannot be skipped."""
    if _ASKS[name].get("skips"):
        return (state.asking,) if state.asking else ()
    return () if state.asking == "contact" and state.reachable else None


def only(facts: Facts, name: str) -> Facts:
    names = (name, "currency", f"{name}_from")
    return Facts.of({each: getattr(facts, each, None) for each in names})


def _bands(name: str, bounds: Sequence[int], language: str, script: Script) -> dict[str, Tapped]:
    """Return a choice for each band. Its fact is the upper end, and for the last one the lower."""
    found: dict[str, Tapped] = {}
    for least, most in pairwise((0, *bounds, 0) if bounds else ()):
        number = _number(name, most or least)
        facts = number.learn(Facts.of({f"{name}_from": least}))
        over = script["tap_over"].format(facts=describe(number, language))
        found[f"{least}-{most or ''}"] = Tapped(describe(facts, language) if most else over, facts)
    return found


def _number(name: str, number: float) -> Facts:
    return Facts(area=number) if name == "area" else Facts(budget=round(number), currency="PLN")


def _valued(name: str, value: Value, today: date, language: str) -> Facts:
    kind, given = value
    if kind not in _ASKS[name].get("values", ()):
        raise Unfit("tap.value", f"a {kind} does not answer this")
    if not isinstance(given, str):
        least, most = _RANGES[name]
        if not least <= given <= most:
            raise Unfit("tap.value", "is out of range")
        return _number(name, given)
    day = today.isoformat()[: len(given)]
    if kind == "month" and not day <= given <= f"{today.year + _YEARS}-12-31":
        raise Unfit("tap.value", "is past, or too far away")
    if kind == "phone":
        return Facts(phone=phone.typed(given, language))
    return Facts.of({"start" if kind == "month" else kind: given})
