"""What may become of a delivery, one (alert, target) pair. Pure: data in, decision out.

    pending ──claim──> sending ──> delivered | failed
       ^                  │
       └──────retry───────┘            pending, failed ──by hand──> discarded

A message that goes out at most once has a step before, and an end of its own:

    pending ──claim──> claimed ──permit──> sending ──> delivered | failed | in_doubt
       ^                  │                   │
       └──no answer, or certainly not sent────┘        claimed ──denied──> discarded
"""

from dataclasses import dataclass
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
    """What an attempt told us, before any policy."""

    DELIVERED = auto()
    FAILED = auto()  # may work later
    NEVER = auto()  # will not work, however often it is tried
    LATER = auto()  # the target asks us to slow down: no attempt is spent
    UNKNOWN = auto()  # it may or may not have been taken


class Reason(StrEnum):
    """Why; a closed set, since it is a metric's label and a row's column."""

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
    NO_PERMIT = auto()
    BY_HAND = auto()
    ERASED = auto()
    FALLBACK = auto()  # its target was sick too long: another one got it


class BreakerState(StrEnum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt, classified by its channel."""

    kind: Kind
    reason: Reason
    status: int | None = None
    excerpt: str = ""  # of the answer or the error: bounded and redacted
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How long and how often a target is tried; seconds."""

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
class Decision:
    state: State
    reason: Reason
    delay: float = 0.0  # until the next attempt, when the state is pending
    spend: bool = True  # False gives the attempt back that the claim counted


def decide(
    outcome: Outcome, *, spent: int, age: float, policy: Policy, once: bool = False
) -> Decision:
    """Say what an attempt's outcome makes of the row.

    :param spent: attempts counted so far, this one included
    :param age: seconds since the row is tried: since intake, or since a retry by hand
    """
    match outcome.kind:
        case Kind.DELIVERED:
            return Decision(State.DELIVERED, Reason.OK)
        case Kind.NEVER:
            return Decision(State.FAILED, outcome.reason)
        case Kind.UNKNOWN if once:
            return Decision(State.IN_DOUBT, outcome.reason)
        case Kind.LATER:
            delay, spend = policy.tier(outcome.retry_after or 0.0), False
        case _ if spent > len(policy.retry_delays):
            return Decision(State.FAILED, Reason.EXHAUSTED)
        case _:
            delay, spend = policy.retry_delays[spent - 1], True
    if age + delay > policy.max_age:
        return Decision(State.FAILED, Reason.EXPIRED)
    return Decision(State.PENDING, outcome.reason, delay, spend)


class Unclaimed(StrEnum):
    """What to do with a work message whose row could not be claimed."""

    ACK = auto()
    PARK = auto()
    TAKE_OVER = auto()
    EXHAUSTED = auto()
    DOUBT = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """A row as a claim that did not match found it."""

    state: State
    turn: int
    spent: int
    lease_over: bool  # there is a lease, and its time has passed
    once: bool


def unclaimed(row: Seen | None, *, turn: int, retries: int) -> Unclaimed:
    """Ack only what certainly needs no copy any more; park whatever is not understood."""
    if row is None:  # erased or purged
        return Unclaimed.ACK
    if row.state in TERMINAL or row.turn > turn:
        return Unclaimed.ACK
    if row.once and row.state is State.SENDING:
        return Unclaimed.DOUBT if row.lease_over else Unclaimed.PARK
    free = row.state is State.PENDING or row.lease_over
    if free and row.spent > retries:
        return Unclaimed.EXHAUSTED
    if row.state is State.SENDING and row.lease_over:
        return Unclaimed.TAKE_OVER
    return Unclaimed.PARK


@dataclass(frozen=True, slots=True)
class Once:
    """A message that leaves at most once, and only with consent's permit (protocol B)."""

    address: str
    purpose: str
    reference: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is ours until its lease ends; `attempt` is the fence of every later change."""

    alert_id: UUID
    target: str
    turn: int
    attempt: int  # never goes back, not even by a retry by hand
    spent: int  # counted against the target's retries
    age: float  # seconds since intake wrote the row, or since a retry by hand
    event_type: str
    severity: str
    payload: dict[str, Any]
    accepted_at: datetime
    request_id: str | None
    once: Once | None = None
