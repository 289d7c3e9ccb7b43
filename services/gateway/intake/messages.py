"""The shape of an alert: as clients send it (openapi.yaml), and as it is published to intake."""

import hashlib
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from libs.common.http.application import Model
from libs.common.messaging.broker import HIGH, Message

NAMESPACE = uuid.UUID("8f0ba0c5-6f55-5a64-9b59-6a8f3f6a7d0e")

MOST_ALERTS = 1_000
"""Of one request."""
Name = Annotated[str, Field(min_length=1, max_length=100)]


class AlertRequest(Model):
    event_type: Name
    payload: dict[str, Any]
    target: Name | None = None
    severity: Literal["info", "warning", "critical"] = "info"
    dedup_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    resolved: bool = False

    @model_validator(mode="after")
    def _resolves_what_its_key_names(self) -> Self:
        if self.resolved and self.dedup_key is None:
            raise ValueError("resolved needs the dedup_key of the alerts that it ends")
        return self


class BatchRequest(Model):
    alerts: Annotated[list[AlertRequest], Field(min_length=1, max_length=MOST_ALERTS)]


@dataclass(frozen=True, slots=True)
class AcceptedAlert:
    id: str
    body: dict[str, Any]
    request_id: str


def alert_id(caller: str, key: str | None, body: bytes, index: int | None = None) -> str:
    """Return an id from caller, Idempotency-Key, body and index; random without a key.

    It is fixed before the first attempt, so that a repeated request is the same alert. Another body
    under a forgotten key (Redis unavailable, 24 h over) is another alert; with the same id, the
    ledger would drop it.
    """
    if key is None:
        return str(_uuid7())
    parts = [caller, key, hashlib.sha256(body).hexdigest()]
    if index is not None:
        parts.append(str(index))
    return str(uuid.uuid5(NAMESPACE, "\n".join(parts)))


def _uuid7() -> uuid.UUID:
    """Return a random id that begins with the time in ms (UUIDv7, RFC 9562).

    So the ledger's index grows at its end. With random ids each new row would be on another page:
    with ten million rows, that writes ten times as much write-ahead log.
    """
    at = time.time_ns() // 1_000_000
    bits = at << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return uuid.UUID(int=bits)


def accepted(
    request: AlertRequest, id_: str, at: datetime, request_id: str, caller: str
) -> AcceptedAlert:
    """Make the body of `alert.accepted`; its golden form is tests/contracts/alert.accepted.json."""
    body = {
        "id": id_,
        "event_type": request.event_type,
        "payload": request.payload,
        "target": request.target,
        "severity": request.severity,
        "dedup_key": request.dedup_key,
        "source": "gateway",
        "caller": caller,
        "accepted_at": at.isoformat(),
        "once": None,
        **({"resolved": True} if request.resolved else {}),
    }
    return AcceptedAlert(id_, body, request_id)


def message(alerts: Sequence[AcceptedAlert]) -> Message:
    """Make `alert.accepted`, or `alerts.accepted` for several alerts, perhaps of many requests."""
    first = alerts[0]
    priority = HIGH if "critical" in {alert.body["severity"] for alert in alerts} else None
    if len(alerts) == 1:
        return Message(first.id, "alert.accepted", first.body, first.request_id, priority=priority)
    bodies = [alert.body | {"request_id": alert.request_id} for alert in alerts]
    requests = {alert.request_id for alert in alerts}
    request_id = first.request_id if len(requests) == 1 else None
    return Message(first.id, "alerts.accepted", {"alerts": bodies}, request_id, priority=priority)
