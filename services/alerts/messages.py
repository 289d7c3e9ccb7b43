"""The messages that alerts reads and sends; readers ignore unknown fields."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4, uuid5

from pydantic import AwareDatetime, Field, StringConstraints

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import REASON, Body, read
from libs.common.plain import plain
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone
from services.alerts.rules.delivery import Once
from services.alerts.rules.heartbeats import Kind, Schedule

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
ALERT_WORKS = "alert.works"
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
    return {name: plain(getattr(row, name)) for name in names}


class OnceTerms(Body):
    address: str
    purpose: str
    reference: str
    not_after: AwareDatetime | None = None


_Number = Annotated[int, Field(ge=1, lt=2**62)]


class Numbered(Body):
    """The running number of an alert among those of one gateway process."""

    sender: Name
    number: _Number
    unused: tuple[tuple[_Number, _Number], ...] = ()
    """First and last of ranges whose callers were not answered 202."""


class AlertAccepted(Body):
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


class AlertsAccepted(Body):
    """Several bodies of `alert.accepted`, each parsed on its own."""

    alerts: list[dict[str, Any]]


class LeadEvent(Body):
    """The fields that the ledger needs; the whole body becomes the alert's payload."""

    id: UUID
    at: AwareDatetime


class HeartbeatPing(Body):
    """What a job said to its ping URL, as the gateway took it."""

    id: UUID
    heartbeat: UUID
    url_version: int
    at: AwareDatetime
    kind: Kind
    code: int | None = Field(None, lt=2**62)
    log: str | None = None


class Occurred(Body):
    """An event for subscriptions; rules/events.toml has the fields of each type."""

    at: AwareDatetime
    email: str | None = None
    key: str | None = None


class AlertWork(Body):
    alert_id: UUID
    target: str
    generation: int = Field(ge=0)
    at: AwareDatetime | None = None
    """When the message was made; its row existed by then."""


class AlertWorks(Body):
    """Several bodies of `alert.work` for one target, each read on its own."""

    works: list[dict[str, Any]]


class AlertDead(Body):
    """A dead letter of a target; it returns when an operator moves it back."""

    alert_id: UUID
    target: str


class _OfSubject(Body):
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


class PermitAnswer(Body):
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
    return _each(ALERT_ACCEPTED, "id", together.alerts, message)


def each_work(message: Message) -> list[Message]:
    """Split `alert.works` into one message for each row, with the id of its request."""
    return _each(ALERT_WORK, "alert_id", read(message, AlertWorks).works, message)


def _each(type_: str, name: str, bodies: Sequence[Mapping[str, Any]], of: Message) -> list[Message]:
    """:param name: of the field that becomes the message's id"""
    return [
        Message(
            str(body.get(name)),
            type_,
            body,
            str(body["request_id"]) if "request_id" in body else of.request_id,
            priority=of.priority,
        )
        for body in bodies
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


def heartbeat_missed(row: Any, schedule: Schedule, now: datetime) -> AlertAccepted:
    if row.event_type is not None:
        hours = (schedule.every or 0) / 3600
        text = f"No {row.name} in {hours:.3g} h of the time in which it is watched"
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
    body = {name: plain(value) for name, value in body.items()}
    return Message(id=str(uuid4()), type=type_, body=body, request_id=request_id)


def work(
    alert_id: UUID, target: str, generation: int, request_id: str | None, at: datetime | None = None
) -> Message:
    made = at or datetime.now(UTC)
    named = {"alert_id": alert_id, "target": target, "generation": generation, "at": made}
    return _message(ALERT_WORK, request_id, **named)


def works(each: Sequence[Message]) -> Message:
    """Put work messages of one target and priority into one; a single one stays as it is."""
    if len(each) == 1:
        return each[0]
    requests = ({} if one.request_id is None else {"request_id": one.request_id} for one in each)
    bodies = [{**one.body, **own} for one, own in zip(each, requests, strict=True)]
    return replace(_message(ALERT_WORKS, works=bodies), priority=each[0].priority)


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
    return {"records": records, "next": after and list(map(plain, after))}


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
