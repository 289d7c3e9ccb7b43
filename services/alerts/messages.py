"""The shapes that alerts reads and sends; a reader takes unknown fields without a word."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from libs.common.addresses import Address
from libs.common.broker import Message
from libs.common.consume import REASON
from services.alerts.alert import Once

ALERT_ACCEPTED = "alert.accepted"
ALERTS_ACCEPTED = "alerts.accepted"
LEAD_QUALIFIED = "lead.qualified"
ESCALATION = "escalation"
ALERT_WORK = "alert.work"
ALERT_DEAD = "alert.dead"
DELIVERY_SETTLED = "delivery.settled"
PERMIT_REQUEST = "permit.request"
PERMIT_RETURN = "permit.return"

PERSON_ERASED = "person.erased"
ERASURE_RECEIPT = "erasure.receipt"
EXPORT_REQUEST = "export.request"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class OnceTerms(_Read):
    address: str
    purpose: str
    reference: str


class AlertAccepted(_Read):
    id: UUID
    event_type: Name
    payload: dict[str, Any]
    target: Name | None = None
    severity: Literal["info", "warning", "critical"] = "info"
    dedup_key: str | None = None
    source: str
    accepted_at: AwareDatetime
    once: OnceTerms | None = None


class AlertsAccepted(_Read):
    """Several bodies of `alert.accepted`, each to be read for itself."""

    alerts: list[dict[str, Any]]


class LeadQualified(_Read):
    """Only what the ledger needs; the whole body becomes the alert's payload."""

    id: UUID
    at: AwareDatetime


class AlertWork(_Read):
    alert_id: UUID
    target: str
    turn: int = Field(ge=0)


class AlertDead(_Read):
    """What lies in `.dead` of a target, and comes back when a person moves it."""

    alert_id: UUID
    target: str


class PersonErased(_Read):
    email: Address
    erasure_id: UUID


class ExportRequest(_Read):
    email: Address | None
    """Whose records; without it, whose addresses are held at all."""
    after: tuple[UUID, str] | None = None
    """What the page before named as `next`."""


class PermitAnswer(_Read):
    answer: Literal["granted", "denied", "closed"]
    seconds: float = Field(0, ge=0)  # how long a granted permit holds


def accepted(message: Message) -> AlertAccepted:
    """Read what intake takes: an accepted alert, or an event that becomes one.

    :raises pydantic.ValidationError: not of the shape
    """
    if message.type != LEAD_QUALIFIED:
        return AlertAccepted.model_validate(message.body)
    lead = LeadQualified.model_validate(message.body)
    return AlertAccepted(
        id=lead.id,
        event_type=LEAD_QUALIFIED,
        payload=dict(message.body),
        source="followups",
        accepted_at=lead.at,
    )


def each_accepted(message: Message) -> list[Message]:
    """Take `alerts.accepted` apart, as if each alert had come alone.

    :raises pydantic.ValidationError: not of the shape
    """
    together = AlertsAccepted.model_validate(message.body)
    return [
        Message(str(body.get("id")), ALERT_ACCEPTED, body, message.request_id)
        for body in together.alerts
    ]


def work(alert_id: UUID, target: str, turn: int, request_id: str | None) -> Message:
    body = {"alert_id": str(alert_id), "target": target, "turn": turn}
    return Message(id=str(uuid4()), type=ALERT_WORK, body=body, request_id=request_id)


def dead(
    alert_id: UUID, target: str, event_type: str, reason: str, request_id: str | None = None
) -> Message:
    body = {
        "alert_id": str(alert_id),
        "target": target,
        "event_type": event_type,
        "reason": reason,
    }
    # The reason once more, where it stands of whatever else lies in a `.dead`.
    headers = {REASON: reason}
    return Message(str(uuid4()), ALERT_DEAD, body, request_id=request_id, headers=headers)


def permit_request(alert_id: UUID, attempt: int, once: Once) -> dict[str, Any]:
    return {
        "message": str(alert_id),
        "attempt": attempt,
        "address": once.address,
        "purpose": once.purpose,
    }


def permit_return(alert_id: UUID, attempt: int, once: Once) -> Message:
    body = {"message": str(alert_id), "attempt": attempt, "address": once.address}
    return Message(id=str(uuid4()), type=PERMIT_RETURN, body=body)


def erasure_receipt(erasure_id: UUID, at: datetime) -> Message:
    body = {"erasure_id": str(erasure_id), "service": "alerts", "at": at.isoformat()}
    return Message(id=str(uuid4()), type=ERASURE_RECEIPT, body=body)


def export_answer(
    records: dict[str, list[dict[str, Any]]], after: tuple[UUID, str] | None
) -> dict[str, Any]:
    return {"records": records, "next": [str(after[0]), after[1]] if after else None}


Settled = Literal["sent", "cancelled", "in_doubt", "failed"]


def settled(
    alert_id: UUID,
    target: str,
    once: Once,
    outcome: Settled,
    reason: str | None,
    at: datetime | None = None,
) -> Message:
    body = {
        "alert_id": str(alert_id),
        "target": target,
        "reference": once.reference,
        "outcome": outcome,
        "reason": reason,
        "at": (at or datetime.now(UTC)).isoformat(),
    }
    return Message(id=str(uuid4()), type=DELIVERY_SETTLED, body=body)
