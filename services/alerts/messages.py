"""The messages that alerts reads and sends; readers ignore unknown fields."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import REASON, read
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from services.alerts.rules.delivery import Once
from services.alerts.rules.heartbeats import Kind

ALERT_ACCEPTED = "alert.accepted"
ALERTS_ACCEPTED = "alerts.accepted"
LEAD_EVENTS = frozenset({"lead.qualified", "lead.updated", "lead.submitted"})
OPTIONAL_EVENTS = LEAD_EVENTS - {"lead.submitted"}
"""A company may route none of them. A form that was answered 202 always raises one alert."""
ESCALATION = "escalation"
STAFF_MAIL = "staff.mail"
"""The console's mails, which may contain a link that lets somebody in."""
CASE_STEP = "case.step"
CASE_UPDATE = "case.update"
HEARTBEAT_MISSED = "heartbeat.missed"
CASE_EVENTS = frozenset({CASE_STEP, CASE_UPDATE})
_NEVER_SILENCED = frozenset({ESCALATION, STAFF_MAIL, *CASE_EVENTS})
ALERT_WORK = "alert.work"
ALERT_DEAD = "alert.dead"
DELIVERY_SETTLED = "delivery.settled"
CASE_ANSWERED = "case.answered"
CASE_RELEASED = "case.released"
PERMIT_REQUEST = "permit.request"
PERMIT_RETURN = "permit.return"

SUBJECT_ERASED = "person.erased"
ERASURE_RECEIPT = "erasure.receipt"
EXPORT_REQUEST = "export.request"

LOG_SHOWN = 1_000
"""Letters of a job's log, its last ones, that an alert has."""
Records = dict[str, list[dict[str, Any]]]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def may_be_silenced(event_type: str) -> bool:
    """Return whether a silence may cover it: a lead would be lost to another company."""
    return event_type not in _NEVER_SILENCED and not event_type.startswith(("lead.", "visitor."))


def shown_payload(row: Any) -> dict[str, Any] | None:
    """Return the payload of a delivery for people: a link is for its addressee alone."""
    return None if row.event_type == STAFF_MAIL else row.payload


def columns(row: Any, *names: str) -> dict[str, Any]:
    """Return these columns of a row as JSON has them."""
    values = {name: getattr(row, name) for name in names}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class OnceTerms(_Read):
    address: str
    purpose: str
    reference: str
    not_after: AwareDatetime | None = None


_Number = Annotated[int, Field(ge=1, lt=2**62)]


class Numbered(_Read):
    """The running number of an alert among those of one gateway process."""

    sender: Name
    number: _Number
    unused: tuple[tuple[_Number, _Number], ...] = ()
    """First and last of ranges whose callers were not answered 202."""


class AlertAccepted(_Read):
    id: UUID
    event_type: Name
    payload: dict[str, Any]
    target: Name | None = None
    severity: Literal["info", "warning", "critical"] = "info"
    dedup_key: str | None = None
    source: str
    caller: str | None = None
    """The holder of the key; None: the source itself, or unknown to an older gateway."""
    accepted_at: AwareDatetime
    once: OnceTerms | None = None
    resolved: bool = False
    """The source says that the subject of this dedup_key's alerts is over."""
    numbered: Numbered | None = None


class AlertsAccepted(_Read):
    """Several bodies of `alert.accepted`, each parsed on its own."""

    alerts: list[dict[str, Any]]


class LeadEvent(_Read):
    """The fields that the ledger needs; the whole body becomes the alert's payload."""

    id: UUID
    at: AwareDatetime


class HeartbeatPing(_Read):
    """What a job said to its ping URL, as the gateway took it."""

    id: UUID
    heartbeat: UUID
    url_version: int
    at: AwareDatetime
    kind: Kind
    code: int | None = Field(None, lt=2**62)
    log: str | None = None


class AlertWork(_Read):
    alert_id: UUID
    target: str
    generation: int = Field(ge=0)
    at: AwareDatetime | None = None
    """When the message was made; its row existed by then."""


class AlertDead(_Read):
    """A dead letter of a target; it returns when an operator moves it back."""

    alert_id: UUID
    target: str


class _OfSubject(_Read):
    email: Email | None = None
    phone: Phone | None = None
    conversations: tuple[UUID, ...] = ()
    """Those in which followups found the data subject."""
    phones: tuple[str, ...] = ()
    """Phones given in these conversations, unproven."""


class SubjectErased(_OfSubject):
    erasure_id: UUID


class ExportRequest(_OfSubject):
    """Asks for the records of one data subject; without e-mail and phone, for all addresses."""

    after: tuple[UUID, str] | tuple[int] | None = None
    """The `next` of the page before: a delivery, or a number of dead letters."""


class PermitAnswer(_Read):
    answer: Literal["granted", "denied", "closed"]
    seconds: float = Field(0, ge=0)  # how long a granted permit is valid, or one is deferred
    reason: str | None = None


