"""Sections of alerts.toml about cases: [answers], [hours], [schedules] and [people]."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, model_validator

from libs.common.process.config_file import Duration, Where, did_you_mean
from libs.domain.email_address import Email
from libs.domain.hours import Hours
from libs.domain.hours_section import HoursSection, Zone
from libs.domain.phone_number import Phone
from services.alerts.channels.channel import Part, Target
from services.alerts.messages import ESCALATION, HEARTBEAT_MISSED, STAFF_MAIL
from services.alerts.rules import case
from services.alerts.rules.case import Ask, Policy
from services.alerts.rules.silence import Weekly

ALWAYS = "always"
"""The built-in hours that are always open."""
ALWAYS_OPEN = Hours(ZoneInfo("UTC"), None, None)
DAY = timedelta(days=1)
LONGEST = 14 * DAY
UNASKED = frozenset({"followup", "consent.mail", STAFF_MAIL, ESCALATION})
"""Events that open no case: mails to others, and the report of unanswered cases."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
Wait = Annotated[Duration, Field(gt=timedelta())]


class Step(Part):
    """One message of a chain; `mention` and `call` name a schedule, `person` a person."""

    to: str
    wait: Wait
    mention: str | None = None
    call: str | None = None
    person: str | None = None

    @model_validator(mode="after")
    def _asks_one(self) -> Self:
        if len([given for given in (self.mention, self.call, self.person) if given]) > 1:
            raise ValueError("only one of mention, call and person")
        return self

    @property
    def schedule(self) -> str | None:
        return self.mention or self.call


class Later(Part):
    """How often, and for how much business time in total, an answer may be postponed."""

    most: Wait = timedelta(hours=8)
    times: int = Field(3, ge=0, le=100)


class Answers(Part):
    asks: tuple[str, ...]
    within: Wait
    hours: str = ALWAYS
    chain: tuple[Step, ...]
    repeat: int = Field(0, ge=0, le=10)
    later: Later = Later()
    stops_followups: bool = True
    done_within: Annotated[Wait, Field(le=LONGEST)] | None = None

    @property
    def policy(self) -> Policy:
        return Policy(
            asks=self.asks,
            within=self.within.total_seconds(),
            hours=self.hours,
            chain=tuple(
                Ask(step.to, step.wait.total_seconds(), step.mention, step.call, step.person)
                for step in self.chain
            ),
            repeat=self.repeat,
            later_most=self.later.most.total_seconds(),
            later_times=self.later.times,
            stops_followups=self.stops_followups,
            done_within=None if self.done_within is None else self.done_within.total_seconds(),
        )

    def own_faults(
        self, event_type: str, routed: Sequence[str], targets: Mapping[str, Target]
    ) -> Iterator[tuple[Where, str]]:
        if event_type in UNASKED:
            yield (), "opens no case: it is a mail to others, or a report"
        if not self.asks:
            yield ("asks",), f"is empty: name the targets of {event_type} that ask"
        for name in self.asks:
            if name not in routed:
                meant = did_you_mean(name, routed)
                yield ("asks",), f"{name} is not a target of {event_type} in [routes]{meant}"
        if not self.chain:
            yield ("chain",), "is empty: when no one answers, no one would be asked"
        asked = [
            targets[name] for name in (*self.asks, *(s.to for s in self.chain)) if name in targets
        ]
        if self.chain and not any(target.answerable for target in asked):
            text = "no message of it can be answered; add SMS, mail or a Slack target with a token"
            yield ("chain",), text
        once = sum((step.wait for step in self.chain), timedelta())
        lasts = self.within + once * (1 + self.repeat)
        if lasts > LONGEST:
            yield ("chain",), f"lasts {lasts / DAY:.3g} days, repetitions included: at most 14"


class Heartbeat(Part):
    within: Wait
    hours: str = ALWAYS

    def own_faults(self, event_type: str, routed: Sequence[str]) -> Iterator[tuple[Where, str]]:
        if event_type == HEARTBEAT_MISSED or event_type in UNASKED:
            yield (), "is an event of Ostoja's own"
        elif not routed:
            yield (), f"{event_type} has no target in [routes], so it never comes"


class Schedule(Part):
    file: Path
    otherwise: str


class Quiet(Part):
    """Hours of each day; they may go over midnight."""

    begins: time
    ends: time
    zone: Zone
    critical: bool = False

    @property
    def daily(self) -> Weekly:
        return Weekly(frozenset(range(1, 8)), self.begins, self.ends, self.zone)


