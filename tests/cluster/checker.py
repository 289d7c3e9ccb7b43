"""Holds a history, and what was found when all was healed, against the promises.

Pure: `violations` names everything that is wrong, so that a test can show it wrong on purpose.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.intake.idempotency import RUNNING_SECONDS
from tests.cluster.generator import QUOTA
from tests.cluster.history import Event, Operation, operations

ACCEPTED_SECONDS = RUNNING_SECONDS + 30.0
"""An alert is accepted by then while at most one host is in trouble.

A gateway that dies with a request keeps its Idempotency-Key for RUNNING_SECONDS (409).
"""
BESIDE = ("rabbitmq", "etcd", "postgres", "alerts", "consent", "followups")
HEALED_SECONDS = 60.0
"""For so long after the end of a fault its host may still be in trouble."""
BESIDE_REDIS = {
    *(f"{verb} {name}" for verb in ("kill", "freeze") for name in BESIDE),
    *("switch over to it", "read-only primary", "RabbitMQ stays apart, restart it"),
}
"""Faults that keep no gateway from Redis: the quota is exact."""
TAKEN = {"sent": {1}, "cancelled": {0}, "failed": {0}, "in_doubt": {0, 1}}
"""How often SMTP may have taken a mail, by the state of its follow-up."""


SENT = ("alert", "batch", "alarm")
REPEATED = ("alarm", "repeat")
SHOWN = {"delivered", "failed"}


@dataclass
class Found:
    """What is known when nothing is on its way any more."""

    ledger: Mapping[str, Any] = field(default_factory=lambda: {"ok": True, "unread": 0})
    """None of it: it was not balanced within the time."""
    states: dict[str, str] = field(default_factory=dict)
    """Of each delivery to Slack, by the alert's id; `repeat`: it is counted on another."""
    told: set[str] = field(default_factory=set)
    """Ids of failed alerts that a digest has told of, or will."""
    received: Counter[str] = field(default_factory=Counter)
    """How often Slack got each text."""
    mails: dict[str, list[float]] = field(default_factory=dict)
    """When SMTP took a marketing mail to each address, on the history's clock."""
    follow_ups: dict[str, str] = field(default_factory=dict)
    """The state of each person's first follow-up."""
    verified: bool = True
    actions: dict[str, set[str]] = field(default_factory=dict)
    """What the trail says of each address that was not erased."""
    traces: list[tuple[str, str]] = field(default_factory=list)
    """Erased addresses, and where each was found."""
    gateways: int = 2


def violations(events: list[Event], found: Found) -> list[str]:
    """Return one line for each thing that is wrong; empty if all promises held."""
    return [
        *_alerts(events, found),
        *_alarms(events, found),
        *_ledger(found),
        *_mails(events, found),
        *_trail(events, found),
        *_limits(events, found),
        *_answers(events),
        *(f"P5: {address} was erased, and is in {where}" for address, where in found.traces),
    ]


def _accepted(events: list[Event]) -> Iterator[tuple[Operation, str, str]]:
    for what in SENT:
        for one in operations(events, what):
            if one.outcome == "ok":
                for alert_id, text in zip(one.details["ids"], one.details["texts"], strict=True):
                    yield one, alert_id, text


def _alerts(events: list[Event], found: Found) -> Iterator[str]:
    for one, alert_id, text in _accepted(events):
        state = found.states.get(alert_id)
        if (state == "delivered" and found.received[text]) or (one.what, state) == REPEATED:
            continue
        if state == "failed" and alert_id in found.told:
            continue
        yield (
            f"P1: accepted at {one.ended:.2f}: {alert_id} is {state or 'not in the ledger'}, and "
            f"Slack got it {found.received[text]} times"
        )
    asked = {
        text for what in SENT for one in operations(events, what) for text in one.details["texts"]
    }
    for text in set(found.received) - asked:
        yield f"P1: Slack got {text!r}, which nobody sent"


