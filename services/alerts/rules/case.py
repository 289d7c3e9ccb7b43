"""The states of a case (an alert that needs an answer) and its transitions. Pure: no I/O.

open ──answer──> answered <──late answer── unanswered
open ──chain over──> unanswered        open ──later──> open
answered ──release, reopen, forgotten──> open <──reopen── unanswered
open, unanswered ──resolved, erased, manual──> cancelled, which is final
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from enum import StrEnum, auto
from typing import Any, Self
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from libs.domain.hours import Hours
from services.alerts.rules.heartbeats import ALWAYS, Schedule
from services.alerts.rules.silence import Weekly

FOLLOWUPS = "followups"
"""The source of alerts about leads."""


class State(StrEnum):
    OPEN = auto()
    ANSWERED = auto()
    UNANSWERED = auto()
    CANCELLED = auto()


class Verb(StrEnum):
    """The kinds of answers."""

    TAKEN = auto()
    LATER = auto()
    NOT_A_LEAD = auto()
    FALSE_ALARM = auto()
    DONE = auto()
    WON = auto()
    LOST = auto()
    RELEASE = auto()
    REOPEN = auto()
    REMIND = auto()
    HAND_OVER = auto()
    CANCEL = auto()


CLOSING = frozenset({Verb.NOT_A_LEAD, Verb.FALSE_ALARM, Verb.DONE, Verb.WON, Verb.LOST})

_RESTARTING = frozenset({Verb.RELEASE, Verb.REOPEN})
_ADMINS = _RESTARTING | {Verb.HAND_OVER}
"""An admin may do it in the owner's place."""
_OF_AN_OWNER = frozenset({Verb.REMIND, Verb.HAND_OVER})
_OF_NOBODY_S = frozenset({Verb.LATER, Verb.CANCEL})
"""Of a case that nobody has, not even whoever says so."""
LONGEST_WISH = timedelta(days=14)


class Choice(StrEnum):
    """The items of the menus that `later`, `remind` and `not_a_lead` open."""

    HALF_HOUR = auto()
    HOUR = auto()
    MORNING = auto()
    SPAM = auto()
    TOO_FAR = auto()
    TWICE = auto()


MENUS: Mapping[Verb, tuple[Choice, ...]] = {
    Verb.LATER: (Choice.HOUR, Choice.MORNING),
    Verb.REMIND: (Choice.HALF_HOUR, Choice.HOUR, Choice.MORNING),
    Verb.NOT_A_LEAD: (Choice.SPAM, Choice.TOO_FAR, Choice.TWICE),
}


class Via(StrEnum):
    SLACK = auto()
    LINK = auto()
    API = auto()
    CLI = auto()
    TIMER = auto()


class Cancelled(StrEnum):
    """Why a case ended without an answer."""

    RESOLVED = auto()
    ERASED = auto()
    MANUAL = auto()  # by an operator, who gives a reason


@dataclass(frozen=True, slots=True)
class Ask:
    """One step of a chain: the person, the target, and the wait for an answer."""

    to: str  # a target
    wait: float  # seconds of business time
    mention: str | None = None  # the schedule whose person the message names
    call: str | None = None  # the schedule whose person gets the message
    person: str | None = None  # who gets the message

    @property
    def schedule(self) -> str | None:
        return self.mention or self.call


@dataclass(frozen=True, slots=True)
class Policy:
    """The escalation policy of an event type."""

    asks: tuple[str, ...]  # of the alert's own targets: those that show the question
    within: float  # seconds of business time until the first step
    hours: str
    chain: tuple[Ask, ...]
    repeat: int = 0  # how often the whole chain is repeated
    later_most: float = 8 * 3600.0  # seconds of business time for all `later` answers together
    later_times: int = 3
    stops_followups: bool = True  # of the lead, when a person takes it
    done_within: float | None = None  # seconds of business time from taking it to its outcome

    @property
    def steps(self) -> tuple[Ask, ...]:
        return self.chain * (1 + self.repeat)


@dataclass(frozen=True, slots=True)
class Person:
    """A member of staff from the configuration."""

    name: str
    slack: str | None = None
    email: str | None = None
    phone: str | None = None
    quiet: Weekly | None = None
    """When a chain asks others first."""
    quiet_if_critical: bool = False


def key_of(people: Mapping[str, Person], name: str | None) -> str | None:
    """Return the key of the one person of this name, who has one name in the console, too."""
    found = [key for key, each in people.items() if each.name == name]
    return found[0] if len(found) == 1 else None


