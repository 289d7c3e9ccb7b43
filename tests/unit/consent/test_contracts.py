"""The messages of consent: what it sends is golden, what it reads it reads leniently."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from services.consent import messages
from services.consent.rules import (
    ALL,
    MARKETING,
    Action,
    LinkMail,
    PermitAnswer,
    PermitDecision,
    Subject,
)
from tests.support.contracts import EXTRA, golden

AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
SUBJECT = Subject(
    "ala@example.com",
    None,
    frozenset({"3f0e2a94-7a4e-4a3b-9f0a-2d8c1b7e5a10"}),
    frozenset({"+48600700800"}),
)


@pytest.mark.parametrize(
    ("kind", "action", "purposes"),
    [
        (messages.GRANTED, Action.OPT_IN, [MARKETING]),
        (messages.WITHDRAWN, Action.UNSUBSCRIBE, ALL),
    ],
)
def test_an_event_matches_its_contract(kind: str, action: Action, purposes: Sequence[str]) -> None:
    assert messages.event("ala@example.com", purposes, action, AT) == golden(kind)


def test_an_erasure_order_matches_its_contract() -> None:
    erasure_id = UUID(golden("person.erased")["erasure_id"])
    order = messages.erased(SUBJECT, ALL, AT, erasure_id)
    assert order == golden("person.erased")


@pytest.mark.parametrize(
    ("name", "kind"), [("consent", LinkMail.ERASURE), ("opt-in", LinkMail.OPT_IN)]
)
def test_a_mail_alert_matches_its_contract(name: str, kind: LinkMail) -> None:
    body = golden(f"alert.accepted.{name}")
    assert messages.mail(UUID(body["id"]), body["payload"], AT, kind) == body


def test_an_export_request_matches_its_contract() -> None:
    assert messages.export_request(SUBJECT, None) == golden("export.request")


@EXTRA
def test_an_export_answer_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    answer = messages.ExportAnswer.model_validate(golden("export.answer") | extra)
    assert answer.next == ["messages", 0]
    assert list(answer.records) == ["conversations", "messages"]
    assert answer.trace is not None
    assert Subject(SUBJECT.email).traced(answer.trace.conversations, answer.trace.phones) == SUBJECT


TRACE = {"conversations": SUBJECT.conversations, "phones": SUBJECT.phones}
READ: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "erasure.trace": (messages.ErasureTrace, TRACE),
    "erasure.receipt": (messages.ErasureReceipt, {"service": "followups"}),
    "address.report": (messages.AddressReport, {"email": "ala@example.com", "takes_mail": False}),
    "withdrawal.record": (messages.WithdrawalRecord, {"source": "chat", "at": AT}),
    "permit.request": (messages.PermitRequest, {"purpose": "marketing"}),
    "permit.return": (messages.PermitReturn, {}),
}


@EXTRA
@pytest.mark.parametrize("name", READ)
def test_a_message_is_read_with_unknown_fields(name: str, extra: dict[str, Any]) -> None:
    model, said = READ[name]
    read = model.model_validate(golden(name) | extra)
    assert {each: getattr(read, each) for each in said} == said


def test_who_was_erased_is_read_and_answered_as_agreed() -> None:
    asked = messages.ErasedRequest.model_validate(golden("erased.request") | {"version": 2})
    assert asked.contacts == ("+48600700800", "ala@example.com")
    assert messages.erased_answer(["ala@example.com"]) == golden("erased.answer")


def test_a_permit_answer_matches_its_contract() -> None:
    granted = PermitAnswer(PermitDecision.GRANTED, 20)
    assert messages.permit_answer(granted) == golden("permit.answer")
    waits = PermitAnswer(PermitDecision.CLOSED, 20, no_consent=True)
    assert messages.permit_answer(waits) == golden("permit.answer.no_consent")
    later = PermitAnswer(PermitDecision.CLOSED, 86_400, deferred=True)
    assert messages.permit_answer(later) == golden("permit.answer.deferred")


@EXTRA
def test_a_grant_record_is_read_with_unknown_fields(extra: dict[str, Any]) -> None:
    form = messages.GrantRecord.model_validate(golden("grant.record.form") | extra)
    assert (form.place, form.wording_version) == ("form", "contact/2026-11")
    assert form.evidence["page"] == "https://www.ostoja-wnetrza.example/kontakt"
    given = messages.GrantRecord.model_validate(golden("grant.record.chat") | extra)
    assert given.source == "chat"
    assert given.wording
    assert given.at.tzinfo is not None
