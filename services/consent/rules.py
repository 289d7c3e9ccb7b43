"""Decisions about consent. Pure: data in, decision out; the caller passes the clock in."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self

MARKETING = "marketing"
EVERY = "*"
"""The row of a withdrawal of all, which every permit reads and which follows no grant."""
ALL = (MARKETING, EVERY)
"""A withdrawal of all, also as the release before reads it: it knows no purpose but marketing. A
purpose is by e-mail unless it names another channel, as in `marketing:phone`."""
HOLDERS = ("followups", "alerts")
"""The other services that store personal data, in the order in which they erase (protocol C)."""
LANGUAGES = ("pl", "en")
LINK_MAILS_A_DAY = 3
"""Per address and kind, and at most one an hour: anyone may request them for any address."""


def wording_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Subject:
    """A data subject: an e-mail address or a phone number, and what links it to alerts."""

    email: str | None = None
    phone: str | None = None
    conversations: frozenset[str] = frozenset()
    phones: frozenset[str] = frozenset()
    """Numbers given in those conversations; they are not verified."""

    @property
    def identity(self) -> str:
        """The identifier to hash; a phone number never looks like an e-mail address."""
        return self.email or self.phone or ""

    def traced(self, conversations: Iterable[str], phones: Iterable[str]) -> Self:
        return replace(
            self,
            conversations=self.conversations.union(conversations),
            phones=self.phones.union(phones),
        )

    def body(self) -> dict[str, Any]:
        return {
            "email": self.email,
            "phone": self.phone,
            "conversations": sorted(self.conversations),
            "phones": sorted(self.phones),
        }

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        subject = cls(body["email"], body["phone"])
        return subject.traced(body["conversations"], body["phones"])


class State(StrEnum):
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class Stands(StrEnum):
    """The state of a consent, as people and other services see it."""

    NONE = "none"
    WAITING = "waiting"
    """It waits for its confirmation by the mailed link."""
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


def stands(state: State | None, *, waits: bool) -> Stands:
    if state is State.GRANTED:  # a newer agreement that waits takes nothing away
        return Stands.GRANTED
    return Stands.WAITING if waits else Stands.WITHDRAWN if state else Stands.NONE


Place = Literal["chat", "form", "import"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """An agreement: the wording, the time and the place."""

    text: str
    language: str | None
    source: str
    given_at: datetime
    """By the clock of the gateway that took the request, or as an import states it."""
    place: Place = "form"
    version: str | None = None
    """The version of the published wording; None: unpublished, or too old or in the future, so
    it proves nothing."""
    proven: bool = False
    """It has evidence of where it was given (an import), so it needs no confirmation."""


class Consequence(StrEnum):
    """The effect of an agreement."""

    COUNTS = "counts"
    CONFIRM = "confirm"
    """It counts once the mailbox's owner confirms it by the mailed link."""
    NOTHING = "nothing"
    """It is only recorded: an imported agreement of a suppressed address."""
    WITHDRAWN_SINCE = "withdrawn_since"
    UNKNOWN_WORDING = "unknown_wording"


def consequence(
    agreement: Agreement,
    *,
    confirmed: bool,
    double_opt_in: bool,
    suppressed: bool,
    withdrawn_at: datetime | None,
) -> Consequence:
    """Decide what an agreement leads to.

    :param confirmed: the mailbox's owner has confirmed it by a mailed link
    :param withdrawn_at: the subject's latest withdrawal, which outlives the suppression
    """
    # A date in the future is wrong, so the agreement may be older than the withdrawal.
    is_wrong = agreement.place == "import" and agreement.given_at > datetime.now(UTC)
    if withdrawn_at is not None and (is_wrong or agreement.given_at <= withdrawn_at):
        return Consequence.WITHDRAWN_SINCE
    is_published = agreement.version is not None
    if not is_published and (confirmed or agreement.place != "import"):
        return Consequence.UNKNOWN_WORDING
    if confirmed:
        return Consequence.COUNTS
    if suppressed:
        # The person has not just acted, so a mail would be the marketing that they refused.
        return Consequence.NOTHING if agreement.place == "import" else Consequence.CONFIRM
    counts = is_published and (agreement.proven or not double_opt_in)
    return Consequence.COUNTS if counts else Consequence.CONFIRM


class Action(StrEnum):
    OPT_IN = "opt-in"
    UNSUBSCRIBE = "unsubscribe"
    REVOKE = "revoke-consent"
    ERASURE_REQUESTED = "erasure-requested"
    ERASED = "erased"
    EXPORT = "export"


class LinkMail(StrEnum):
    """The action that a mailed link confirms; its token is valid for this action only."""

    ERASURE = "erasure"
    OPT_IN = "opt-in"


class ErasureStatus(StrEnum):
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    IN_PROGRESS = "in_progress"
    DONE = "done"


class PermitDecision(StrEnum):
    GRANTED = "granted"
    DENIED = "denied"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Permit:
    """One attempt's permission to send one message; `age` in seconds."""

    age: float
    returned: bool


@dataclass(frozen=True, slots=True)
class PermitAnswer:
    decision: PermitDecision
    seconds: int
    """How long the permit is valid: a duration, since the clocks of two hosts are not compared."""
    no_consent: bool = False
    """Closed because no consent is recorded yet; a grant may be in flight."""
    deferred: bool = False
    """Closed for `seconds`: the person pauses, or had their last mail too recently."""


def decide_permit(state: State | None, permit: Permit | None, lifetime: int) -> PermitAnswer:
    """Decide about the permit that is recorded for this very attempt (protocol B, step 3).

    `closed` is not `denied`: the message may be tried again, under a new attempt.
    """
    if state is State.WITHDRAWN:
        return PermitAnswer(PermitDecision.DENIED, lifetime)
    if state is None or permit is None:
        return PermitAnswer(PermitDecision.CLOSED, lifetime, no_consent=True)
    remaining = int(lifetime - permit.age)
    if permit.returned or remaining <= 0:
        return PermitAnswer(PermitDecision.CLOSED, lifetime)
    return PermitAnswer(PermitDecision.GRANTED, remaining)


class WithdrawalResult(StrEnum):
    """How a withdrawal is answered."""

    DONE = "done"
    SUPERSEDED = "superseded"
    RESTRICTED = "restricted"
    """It is withdrawn; nothing is erased while the processing is restricted (Art. 18 GDPR)."""
    IN_FLIGHT = "in_flight"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class ConsentState:
    """A subject's consent and permits, read under the lock of the subject's row."""

    versions: Mapping[str, int]
    unreturned: int
    withdrawn_for: float
    """Seconds since the withdrawal was committed, or since the last of these permits was granted
    if that is later (a mail that asks to confirm), by the database's clock."""


def withdrawal_result(
    written: Mapping[str, int],
    current: ConsentState,
    *,
    waited: float,
    patience: float,
    quarantine: float,
) -> WithdrawalResult:
    """Decide how a withdrawal that wrote these versions is answered (protocol B, step 7)."""
    if any(current.versions.get(purpose) != version for purpose, version in written.items()):
        return WithdrawalResult.SUPERSEDED
    # An unreturned permit belongs to a message in doubt: after the quarantine no process can
    # still be between its last check of the clock and the final dot.
    if current.unreturned == 0 or current.withdrawn_for >= quarantine:
        return WithdrawalResult.DONE
    return WithdrawalResult.IN_FLIGHT if waited >= patience else WithdrawalResult.WAIT


def preferred_language(accepted: str) -> str:
    """Choose by an Accept-Language header, the first of equals; Polish when in doubt."""
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
