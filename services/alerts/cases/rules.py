"""Converts the configuration of cases into the rules that `case` uses."""

from collections.abc import Callable
from datetime import datetime

from services.alerts.config.cases import ALWAYS, Answers
from services.alerts.config.targets import Config
from services.alerts.rules.case import Ask, Heartbeat, Person, Policy, Rules
from services.alerts.rules.case_link import Links


def rules_of(
    config: Config, on_call: Callable[[str, datetime], str | None], links: Links | None = None
) -> Rules:
    """:param on_call: returns the person of a schedule at a time, from memory"""
    return Rules(
        policies={event: _policy(section) for event, section in config.answers.items()},
        hours={name: config.hours_of(name) for name in (*config.hours, ALWAYS)},
        people={
            key: Person(each.name, each.slack, each.email, each.phone)
            for key, each in config.people.items()
        },
        on_call=on_call,
        links=links,
        heartbeats={
            event: Heartbeat(each.within.total_seconds(), each.hours)
            for event, each in config.heartbeats.items()
        },
        needs={name: target.needs for name, target in config.targets.items()},
    )


def _policy(section: Answers) -> Policy:
    return Policy(
        asks=section.asks,
        within=section.within.total_seconds(),
        hours=section.hours,
        chain=tuple(
            Ask(step.to, step.wait.total_seconds(), step.mention, step.call, step.person)
            for step in section.chain
        ),
        repeat=section.repeat,
        later_most=section.later.most.total_seconds(),
        later_times=section.later.times,
        stops_followups=section.stops_followups,
        done_within=None if section.done_within is None else section.done_within.total_seconds(),
    )
