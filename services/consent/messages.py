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
    user_agent: str | None = None
    at: AwareDatetime


def event(email: str, purposes: Iterable[str], action: str, at: datetime) -> dict[str, Any]:
    return {
        "email": email,
        "purposes": list(purposes),
        "action": action,
        "at": at.isoformat(),
    }


def permit_answer(answer: str, seconds: int) -> dict[str, Any]:
    return {"answer": answer, "seconds": seconds}
