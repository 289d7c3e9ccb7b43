"""The shapes that consent reads and sends; a reader takes unknown fields without a word."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

GRANTED = "consent.granted"
WITHDRAWN = "consent.withdrawn"
ERASED = "person.erased"
GRANT_RECORD = "grant.record"
ERASURE_RECEIPT = "erasure.receipt"
EXPORT_REQUEST = "export.request"
ALERT_ACCEPTED = "alert.accepted"
PERMIT_REQUEST = "permit.request"
PERMIT_RETURN = "permit.return"


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class PermitRequest(_Read):
    message: UUID
    attempt: int
    address: str
    purpose: str


class PermitReturn(_Read):
    message: UUID
    attempt: int


class GrantRecord(_Read):
    email: str
    purpose: Literal["marketing"]
    wording: str = Field(min_length=1)
    language: str | None = None
    source: str
    session_id: str | None = None
    ip_address: str | None = None
    ip_address_from: str | None = None
    user_agent: str | None = None
    at: AwareDatetime
    may_mail: bool = True
    """False: nobody asked just now, so no link is mailed where one would be needed."""


class ErasureReceipt(_Read):
    erasure_id: UUID
    service: str


class ExportAnswer(_Read):
    """One page of what a service holds: records by kind, and what to ask for next."""

    records: dict[str, list[dict[str, Any]]]
    next: list[Any] | None = None


def event(email: str, purposes: Iterable[str], action: str, at: datetime) -> dict[str, Any]:
    return {
        "email": email,
        "purposes": list(purposes),
        "action": action,
        "at": at.isoformat(),
    }


def permit_answer(answer: str, seconds: int) -> dict[str, Any]:
    return {"answer": answer, "seconds": seconds}


def erased(email: str, purposes: Iterable[str], at: datetime, erasure_id: UUID) -> dict[str, Any]:
    return event(email, purposes, "erased", at) | {"erasure_id": str(erasure_id)}


def export_request(email: str | None, after: list[Any] | None) -> dict[str, Any]:
    """Ask for a person's records; without an address, for the addresses that are held at all."""
    return {"email": email, "after": after}


def mail(alert_id: UUID, payload: dict[str, Any], at: datetime) -> dict[str, Any]:
    """A mail that a person's own request calls for: no marketing, so no permit."""
    return {
        "id": str(alert_id),
        "event_type": "consent.mail",
        "payload": payload,
        "target": None,
        "severity": "info",
        "dedup_key": None,
        "source": "consent",
        "accepted_at": at.isoformat(),
        "once": None,
    }