TOKEN_BYTES = 16  # 22 characters, which fit an SMS


@dataclass(frozen=True, slots=True, repr=False)
class Links:
    """Makes links that answer as their person; only hashes of the tokens are stored."""

    key: bytes
    base_url: str

    def token(self, case_id: UUID, person: str, generation: int) -> str:
        """Return the same token each time, so that each claim of a message writes the same link."""
        said = f"case-link\0{case_id}\0{person}\0{generation}".encode()
        digest = hmac.digest(self.key, said, hashlib.sha256)
        return urlsafe_b64encode(digest[:TOKEN_BYTES]).rstrip(b"=").decode()

    def url(self, token: str) -> str:
        return f"{self.base_url}/a/{token}"

    def page(self, case_id: UUID, payload: Mapping[str, Any]) -> str:
        """Return the console's page: it asks for a login, so others may read the link."""
        try:
            return f"{self.base_url}/console/leads/{UUID(str(payload['lead_id']))}"
        except (KeyError, ValueError):
            return f"{self.base_url}/console/cases/{case_id}"


def hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration of cases; empty without one."""

    policies: Mapping[str, Policy] = field(default_factory=dict)  # by event type
    hours: Mapping[str, Hours] = field(default_factory=dict)
    people: Mapping[str, Person] = field(default_factory=dict)
    on_call: Callable[[str, datetime], str | None] = lambda _, __: None
    """Returns the person of a schedule at a time; from memory, because transactions call it."""
    rota: Callable[[str], Collection[str]] = lambda _: ()
    """Returns everyone who has a shift of a schedule, or is its default; also from memory."""
    links: Links | None = None
    """Links by which people answer; None: messages have no link."""
    needs: Mapping[str, str | None] = field(default_factory=dict)
    """The contact that a person needs to be asked at a target: slack, email or phone."""
    heartbeats: Mapping[str, Schedule] = field(default_factory=dict)  # by event type

    def hours_of(self, name: str) -> Hours:
        """Return these hours; those of an open case may no longer be configured."""
        return self.hours.get(name, ALWAYS)

    def schedule(self, row: Any) -> Schedule:
        """Return the schedule of a heartbeat; the file has those of event types."""
        if row.event_type is not None:
            return self.heartbeats[row.event_type]
        return Schedule(row.every, row.grace, row.cron, ZoneInfo(row.timezone or "UTC"))

    def whom(self, ask: Ask, now: datetime) -> str | None:
        """Return the person that a step asks."""
        return self.on_call(ask.schedule, now) if ask.schedule else ask.person

    def quiet(self, ask: Ask, severity: str, now: datetime) -> datetime | None:
        """Return until when the person of a step is not to be asked; None: they are."""
        person = self.people.get(self.whom(ask, now) or "")
        if person is None or person.quiet is None:
            return None
        if severity == "critical" and not person.quiet_if_critical:
            return None
        return person.quiet.until(now)

    def person(self, key: str | None) -> Person:
        """Return a person; a Slack id is a member of the team who is not in [people]."""
        key = key or ""
        return self.people.get(key, Person(key, slack=key if key.isupper() else None))

    def reminder(self, chain: Sequence[Ask], owner: str) -> Ask:
        """Return how to remind an owner: at the first target of the chain that reaches them."""
        person = self.person(owner)
        reached = (
            ask.to for ask in chain if (need := self.needs.get(ask.to)) and getattr(person, need)
        )
        return Ask(next(reached, chain[0].to), 0.0, person=owner)

    def returning(self, chain: tuple[Ask, ...], owner: str | None) -> tuple[Ask, ...]:
        """Return the chain of a person who comes back: first it asks the old owner, if on its rota.

        :param owner: the name
        """
        rota = {name for ask in chain if ask.schedule for name in self.rota(ask.schedule)}
        rota |= {ask.person for ask in chain if ask.person}
        found = (key for key, each in self.people.items() if key in rota and each.name == owner)
        if (person := next(found, None)) is None:
            return chain
        return (replace(self.reminder(chain, person), wait=chain[0].wait), *chain)


def offered(state: State, outcome: str | None) -> tuple[Verb, ...]:
    """Return the answers for which a case's message has buttons."""
    if state is State.OPEN:
        return (Verb.TAKEN, Verb.LATER, Verb.NOT_A_LEAD)
    if state is State.UNANSWERED:
        return (Verb.TAKEN, Verb.NOT_A_LEAD)
    if state is State.ANSWERED and outcome is None:
        return (Verb.RELEASE, Verb.REMIND, Verb.HAND_OVER, Verb.WON, Verb.LOST)
    return ()


