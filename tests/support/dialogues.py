"""Runs the conversations of tests/contracts/dialogues, as staff and consent would see them."""

import json
import tomllib
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from services.followups import dialogue
from services.followups.dialogue.hearing import NO_HINT, Hint
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import Tap, Tapped, Value
from services.followups.reading import understand
from tests.support.shipped import FOLLOWUPS

CONTRACTS = Path(__file__).parents[1] / "contracts"
FOLDER = CONTRACTS / "dialogues"
NOW = datetime(2026, 11, 25, 10, tzinfo=ZoneInfo("Europe/Warsaw"))
"""A Wednesday."""
TODAY = NOW.date()
FACTS = ("email", "phone", "area", "budget", "start")


@dataclass
class Seen:
    """The result of a conversation."""

    facts: dict[str, Any]
    consent: str | None
    lead: bool
    topics: set[str]
    actions: set[str]
    reply: str
    """The last reply."""


@dataclass
class Tally:
    found: int = 0
    """The facts that were understood."""
    right: int = 0
    wanted: int = 0
    wrong_consents: list[str] = field(default_factory=list)
    lost_leads: list[str] = field(default_factory=list)
    false_leads: list[str] = field(default_factory=list)
    not_passed_on: list[str] = field(default_factory=list)
    wrong_facts: list[str] = field(default_factory=list)
    cases: int = 0

    def count(self, wanted: Any, found: Any) -> bool:
        self.wanted += wanted is not None
        self.found += found is not None
        is_right = bool(wanted == found)
        self.right += wanted is not None and is_right
        return is_right

    @property
    def precision(self) -> float | None:
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.right / self.wanted if self.wanted else None


def by_date(known: dict[str, Any]) -> dict[str, Any]:
    """Return facts as the cases write them: a start is its date, a range its upper end."""
    known = {name: each for name, each in known.items() if not name.endswith("_from")}
    return known | {"start": known["start"].split()[0]} if "start" in known else known


def cases(category: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{category}.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["case"]
    return found


def categories() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def answer(
    state: State,
    message: str,
    towns: tuple[str, ...] = FOLLOWUPS.taps.towns,
    *,
    greeted: bool = False,
) -> dialogue.Turn:
    turn = dialogue.turn(
        state,
        message,
        taps=FOLLOWUPS.taps
        if towns == FOLLOWUPS.taps.towns
        else replace(FOLLOWUPS.taps, towns=towns),
        today=TODAY,
        greeted=greeted,
    )
    return turn._replace(reply=FOLLOWUPS.said(turn.reply, turn.heard.of_reply, NOW))


@dataclass
class Visitor:
    """Who writes and taps; the state goes through the database after each turn."""

    language: str = "pl"
    state: State = field(default_factory=State)
    reply: str = ""
    said: list[str] = field(default_factory=list)
    answer: str | None = None

    @property
    def known(self) -> State:
        return self.state._replace(language=self.state.language or self.language)

    @property
    def ask(self) -> dict[str, Any]:
        return FOLLOWUPS.taps.ask(self.known, TODAY) or {}

    @property
    def card(self) -> dict[str, str]:
        return {each["name"]: each["text"] for each in FOLLOWUPS.taps.card(self.state)}

    def says(self, message: str, tap: Tapped | None = None, hint: Hint = NO_HINT) -> dialogue.Turn:
        turn = dialogue.turn(
            self.state,
            message,
            taps=FOLLOWUPS.taps,
            language=self.language if self.language in FOLLOWUPS.texts else None,
            today=TODAY,
            tap=tap,
            hint=hint,
        )
        self.state = State.of(json.loads(json.dumps(turn.state.stored())))
        self.reply, self.answer = turn.reply, turn.heard.answer
        self.said.append(message)
        return turn

    def taps(self, choice: str | None = None, value: Value | None = None, **other: str) -> bool:
        """Return whether it counts: it is not about an older reply."""
        shown = self.ask.get("wording", {}).get("sha256")
        given = {"ask": self.ask.get("id", ""), "wording": shown} | other
        tapped = FOLLOWUPS.taps.read(Tap(choice=choice, value=value, **given), self.known, TODAY)
        if tapped is not None:
            self.says(tapped.text, tapped)
        return tapped is not None


def hold(turns: list[str], towns: tuple[str, ...] = FOLLOWUPS.taps.towns) -> Seen:
    state, lead = State(), False
    topics: set[str] = set()
    actions: set[str] = set()
    reply = ""
    for message in turns:
        turn = answer(state, message, towns)
        state, reply = turn.state, turn.reply
        actions |= turn.heard.actions
        route = FOLLOWUPS.routes.named(state.route)
        if route is None or route.topic is None or state.wants_quote:
            lead = lead or (turn.heard.is_about_lead and state.reachable)
        if route is None or route.topic is None:
            continue
        if state.reachable or FOLLOWUPS.topics[route.topic].at_once:
            topics.add(route.topic)
    return Seen(by_date(state.facts.known()), state.consent, lead, topics, actions, reply)


def tally(category: str) -> Tally:
    counted = Tally()
    for case in cases(category):
        seen, said = hold(case["turns"]), " / ".join(case["turns"])
        counted.cases += 1
        if "facts" in case:
            for name in FACTS:
                wanted, found = case["facts"].get(name), seen.facts.get(name)
                if not counted.count(wanted, found):
                    counted.wrong_facts.append(f"{said}: {name} is {wanted}, not {found}")
        if seen.consent == "given" != case.get("consent"):
            counted.wrong_consents.append(said)
        if "lead" in case and seen.lead != case["lead"]:
            (counted.lost_leads if case["lead"] else counted.false_leads).append(said)
        if "topic" in case and case["topic"] not in seen.topics:
            counted.not_passed_on.append(said)
        if "action" in case and case["action"] not in seen.actions:
            counted.not_passed_on.append(said)
    return counted


def by_fact() -> dict[str, Tally]:
    """Count the facts of the single messages, each on its own."""
    counted = {name: Tally() for name in (*FACTS, "city", "name")}
    for file, facts in (("facts", tuple(counted)), ("quantities", ("area", "budget"))):
        exam = json.loads((CONTRACTS / f"{file}.json").read_text(encoding="utf-8"))
        messages = [each for part in exam.values() if isinstance(part, list) for each in part]
        for message, wanted, *asked in messages:
            understood = understand(
                message,
                today=date.fromisoformat(exam["today"]),
                asked=asked[0] if asked else None,
                works=FOLLOWUPS.works,
            )
            found = by_date(understood.facts.known())
            for name in facts:
                counted[name].cases += 1
                counted[name].count(wanted.get(name), found.get(name))
    return counted
