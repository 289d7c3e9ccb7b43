"""The shapes that followups reads and sends; a reader takes unknown fields without a word."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from libs.common.addresses import Address
from services.followups.facts import Facts

LEAD_QUALIFIED = "lead.qualified"
ALERT_ACCEPTED = "alert.accepted"
GRANT_RECORD = "grant.record"
CONSENT_GRANTED = "consent.granted"
CONSENT_WITHDRAWN = "consent.withdrawn"
PERSON_ERASED = "person.erased"
ERASURE_RECEIPT = "erasure.receipt"
EXPORT_REQUEST = "export.request"
DELIVERY_SETTLED = "delivery.settled"

MARKETING = "marketing"
_LEADS = uuid.UUID("6f1d1b5e-6d0e-4f3f-9a5b-3f0f3f5a1c11")


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class ConsentEvent(_Read):
    email: Address
    purposes: tuple[str, ...] = ()
    action: str
    at: AwareDatetime


class PersonErased(_Read):
    email: Address
    erasure_id: uuid.UUID


class ExportRequest(_Read):
    email: Address | None
    """Whose records; without it, whose addresses are held at all."""
    after: tuple[Literal["addresses", "conversations", "messages", "followups"], int] | None = None
    """What the page before named as `next`."""


class DeliverySettled(_Read):
    reference: uuid.UUID
    outcome: Literal["sent", "cancelled", "in_doubt", "failed"]
    reason: str | None = None
    at: AwareDatetime


def lead_id(conversation_id: uuid.UUID) -> uuid.UUID:
    """One lead per conversation: the alert made of it has this id however often it is told."""
    return uuid.uuid5(_LEADS, str(conversation_id))


def lead_qualified(
    conversation_id: uuid.UUID,
    session_id: str | None,
    facts: Facts,
    language: str,
    score: int,
    reasons: Sequence[str],
    summary: str,
    at: datetime,
) -> dict[str, Any]:
    return {
        "id": str(lead_id(conversation_id)),
        "conversation_id": str(conversation_id),
        "session_id": session_id,
        "email": facts.email,
        "phone": facts.phone,
        "name": facts.name,
        "language": language,
        "score": score,
        "reasons": list(reasons),
        "summary": summary,
        "at": _iso(at),
    }


def alert_accepted(
    followup_id: uuid.UUID, address: str, mail: dict[str, Any], at: datetime
) -> dict[str, Any]:
    """A mail to a lead: at most once, and only with a permit (protocol B)."""
    return {
        "id": str(followup_id),
        "event_type": "followup",
        "payload": mail,
        "target": "email",
        "severity": "info",
        "dedup_key": None,
        "source": "followups",
        "accepted_at": _iso(at),
        "once": {"address": address, "purpose": MARKETING, "reference": str(followup_id)},
    }


def grant_record(
    email: str,
    wording: str,
    language: str | None,
    session_id: str | None,
    ip_address: str | None,
    ip_address_from: str | None,
    user_agent: str | None,
    at: datetime,
    *,
    source: str = "chat",
    may_mail: bool = True,
) -> dict[str, Any]:
    return {
        "email": email,
        "purpose": MARKETING,
        "wording": wording,
        "language": language,
        "source": source,
        "session_id": session_id,
        "ip_address": ip_address,
        "ip_address_from": ip_address_from,
        "user_agent": user_agent,
        "at": _iso(at),
        "may_mail": may_mail,
    }


def erasure_receipt(erasure_id: uuid.UUID, at: datetime) -> dict[str, Any]:
    return {"erasure_id": str(erasure_id), "service": "followups", "at": _iso(at)}


def export_answer(
    records: dict[str, list[dict[str, Any]]], after: tuple[str, int] | None
) -> dict[str, Any]:
    return {"records": records, "next": list(after) if after else None}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
