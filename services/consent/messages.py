"""The messages that consent reads and sends. Readers ignore unknown fields."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from libs.common.messaging.consumer import Body
from libs.domain import company
from services.consent.rules import LinkMail, PermitAnswer, Place, Subject

GRANTED = "consent.granted"
WITHDRAWN = "consent.withdrawn"
ERASED = "person.erased"
GRANT_RECORD = "grant.record"
WITHDRAWAL_RECORD = "withdrawal.record"
ADDRESS_REPORT = "address.report"
ERASURE_TRACE = "erasure.trace"
ERASURE_RECEIPT = "erasure.receipt"
EXPORT_REQUEST = "export.request"
ALERT_ACCEPTED = "alert.accepted"
PERMIT_REQUEST = "permit.request"
PERMIT_RETURN = "permit.return"
ERASED_REQUEST = "erased.request"
STANDING_REQUEST = "standing.request"


class PermitRequest(Body):
    message: UUID
    attempt: int
    address: str
    purpose: str


class PermitReturn(Body):
    message: UUID
    attempt: int


class ErasedRequest(Body):
    contacts: tuple[str, ...]
    """E-mail addresses and phone numbers."""


class Declaration(Body):
    """A declaration in the chat, a form or an import."""

    email: str
    source: str
    language: str | None = None
    session_id: str | None = None
    ip_address: str | None = None
    ip_address_from: str | None = None
    user_agent: str | None = None
    at: AwareDatetime


class GrantRecord(Declaration):
    purpose: str = Field(pattern=company.PAIR)
    wording: str = Field(min_length=1)
    place: Place = "chat"
    proven: bool = False
    wording_version: str | None = None
    """The version of a wording that forms.toml publishes, which consent does not know."""
    evidence: dict[str, str | None] = Field({})


class WithdrawalRecord(Declaration):
    erase: bool = False


class AddressReport(Body):
    email: str
    takes_mail: bool
    at: AwareDatetime


class ErasureReceipt(Body):
    erasure_id: UUID
    service: str


class Trace(Body):
    """What links a data subject to alerts, as followups reports it."""

    conversations: frozenset[str] = frozenset()
    phones: frozenset[str] = frozenset()


class ErasureTrace(Trace):
    erasure_id: UUID


class ExportAnswer(Body):
    """One page of a service's records, by kind, and the cursor of the next page."""

    records: dict[str, list[dict[str, Any]]]
    trace: Trace | None = None
    next: list[Any] | None = None


def event(email: str | None, purposes: Iterable[str], action: str, at: datetime) -> dict[str, Any]:
    return {
        "email": email,
        "purposes": list(purposes),
        "action": action,
        "at": at.isoformat(),
    }


def permit_answer(answer: PermitAnswer) -> dict[str, Any]:
    body: dict[str, Any] = {"answer": str(answer.decision), "seconds": answer.seconds}
    reason = "no_consent" if answer.no_consent else "deferred" if answer.deferred else None
    return body | {"reason": reason} if reason else body


def erased_answer(contacts: Iterable[str]) -> dict[str, Any]:
    return {"erased": sorted(contacts)}


def erased(
    subject: Subject, purposes: Iterable[str], at: datetime, erasure_id: UUID
) -> dict[str, Any]:
    about = {"erasure_id": str(erasure_id)} | subject.body()
    return event(subject.email, purposes, "erased", at) | about


def export_request(subject: Subject, after: list[Any] | None) -> dict[str, Any]:
    """Ask for a subject's records; with an empty subject, for all stored addresses."""
    return subject.body() | {"after": after}


def mail(
    alert_id: UUID, payload: dict[str, Any], at: datetime, kind: LinkMail = LinkMail.ERASURE
) -> dict[str, Any]:
    """A mail with a link: it answers the data subject's own request, and needs no permit.

    :param kind: a mail that asks to confirm an agreement needs a permit (`permits.request`)
    """
    once = {"address": payload["to"], "purpose": str(kind), "reference": str(alert_id)}
    return {
        "id": str(alert_id),
        "event_type": "consent.mail",
        "payload": payload,
        "target": None,
        "severity": "info",
        "dedup_key": None,
        "source": "consent",
        "accepted_at": at.isoformat(),
        "once": once if kind is LinkMail.OPT_IN else None,
    }