class Person(Part):
    name: str = Field(min_length=1, max_length=100)
    quiet: Quiet | None = None
    slack: str | None = Field(None, pattern=r"^[UW][A-Z0-9]{2,20}$")
    email: Email | None = None
    phone: Phone | None = None

    @property
    def person(self) -> case.Person:
        quiet = None if self.quiet is None else self.quiet.daily
        critical = self.quiet is not None and self.quiet.critical
        contacts = (self.slack, self.email, self.phone)
        return case.Person(self.name, *contacts, quiet, quiet_if_critical=critical)

    def lacks(self, needs: frozenset[str]) -> list[str]:
        return sorted(need for need in needs if getattr(self, need) is None)


class CaseSections(BaseModel):
    model_config = Part.model_config

    answers: dict[str, Answers] = {}
    hours: dict[Name, HoursSection] = {}
    schedules: dict[Name, Schedule] = {}
    people: dict[Name, Person] = {}
    heartbeats: dict[str, Heartbeat] = {}

    def hours_of(self, name: str) -> Hours:
        """Return these hours; without any, `always` by the clock of the first section."""
        if (section := self.hours.get(name)) is not None:
            return section.hours
        zones = (each.zone for each in self.hours.values())
        return replace(ALWAYS_OPEN, zone=next(zones, ALWAYS_OPEN.zone))

    def hours_for(self, schedule: str) -> Hours:
        """Return the hours in which a schedule is used: of its first user, or always."""
        used = [
            each.hours
            for each in self.answers.values()
            if any(step.schedule == schedule for step in each.chain)
        ]
        return self.hours_of(ALWAYS if ALWAYS in used else next(iter(used), ALWAYS))

    def needs_of(self, schedule: str, targets: Mapping[str, Target]) -> frozenset[str]:
        """Return the contacts that a person on call needs: slack, email, phone."""
        asked = {
            targets[step.to].needs
            for each in self.answers.values()
            for step in each.chain
            if step.schedule == schedule and step.to in targets
        }
        return frozenset(need for need in asked if need is not None)

    def case_faults(
        self, routes: Callable[[str], Sequence[str]], targets: Mapping[str, Target]
    ) -> Iterator[tuple[Where, str]]:
        """Yield faults that involve several sections, with their places.

        :param routes: the targets of an event type
        """
        if ALWAYS in self.hours:
            yield ("hours", ALWAYS), "always is open at any time and needs no section"
        for name, schedule in self.schedules.items():
            where: Where = ("schedules", name, "otherwise")
            yield from self._person_faults(where, schedule.otherwise, self.needs_of(name, targets))
        for event_type, each in self.answers.items():
            faults = [
                *each.own_faults(event_type, routes(event_type), targets),
                *self._hours_faults(each.hours),
                *(
                    ((("chain", number, *at)), text)
                    for number, step in enumerate(each.chain)
                    for at, text in self._step_faults(step, targets)
                ),
            ]
            yield from ((("answers", event_type, *at), text) for at, text in faults)

        for event_type, watched in self.heartbeats.items():
            faults = [
                *watched.own_faults(event_type, routes(event_type)),
                *self._hours_faults(watched.hours),
            ]
            yield from ((("heartbeats", event_type, *at), text) for at, text in faults)
        if self.heartbeats and HEARTBEAT_MISSED not in self.answers:
            text = f'needs [answers."{HEARTBEAT_MISSED}"]: who is asked when none comes'
            yield ("heartbeats",), text

    def _hours_faults(self, name: str) -> Iterator[tuple[Where, str]]:
        if name != ALWAYS and name not in self.hours:
            yield ("hours",), _unknown("hours", name, [*self.hours, ALWAYS])

    def _step_faults(
        self, step: Step, targets: Mapping[str, Target]
    ) -> Iterator[tuple[Where, str]]:
        target = targets.get(step.to)
        if target is None:
            yield ("to",), _unknown("target", step.to, targets)
            return
        if step.mention is not None and target.channel != "slack":
            yield ("mention",), f"only Slack mentions: {step.to} is {target.channel}; write call"
        if step.schedule is not None and step.schedule not in self.schedules:
            key = "mention" if step.mention else "call"
            yield (key,), _unknown("schedule", step.schedule, self.schedules)
        needs = frozenset({target.needs} if target.needs else ())
        if step.person is not None:
            yield from self._person_faults(("person",), step.person, needs)
        elif step.schedule is None and target.channel in {"sms", "email"}:
            yield (), f"asks no one: {step.to} needs call = a schedule, or person"

    def _person_faults(
        self, where: Where, name: str, needs: frozenset[str]
    ) -> Iterator[tuple[Where, str]]:
        person = self.people.get(name)
        if person is None:
            yield where, _unknown("person", name, self.people)
        elif lacks := person.lacks(needs):
            yield where, f"{name} has no {' and no '.join(lacks)} in [people]"


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    verb = "are" if kind == "hours" else "is"
    return f"no {kind} {verb} named {name}{did_you_mean(name, list(known))}"
