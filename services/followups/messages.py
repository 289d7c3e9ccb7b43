"""The messages that followups reads and sends. Readers ignore unknown fields."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from libs.common.messaging.consumer import Body
from libs.common.plain import plain
from libs.domain.company import PAIR
from libs.domain.email_address import Email
from libs.domain.phone_number import Phone

LEAD = "lead"
LEAD_QUALIFIED = "lead.qualified"
LEAD_UPDATED = "lead.updated"
LEAD_SUBMITTED = "lead.submitted"
LEAD_EVENTS = frozenset({LEAD_QUALIFIED, LEAD_UPDATED, LEAD_SUBMITTED})
LEAD_SUBMIT = "lead.submit"
LEAD_CALL = "lead.call"
ALERT_ACCEPTED = "alert.accepted"
GRANT_RECORD = "grant.record"
WITHDRAWAL_RECORD = "withdrawal.record"
ADDRESS_REPORT = "address.report"
CONSENT_GRANTED = "consent.granted"
CONSENT_WITHDRAWN = "consent.withdrawn"
SUBJECT_ERASED = "person.erased"
ERASURE_TRACE = "erasure.trace"
ERASURE_RECEIPT = "erasure.receipt"
ERASED_REQUEST = "erased.request"
STANDING_REQUEST = "standing.request"
EXPORT_REQUEST = "export.request"
DELIVERY_SETTLED = "delivery.settled"
CASE_ANSWERED = "case.answered"
CASE_RELEASED = "case.released"

MARKETING = "marketing"
_COUNTRIES = {"+48": "PL", "+49": "DE", "+380": "UA", "+44": "GB", "+420": "CZ", "+421": "SK"}
_LEADS = uuid.UUID("6f1d1b5e-6d0e-4f3f-9a5b-3f0f3f5a1c11")


class ConsentEvent(Body):
    email: Email
    purposes: tuple[str, ...] = ()
    action: str
    at: AwareDatetime


class _OfSubject(Body):
    email: Email | None = None
    phone: Phone | None = None


class SubjectErased(_OfSubject):
    erasure_id: uuid.UUID
    conversations: frozenset[uuid.UUID] = frozenset()
    phones: frozenset[str] = frozenset()
    """The trace as consent has recorded it."""


class ErasedAnswer(Body):
    erased: frozenset[str]


class StandingAnswer(Body):
    purposes: dict[str, dict[str, dict[str, dict[str, str | None]]]]
    """By contact, purpose and channel: `state`, `since` and the `wording`."""


Held = Literal[
    "addresses", "conversations", "messages", "followups", "leads", "lead_acts", "submissions",
    "mails", "dead_letters",
]  # fmt: skip


class ExportRequest(_OfSubject):
    """A data subject's records; without e-mail and phone: all addresses that have records."""

    after: tuple[Held, int] | None = None
    """`next` of the previous page."""


class DeliverySettled(Body):
    alert_id: uuid.UUID
    reference: uuid.UUID
    outcome: Literal["sent", "cancelled", "too_late", "in_doubt", "failed"]
    reason: str | None = None
    at: AwareDatetime
    not_before: AwareDatetime | None = None
    """`too_late`, because the person pauses or wants fewer mails."""


class SubmittedConsent(Body):
    """A wording that a page showed and a person agreed to; the gateway has checked its hash."""

    purpose: str = Field(pattern=PAIR)
    version: str
    language: str
    text: str


class LeadSubmit(Body):
    """A form that the gateway accepted."""

    id: uuid.UUID
    form: str
    form_version: str
    language: Literal["pl", "en"]
    session_id: str | None = None
    fields: dict[str, str]
    facts: dict[str, str]
    """Normalised values of fields, by fact."""
    consents: tuple[SubmittedConsent, ...] = ()
    consents_not_recorded: tuple[str, ...] = ()
    notice_version: str | None = None
    page: str | None = None
    agreed_at: AwareDatetime | None = None
    """By the device's clock, or as a program states."""
    source: str | None = None
    suspicion: str | None = None
    """Why it looks like a robot's."""
    client_address: str | None = None
    client_address_from: str | None = None
    user_agent: str | None = None
    accepted_at: AwareDatetime

    @property
    def to_mails(self) -> list[SubmittedConsent]:
        """What they agreed to that follow-ups need."""
        return [consent for consent in self.consents if consent.purpose == MARKETING]

    @property
    def contacts(self) -> list[str]:
        """What identifies the person, as in lead_contact."""
        return [f"{kind}:{self.facts[kind]}" for kind in ("email", "phone") if kind in self.facts]


class CaseOwner(Body):
    """A member of staff has taken a lead, or given it back."""

    lead_id: uuid.UUID
    at: AwareDatetime
    by: str = "staff"
    """Their name; releases before the console did not say it."""


def lead_id(conversation_id: uuid.UUID, topic: str = LEAD, number: int = 0) -> uuid.UUID:
    """Return the id of a conversation's nth request of a topic, and of its first alert."""
    words = (conversation_id, topic if topic != LEAD else "", number or "")
    return uuid.uuid5(_LEADS, " ".join(filter(None, map(str, words))))


def update_id(lead_id: uuid.UUID, version: int, event_type: str = "") -> uuid.UUID:
    return uuid.uuid5(_LEADS, f"{lead_id} {version} {event_type}".strip())