def accepted(message: Message) -> AlertAccepted:
    """Parse a message of intake: an accepted alert, or an event that becomes one."""
    if message.type not in LEAD_EVENTS:
        return read(message, AlertAccepted)
    lead = read(message, LeadEvent)
    return AlertAccepted(
        id=lead.id,
        event_type=message.type,
        payload=dict(message.body),
        source="followups",
        accepted_at=lead.at,
    )


def each_accepted(message: Message) -> list[Message]:
    """Split `alerts.accepted` into one message for each alert, with the id of its request."""
    together = read(message, AlertsAccepted)
    return [
        Message(
            str(body.get("id")),
            ALERT_ACCEPTED,
            body,
            str(body["request_id"]) if "request_id" in body else message.request_id,
        )
        for body in together.alerts
    ]


def _heartbeat(row: Any, cause: object, now: datetime, text: str, **more: Any) -> AlertAccepted:
    """:param cause: what fixes the alert's id; the same never raises another one"""
    log = more.pop("log", None)
    return AlertAccepted(
        id=uuid5(row.id, str(cause)),
        event_type=HEARTBEAT_MISSED,
        payload={"heartbeat": row.name, "text": text, **({"log": log[-LOG_SHOWN:]} if log else {})},
        severity=row.severity,
        dedup_key=f"heartbeat {row.id}",
        source="alerts",
        accepted_at=now,
        **more,
    )


def heartbeat_missed(row: Any, within: float | None, now: datetime) -> AlertAccepted:
    """:param within: of an event type, the seconds of its file"""
    if within is not None:
        text = f"No {row.name} in {within / 3600:.3g} h of the time in which it is watched"
    elif row.started_at is not None:
        text = f"{row.name} started at {_shown(row.started_at)} and has not ended"
    else:
        since = f"since {_shown(row.last_at)}" if row.last_at else "yet"
        text = f"{row.name} has not been heard of {since}"
    return _heartbeat(row, row.next_at, now, text)


def heartbeat_failed(row: Any, ping: HeartbeatPing, now: datetime) -> AlertAccepted:
    code = "" if ping.code is None else f" with exit code {ping.code}"
    return _heartbeat(row, ping.id, now, f"{row.name} failed{code}", log=ping.log)


def heartbeat_over(row: Any, now: datetime, why: str) -> AlertAccepted:
    """Make the notice that ends the alert and the case of a heartbeat that was down."""
    return _heartbeat(row, f"{row.case_id} over", now, f"{row.name} {why}", resolved=True)


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _message(type_: str, request_id: str | None = None, **body: Any) -> Message:
    """Make a message whose ids and times are as JSON has them."""
    plain = {name: _plain(value) for name, value in body.items()}
    return Message(id=str(uuid4()), type=type_, body=plain, request_id=request_id)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def work(
    alert_id: UUID, target: str, generation: int, request_id: str | None, at: datetime | None = None
) -> Message:
    made = at or datetime.now(UTC)
    named = {"alert_id": alert_id, "target": target, "generation": generation, "at": made}
    return _message(ALERT_WORK, request_id, **named)


def dead(
    alert_id: UUID, target: str, event_type: str, reason: str, request_id: str | None = None
) -> Message:
    named = {"alert_id": alert_id, "target": target, "event_type": event_type, "reason": reason}
    # The reason is also a header, as in every other dead letter.
    return replace(_message(ALERT_DEAD, request_id, **named), headers={REASON: reason})


def permit_request(alert_id: UUID, attempt: int, once: Once) -> dict[str, Any]:
    who = {"address": once.address, "purpose": once.purpose}
    return {"message": str(alert_id), "attempt": attempt, **who}


def permit_return(alert_id: UUID, attempt: int, once: Once) -> Message:
    return _message(PERMIT_RETURN, message=alert_id, attempt=attempt, address=once.address)


def erasure_receipt(erasure_id: UUID, at: datetime) -> Message:
    return _message(ERASURE_RECEIPT, erasure_id=erasure_id, service="alerts", at=at)


def export_reply(records: Records, after: tuple[UUID, str] | tuple[int] | None) -> dict[str, Any]:
    return {"records": records, "next": after and list(map(_plain, after))}


def owned(
    type_: str, case_id: UUID, lead_id: UUID, request_id: str | None, at: datetime, by: str
) -> Message:
    """Make CASE_ANSWERED or CASE_RELEASED for a lead's case.

    :param by: the name of who has it, or had it
    """
    return _message(type_, request_id, case_id=case_id, lead_id=lead_id, at=at, by=by)


Settled = Literal["sent", "cancelled", "too_late", "in_doubt", "failed"]


def settled(
    alert_id: UUID, target: str, once: Once, outcome: Settled, reason: str | None,
    at: datetime | None = None, until: datetime | None = None,
) -> Message:  # fmt: skip
    later: dict[str, Any] = {"not_before": until} if until else {}
    return _message(
        DELIVERY_SETTLED, alert_id=alert_id, target=target, reference=once.reference,
        outcome=outcome, reason=reason, at=at or datetime.now(UTC), **later,
    )  # fmt: skip