def menu(verb: Verb, hours: Hours) -> tuple[Choice, ...]:
    """Return the menu of an answer; hours that never close have no morning."""
    absent = {Choice.MORNING} if hours.opens is None else set()
    return tuple(each for each in MENUS.get(verb, ()) if each not in absent)


@dataclass(frozen=True, slots=True)
class ButtonValue:
    """What the value of a button or of a menu's item says; it can be read back."""

    case_id: UUID
    generation: int  # of the case, as the message shows it
    shown_at: UUID  # the alert id of the message's place
    choice: Choice | None = None
    to: str | None = None  # a colleague

    def __str__(self) -> str:
        words = (
            self.case_id,
            self.generation,
            self.shown_at,
            self.choice,
            self.to and f"@{self.to}",
        )
        return " ".join(str(word) for word in words if word is not None)

    @classmethod
    def read(cls, text: str) -> Self:
        """:raises ValueError: no message of ours has this value"""
        case_id, generation, shown_at, *choice = text.split(" ")
        named = UUID(case_id), int(generation[:9]), UUID(shown_at)
        if not choice:
            return cls(*named)
        (chosen,) = choice
        if chosen.startswith("@"):
            return cls(*named, to=chosen[1:])
        return cls(*named, Choice(chosen))


def step_id(case_id: UUID, generation: int, number: int) -> UUID:
    """Return a step's alert id, which is derived, so that no step can be sent twice."""
    return uuid5(case_id, f"{generation}.{number}")


