"""The messages that the console reads and sends."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict


class ActionRecord(BaseModel):
    """An act at another service, of which it has the only proof."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    id: UUID
    at: AwareDatetime
    actor_kind: Literal["staff", "key", "env"]
    actor_id: str
    actor_name: str | None = None
    roles: list[str] = []
    client_address: str | None = None
    action: str
    object_kind: str
    object_ref: str
    reason: str | None = None
    request_id: str
    outcome: str
    count: int | None = None


def staff_mail(alert_id: UUID, payload: dict[str, Any], at: datetime) -> dict[str, Any]:
    return {
        "id": str(alert_id),
        "event_type": "staff.mail",
        "payload": payload,
        "target": None,
        "severity": "info",
        "dedup_key": None,
        "source": "console",
        "accepted_at": at.isoformat(),
        "once": None,
    }
