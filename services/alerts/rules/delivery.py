"""The states of a delivery, one (alert, target) pair, and its transitions. Pure: no I/O.

    pending ──claim──> sending ──> delivered | failed
       ^                  │
       └──────retry───────┘            pending, failed ──operator──> discarded

A message that is sent at most once has one more state before sending, and one more end:

    pending ──claim──> claimed ──permit──> sending ──> delivered | failed | in_doubt
       ^                  │                   │
       └─no reply, or certainly not sent──────┘        claimed ──denied──> discarded
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Any
from uuid import UUID


class State(StrEnum):
    PENDING = auto()
    CLAIMED = auto()
    SENDING = auto()
    DELIVERED = auto()
    FAILED = auto()
    DISCARDED = auto()
    IN_DOUBT = auto()


TERMINAL = frozenset({State.DELIVERED, State.FAILED, State.DISCARDED, State.IN_DOUBT})


class Kind(StrEnum):
    """How an attempt ended, before any policy is applied."""

    DELIVERED = auto()
    FAILED = auto()  # a retry may succeed
    NEVER = auto()  # no retry can succeed
    LATER = auto()  # the target asks us to slow down; not counted as an attempt
    HELD = auto()  # the target refuses us, not this alert; not counted as an attempt
    UNKNOWN = auto()  # the target may or may not have accepted it


class Reason(StrEnum):
    """Why; a closed set, because it is a metric label and a column value."""

    OK = auto()
    TIMEOUT = auto()
    CONNECTION = auto()
    ADDRESS_REFUSED = auto()
    SERVER_ERROR = auto()
    REFUSED = auto()
    UNAUTHORIZED = auto()
    GONE = auto()
    REDIRECT = auto()
    RATE_LIMITED = auto()
    BAD_ANSWER = auto()
    BAD_PAYLOAD = auto()
    TOO_LATE = auto()
    CRASHED = auto()
    OVERRUN = auto()
    EXHAUSTED = auto()
    EXPIRED = auto()
    UNROUTED = auto()
    WITHDRAWN = auto()
    WINDOW_OVER = auto()  # its sending window has ended: the sender submits it again
    DEFERRED = auto()  # the person pauses, or had a mail too recently: submitted again then
    NO_PERMIT = auto()
    NO_CONSENT = auto()  # none recorded, though a grant may still be on its way
    MANUAL = auto()
    ERASED = auto()
    REROUTED = auto()  # its target is no longer configured: a retry resolved the routes again
    RESOLVED = auto()  # the case's message says instead that it is over
    SILENCED = auto()  # a silence covers it: a case of it waits for the silence to end
    ANSWERED = auto()  # a step of a case that was answered, or whose chain restarted
    FALLBACK = auto()  # its target was unhealthy for too long: the fallback got it


MAX_PAUSE_SECONDS = 900.0  # a longer Retry-After counts as this
HELD_TIMES = 5  # reset timeouts from one trial of a target that refuses us to the next


class BreakerState(StrEnum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt, classified by its channel."""

    kind: Kind
    reason: Reason
    status: int | None = None
    excerpt: str = ""  # of the response or the error: bounded and redacted
    retry_after: float | None = None  # seconds
    receipt: Mapping[str, str] | None = None  # identifies the message for later changes

    @property
    def refusal(self) -> str | None:
        """What the target said when it refused us, as operators read it."""
        if self.kind is not Kind.HELD:
            return None
        return str(self.status if self.status and self.status >= 400 else self.reason)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long and how often delivery to a target is tried; seconds."""

    retry_delays: tuple[float, ...]
    wait_tiers: tuple[float, ...]
    max_age: float

    @property
    def tiers(self) -> tuple[float, ...]:
        """Every delay for which a retry queue exists."""
        return tuple(sorted({*self.retry_delays, *self.wait_tiers}))

    def tier(self, delay: float) -> float:
        """Round up to a delay that has a queue."""
        return next((tier for tier in self.tiers if tier >= delay), self.tiers[-1])


@dataclass(frozen=True, slots=True)
class Transition:
    """What the outcome of an attempt does to its row."""

    state: State
    reason: Reason
    delay: float = 0.0  # seconds until the next attempt, when the state is pending
    refund: bool = False  # take back the attempt that the claim counted


def decide(
    outcome: Outcome,
    *,
    attempts: int,
    age: float,
    policy: Policy,
    once: bool = False,
    singled_out: bool = False,
) -> Transition:
    """Apply the policy to an outcome.

    :param attempts: counted so far, this one included
    :param age: seconds since intake, or since a manual retry
    :param singled_out: the target refused us over this alert before, and has accepted another since
    """
    at_fault = outcome.kind is Kind.HELD and singled_out
    match Kind.NEVER if at_fault else outcome.kind:
        case Kind.DELIVERED:
            return Transition(State.DELIVERED, Reason.OK)
        case Kind.NEVER:
            return Transition(State.FAILED, outcome.reason)
        case Kind.UNKNOWN if once:
            return Transition(State.IN_DOUBT, outcome.reason)
        case Kind.HELD:
            delay, refund = policy.retry_delays[0], True
        case Kind.LATER:
            delay, refund = policy.tier(outcome.retry_after or 0.0), True
        case _ if attempts > len(policy.retry_delays):
            return Transition(State.FAILED, Reason.EXHAUSTED)
        case _:
            delay, refund = policy.retry_delays[attempts - 1], False
    if age + delay > policy.max_age:
        return Transition(State.FAILED, Reason.EXPIRED)
    return Transition(State.PENDING, outcome.reason, delay, refund)


def spread(transition: Transition, outcome: Outcome, part: float) -> Transition:
    """Wait as long as the target asked, or as the policy says, and up to a fifth longer.

    :param part: from 0 to 1
    """
    return replace(transition, delay=(outcome.retry_after or transition.delay) * (1 + part / 5))


class Unclaimed(StrEnum):
    """What to do with a work message whose row could not be claimed."""

    ACK = auto()
    PARK = auto()
    TAKE_OVER = auto()
    EXHAUSTED = auto()
    DOUBT = auto()
    MISSING_ROW = auto()


@dataclass(frozen=True, slots=True)
class RowStatus:
    """A row that a claim did not match."""

    state: State
    generation: int
    attempts: int
    lease_over: bool  # it has a lease, which has expired
    once: bool


def unclaimed(row: RowStatus | None, *, generation: int, retries: int) -> Unclaimed:
    """Acknowledge only a message that is certainly no longer needed; park any other."""
    if row is None:  # purged, or lost: the age of the message tells which
        return Unclaimed.MISSING_ROW
    if row.state in TERMINAL or row.generation > generation:
        return Unclaimed.ACK
    if row.once and row.state is State.SENDING:
        return Unclaimed.DOUBT if row.lease_over else Unclaimed.PARK
    free = row.state is State.PENDING or row.lease_over
    if free and row.attempts > retries:
        return Unclaimed.EXHAUSTED
    if row.state is State.SENDING and row.lease_over:
        return Unclaimed.TAKE_OVER
    return Unclaimed.PARK


@dataclass(frozen=True, slots=True)
class Once:
    """A message that is sent at most once, and only with consent's permit (protocol B)."""

    address: str
    purpose: str
    reference: str
    window_ends: float = math.inf
    """On the `boottime` clock, in seconds; from then on it must not be sent."""


@dataclass(frozen=True, slots=True)
class Button:
    """A button or a menu below a message, if the channel has buttons."""

    action: str
    label: str
    value: str
    menu: tuple[tuple[str, str], ...] = ()  # label and value of each item; without one, a button


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is ours until its lease ends; `attempt` fences every later change."""

    alert_id: UUID
    target: str
    event_type: str
    payload: dict[str, Any]
    accepted_at: datetime
    due_at: datetime
    request_id: str | None
    severity: str = "info"
    generation: int = 0
    attempt: int = 0  # number of this attempt; never decreases, not even on a manual retry
    attempts: int = 0  # counted against the target's retries
    age: float = 0.0  # seconds since intake wrote the row, or since a manual retry
    singled_out: bool = False  # as `decide` says
    once: Once | None = None
    buttons: tuple[Button, ...] = ()
    resolved: bool = False  # what it is about is over