def _alarms(events: list[Event], found: Found) -> Iterator[str]:
    """Hold what Slack was shown last of each alarm against what its source said last."""
    things: defaultdict[str, list[Operation]] = defaultdict(list)
    for one in operations(events, "alarm"):
        things[one.details["thing"]].append(one)
    for thing, said in things.items():
        if any(one.outcome != "ok" for one in said):
            continue  # nobody knows what its source has said
        shown = [one for one in said if found.states.get(one.details["ids"][0]) in SHOWN]
        fires = [[one.details["fires"] for one in some][-1:] for some in (said, shown)]
        if fires[0] != fires[1]:
            yield f"P1: {thing} fires: {fires[0]}, and Slack was shown {fires[1]}"


def _ledger(found: Found) -> Iterator[str]:
    if not found.ledger.get("ok") or found.ledger.get("unread") or found.ledger.get("pending"):
        yield f"P1: the ledger is not balanced: {dict(found.ledger)}"


def _mails(events: list[Event], found: Found) -> Iterator[str]:
    for address, state in found.follow_ups.items():
        taken = len(found.mails.get(address, []))
        if taken not in TAKEN.get(state, set()):
            yield f"P3: the follow-up of {address} is {state}, and SMTP took it {taken} times"
    for what in ("unsubscribe", "erase"):
        for one in operations(events, what):
            if one.outcome == "ok" and one.ended is not None:
                late = [at for at in found.mails.get(one.key, []) if at > one.ended]
                if late:
                    yield f"P4: {one.key}: 200 to {what} at {one.ended:.2f}, mails at {late}"


def _trail(events: list[Event], found: Found) -> Iterator[str]:
    if not found.verified:
        yield "P5: the trail does not verify"
    for what in ("opt-in", "unsubscribe"):
        for one in operations(events, what):
            if one.outcome == "ok" and what not in found.actions.get(one.key, {what}):
                yield f"P5: {what} of {one.key} was answered 200 and is not in the trail"


def _limits(events: list[Event], found: Found) -> Iterator[str]:
    troubled = _windows([event for event in events if event.what not in BESIDE_REDIS])
    for one in operations(events, "burst"):
        if one.ended is None:
            continue
        admitted = sum(status not in {0, 429} for status in one.details["answers"])
        alone = any(begin <= one.ended and one.invoked <= end for begin, end, _ in troubled)
        most = QUOTA * (found.gateways if alone else 1) * one.details["minutes"]
        if admitted > most:
            yield f"P8: {admitted} of a burst passed at {one.invoked:.2f}; at most {most} may"


def _answers(events: list[Event]) -> Iterator[str]:
    for event in events:
        if 500 in event.details.get("told", []):
            yield f"{event.what} {event.key} was answered 500"
    for what in SENT:
        for one in operations(events, what):
            if one.outcome == "fail":
                yield f"P2: {what} {one.key} was refused: {one.details}"
            end = one.ended if one.ended is not None else events[-1].at
            late = one.outcome != "ok" or end - one.invoked > ACCEPTED_SECONDS
            if late and not _two_hosts(events, one.invoked, end):
                yield f"P2: {what} {one.key}, sent at {one.invoked:.2f}, ended at {end:.2f}: " + (
                    one.outcome or "never"
                )


def _windows(events: list[Event]) -> list[tuple[float, float, str]]:
    """Return when each host was in trouble, with the time it may need afterwards."""
    begun: dict[tuple[str, str], list[float]] = {}  # one host may be given the same fault twice
    windows = []
    for event in events:
        if event.kind == "begin":
            begun.setdefault((event.what, event.key), []).append(event.at)
        elif event.kind == "end":
            start = begun[event.what, event.key].pop(0)
            windows.append((start, event.at + HEALED_SECONDS, event.key))
    left = [(start, host) for (_, host), starts in begun.items() for start in starts]
    return windows + [(start, events[-1].at, host) for start, host in left]


def _two_hosts(events: list[Event], start: float, end: float) -> bool:
    hosts = {host for begin, over, host in _windows(events) if begin <= end and start <= over}
    return len(hosts) > 1
