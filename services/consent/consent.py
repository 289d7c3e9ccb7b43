"""What consent means. Pure: data in, decision out, the clock passed in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PURPOSES = ("marketing",)
HOLDERS = ("alerts", "followups")
"""The other services that hold personal data: an erasure is done when each has reported back."""
LANGUAGES = ("pl", "en")
LINK_MAILS_A_DAY = 3
"""To one address, of each kind, and one an hour: anybody may ask for them in anybody's name."""


def wording_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class State(StrEnum):
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class Action(StrEnum):
    OPT_IN = "opt-in"
    UNSUBSCRIBE = "unsubscribe"
    REVOKE = "revoke-consent"
    ERASURE_REQUESTED = "erasure-requested"
    ERASED = "erased"
    EXPORT = "export"


class LinkMail(StrEnum):
    """What a mailed link confirms."""

    ERASURE = "erasure"
    OPT_IN = "opt-in"


class ErasureStatus(StrEnum):
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    IN_PROGRESS = "in_progress"
    DONE = "done"


class Verdict(StrEnum):
    GRANTED = "granted"
    DENIED = "denied"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Permit:
    """One attempt's permission to hand one message over; `age` in seconds."""

    age: float
    returned: bool


@dataclass(frozen=True, slots=True)
class PermitAnswer:
    verdict: Verdict
    seconds: int
    """How long a permit holds: a duration, since the clocks of two hosts are not compared."""


def answer_permit(state: State | None, permit: Permit | None, lifetime: int) -> PermitAnswer:
    """Decide over the permit that is recorded for this very attempt (protocol B, step 3).

    `closed` is no denial: the message may be tried again, under a new attempt.
    """
    if state is not State.GRANTED or permit is None:
        return PermitAnswer(Verdict.DENIED, lifetime)
    remaining = int(lifetime - permit.age)
    if permit.returned or remaining <= 0:
        return PermitAnswer(Verdict.CLOSED, lifetime)
    return PermitAnswer(Verdict.GRANTED, remaining)


class Outcome(StrEnum):
    """How a withdrawal is answered."""

    DONE = "done"
    SUPERSEDED = "superseded"
    IN_FLIGHT = "in_flight"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Standing:
    """What one look under the person's lock found."""

    versions: Mapping[str, int]
    unreturned: int
    withdrawn_for: float
    """Seconds since the withdrawal was committed, by the database's clock."""


def settle(
    written: Mapping[str, int], seen: Standing, *, waited: float, patience: float, quarantine: float
) -> Outcome:
    """Decide how a withdrawal that wrote these versions is answered (protocol B, step 7)."""
    if any(seen.versions.get(purpose) != version for purpose, version in written.items()):
        return Outcome.SUPERSEDED
    # A permit that nobody returned belongs to a message in doubt: after the quarantine no
    # process can still be between its last look at the clock and the final dot.
    if seen.unreturned == 0 or seen.withdrawn_for >= quarantine:
        return Outcome.DONE
    return Outcome.IN_FLIGHT if waited >= patience else Outcome.WAIT


def preferred_language(accepted: str) -> str:
    """Choose by an Accept-Language header, the first named of equals; Polish when in doubt."""
    best, heaviest = LANGUAGES[0], 0.0
    for part in accepted.lower().split(","):
        tag, _, weight = part.replace(" ", "").partition(";q=")
        language = tag.partition("-")[0]
        try:
            heavier = float(weight or 1) > heaviest
        except ValueError:
            continue
        if language in LANGUAGES and heavier:
            best, heaviest = language, float(weight or 1)
    return best