def update_id(alert_id: UUID, target: str, want: int) -> UUID:
    return uuid5(alert_id, f"{target}.{want}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a case."""

    verb: Verb
    person: str
    name: str
    via: Via
    key: str  # idempotency key of the request: the same key gets the same result
    reason: str | None = None
    until: datetime | None = None
    choice: Choice | None = None  # of the answer's menu, instead of `reason` and `until`
    generation: int | None = None  # the generation of the link or button
    admin: bool = False
    to: Person | None = None  # the colleague of a hand-over
    to_key: str | None = None


def chosen(answer: Answer, hours: Hours, now: datetime) -> Answer:
    """Return the answer with its choice resolved for a case with these hours."""
    match answer.choice:
        case None:
            return answer
        case Choice.HOUR:
            return replace(answer, until=now + timedelta(hours=1))
        case Choice.HALF_HOUR:
            return replace(answer, until=now + timedelta(minutes=30))
        case Choice.MORNING:
            tomorrow = now.astimezone(hours.zone).date() + timedelta(days=1)
            midnight = datetime.combine(tomorrow, time(), hours.zone)
            return replace(answer, until=hours.next_opening(midnight))
        case reason:
            return replace(answer, reason=reason)


class Refused(StrEnum):
    UNKNOWN = auto()  # there is no case of this alert, or it was purged
    KEY_USED = auto()  # for another answer
    ANSWERED = auto()  # someone else owns it
    ENDED = auto()  # it was cancelled
    STALE = auto()  # the state that was shown is out of date
    ADMIN = auto()  # only an admin may do this
    TOO_LATE = auto()  # no time is left for `later`


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of an answer on its case."""

    state: State
    owner: str | None = None
    name: str | None = None
    outcome: Verb | None = None
    late: bool = False
    restart: datetime | None = None  # the chain restarts at this time
    remind: datetime | None = None  # its owner wants to be reminded at this time
    tell: bool = True  # update every place; else only those whose message can be changed


def decide(
    case: Any, answer: Answer, *, now: datetime, latest: datetime | None = None
) -> Change | Refused | None:
    """Decide the effect of an answer.

    :param case: its row, locked
    :param latest: until when `later` may last; None: no longer possible
    :returns: None if the case already has the answered state
    """
    mine = case.state == State.ANSWERED and case.owner == answer.person
    until = answer.until
    in_time = until is not None and latest is not None and now < until <= latest
    if (refused := _refused(case, answer, mine=mine, in_time=in_time)) is not None:
        return refused
    if answer.verb is Verb.CANCEL:
        return Change(State.CANCELLED)
    if answer.verb is Verb.LATER or answer.verb in _RESTARTING:
        return Change(State.OPEN, restart=until if answer.verb is Verb.LATER else now)
    if answer.verb in _OF_AN_OWNER:
        return _owners(case, answer)
    outcome = answer.verb if answer.verb in CLOSING else None
    if mine and outcome is None:
        return None
    late = case.state == State.UNANSWERED
    return Change(State.ANSWERED, answer.person, answer.name, outcome, late, tell=not mine)


def _owners(case: Any, answer: Answer) -> Change | None:
    if answer.verb is Verb.REMIND:
        return Change(State.ANSWERED, remind=answer.until, tell=False)
    if answer.to is None or answer.to_key == case.owner:
        return None
    return Change(State.ANSWERED, answer.to_key, answer.to.name)


def _refused(case: Any, answer: Answer, *, mine: bool, in_time: bool) -> Refused | None:
    verb, state = answer.verb, State(case.state)
    old = answer.generation is not None and answer.generation < case.generation
    theirs = state is State.ANSWERED and not mine
    rules = (
        (state is State.CANCELLED, Refused.ENDED),
        (verb is Verb.REOPEN and not answer.admin, Refused.ADMIN),
        (old and verb is not Verb.TAKEN, Refused.STALE),
        (verb in _RESTARTING and state is State.OPEN, Refused.STALE),
        (verb is Verb.RELEASE and state is State.UNANSWERED, Refused.STALE),
        (verb in _OF_AN_OWNER and (state is not State.ANSWERED or case.outcome), Refused.STALE),
        (verb is Verb.REMIND and mine and not in_time, Refused.TOO_LATE),
        (verb in _OF_NOBODY_S and state is State.ANSWERED, Refused.ANSWERED),
        (verb is Verb.LATER and (state is State.UNANSWERED or not in_time), Refused.TOO_LATE),
        (theirs and not (verb in _ADMINS and answer.admin), Refused.ANSWERED),
    )
    return next((refused for applies, refused in rules if applies), None)


@dataclass(frozen=True, slots=True)
class Moved:
    """The timer's action on a due case."""

    state: State
    step: int
    next_at: datetime | None
    handed_out: Ask | None = None
    reminded: bool = False  # the owner
    chain: tuple[Ask, ...] | None = None  # in another order


def tick(
    chain: tuple[Ask, ...], step: int, hours: Hours, now: datetime,
    quiet: Callable[[Ask], datetime | None],
) -> Moved:  # fmt: skip
    """Send the next step, end the case, or wait until the hours begin, or a person's quiet ends.

    Who is quiet is asked after the next who is not, so that everyone is asked.

    :param step: number of steps sent so far. One step at a time: a wait counts from the sending
    :param quiet: until when the person of a step is not to be asked
    """
    opens = hours.next_opening(now)
    if opens > now:
        return Moved(State.OPEN, step, opens)
    if step == len(chain):
        return Moved(State.UNANSWERED, step, None)
    untils = [quiet(ask) for ask in chain[step:]]
    if None not in untils:
        return Moved(State.OPEN, step, min(filter(None, untils)))
    at = step + untils.index(None)
    ask = chain[at]
    other = (*chain[:step], ask, *chain[step:at], *chain[at + 1 :]) if at > step else None
    next_at = hours.add(now, timedelta(seconds=ask.wait))
    return Moved(State.OPEN, step + 1, next_at, ask, chain=other)


def remind(
    step: int, reminder: Ask, done_within: float | None, hours: Hours, now: datetime, *,
    wished: bool = False, quiet: datetime | None = None,
) -> Moved:  # fmt: skip
    """Remind the owner of an answered case that has no outcome in time, within the hours.

    :param done_within: seconds of business time; None: the policy does not ask for an outcome now
    :param wished: the owner asked to be reminded now, at whatever hour
    :param quiet: until when the owner is quiet
    """
    again = None if done_within is None else hours.add(now, timedelta(seconds=done_within))
    if wished:
        return Moved(State.ANSWERED, step, again, reminder)
    if again is None:
        return Moved(State.ANSWERED, step, None)
    opens = hours.next_opening(quiet or now)
    if opens > now:
        return Moved(State.ANSWERED, step, opens)
    return Moved(State.ANSWERED, step, again, reminder, reminded=True)


def latest(
    policy: Policy, hours: Hours, before: Sequence[tuple[datetime, datetime]], now: datetime
) -> datetime | None:
    """Return until when `later` may last now; None: no longer possible.

    :param before: begin and planned end of each earlier `later` of the case
    """
    if len(before) >= policy.later_times:
        return None
    spent = sum((hours.between(*each) for each in before), timedelta())
    left = timedelta(seconds=policy.later_most) - spent
    return hours.add(now, left) if left > timedelta() else None


def chain_of(document: Sequence[Mapping[str, Any]]) -> tuple[Ask, ...]:
    return tuple(Ask(**each) for each in document)