def call_id(lead_id: uuid.UUID, at: datetime) -> uuid.UUID:
    """Return the id of the alert that reminds of a call planned for this time."""
    return uuid.uuid5(_LEADS, f"{lead_id} call {_iso(at)}")


def request(
    *,
    event_id: uuid.UUID,
    lead_id: uuid.UUID,
    conversation_id: uuid.UUID,
    known: Mapping[str, Any],
    at: datetime,
    form: str | None = None,
    act: Sequence[str] | None = None,
    **told: Any,
) -> dict[str, Any]:
    """A new or changed lead, or another request, for staff.

    :param form: by which it came, if not from the chat
    :param act: what staff did, each in a line
    :param told: the rest, as it is sent. `changes`: names of facts that changed since the last
        notification; `said`: the person's words since then; `previous`: id, state and owner (a
        name) of the request that this one follows
    """
    facts = ("email", "phone", "name", "city", "may_mail")
    body = {
        "id": str(event_id),
        "lead_id": str(lead_id),
        "conversation_id": str(conversation_id),
        **{name: known.get(name) for name in facts},
        "phone_country": _country(known.get("phone")),
        **{name: bool(known.get(name)) for name in ("no_calls", "wants_call")},
        "at": _iso(at),
        "previous": None,
    }
    more = {"form": form, "act": act}
    return body | told | {name: value for name, value in more.items() if value is not None}


def _country(phone: str | None) -> str | None:
    """Return the country code that Monday.com requires beside a number."""
    found = (code for prefix, code in _COUNTRIES.items() if (phone or "").startswith(prefix))
    return next(found, None)


def visitor_alert(event_type: str, severity: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": body["id"],
        "event_type": event_type,
        "payload": body,
        "target": None,
        "severity": severity,
        "dedup_key": None,
        "source": "followups",
        "accepted_at": body["at"],
        "once": None,
    }


def alert_accepted(
    message_id: uuid.UUID,
    followup_id: uuid.UUID,
    conversation_id: uuid.UUID,
    address: str,
    mail: dict[str, Any],
    at: datetime,
    not_after: datetime | None,
) -> dict[str, Any]:
    """A mail to a lead: at most once, only with a permit, and not after its window (protocol B)."""
    once = {
        "address": address,
        "purpose": MARKETING,
        "reference": str(followup_id),
        "not_after": not_after and _iso(not_after),
    }
    alert = visitor_alert("followup", "info", {"id": str(message_id), "at": _iso(at)})
    payload = mail | {"conversation_id": str(conversation_id)}
    return alert | {"payload": payload, "target": "email", "once": once}


_ORIGIN = dict.fromkeys(("language", "session_id", "ip_address", "ip_address_from", "user_agent"))


def grant_record(who: str, wording: str, at: datetime, **told: Any) -> dict[str, Any]:
    """The command to consent to record a grant.

    :param who: an e-mail address, or a number for a purpose by telephone
    :param told: what differs: _ORIGIN, `purpose`, `source`, `place` (chat, form or import).
        `proven`: an import says where it was given, so it needs no confirmation by mail;
        `wording_version` of forms.toml, and `evidence`: more about where it was given
    """
    usual = {"purpose": MARKETING, "source": "chat", "place": "chat", "proven": False}
    return _ORIGIN | usual | told | {"email": who, "wording": wording, "at": _iso(at)}


def withdrawal_record(
    who: str, at: datetime, *, erase: bool = False, source: str = "chat", **told: str | None
) -> dict[str, Any]:
    """:param erase: the person also asked for erasure; consent mails a link to confirm it
    :param told: _ORIGIN
    """
    return _ORIGIN | told | {"email": who, "at": _iso(at), "erase": erase, "source": source}


def address_report(email: str, *, takes_mail: bool, at: datetime) -> dict[str, Any]:
    """No permit is given for an address that takes no mail."""
    return {"email": email, "takes_mail": takes_mail, "at": _iso(at)}


def visitor_mail(key: str, at: datetime, **told: Any) -> dict[str, Any]:
    """A mail that staff must look at.

    :param key: the same one makes the same alert
    :param told: the rest: why they must, in their language (`topic`), the link to its lead, …
    """
    known = dict.fromkeys(("conversation_id", "email", "phone", "name", "language"))
    own = {"id": str(uuid.uuid5(_LEADS, f"mail {key}")), "session_id": "mail", "is_update": False}
    given = {name: plain(value) for name, value in told.items() if value is not None}
    return {**known, "transcript_url": None, **given, **own, "at": _iso(at)}


def about(contacts: Iterable[str]) -> dict[str, Any]:
    """The body of `erased.request` and `standing.request`."""
    return {"contacts": sorted(contacts)}


def erasure_receipt(erasure_id: uuid.UUID, at: datetime) -> dict[str, Any]:
    return {"erasure_id": str(erasure_id), "service": "followups", "at": _iso(at)}


def trace(conversations: Iterable[uuid.UUID], phones: Iterable[str]) -> dict[str, Any]:
    """The conversations and phone numbers that link a data subject to alerts."""
    return {"conversations": sorted(map(str, conversations)), "phones": sorted(phones)}


def erasure_trace(erasure_id: uuid.UUID, trace: dict[str, Any]) -> dict[str, Any]:
    return {"erasure_id": str(erasure_id)} | trace


def export_answer(
    records: dict[str, list[dict[str, Any]]],
    after: tuple[str, int] | None,
    trace: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"records": records, "next": list(after) if after else None, "trace": trace}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
